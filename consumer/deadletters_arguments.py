"""The command line of `python -m consumer.deadletters`, read and checked before anything is asked of Postgres."""

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import ValidationError

from schemas.letters import LetterChoice, LetterFilters, age

_M = TypeVar("_M", bound=LetterChoice)
_LARGEST = 2**63 - 1
_RATES = (0.01, 1_000.0)
_WIDTH = 79

_FILTERS = {
    # field: option
    "error_class": "--class",
    "error_code": "--code",
    "model_id": "--model",
    "user_id": "--user",
    "chapter_id": "--chapter",
    "record_id": "--record",
    "since": "--since",
    "until": "--until",
}
_LISTS = ("error_class", "error_code", "model_id")

_EPILOG = """\
Times are ISO 8601 (UTC where no zone is named) or ages: 90s, 30m, 2h, 3d, 1w.

Exit codes:
  0    done
  1    not done: Postgres is away, there is no such letter, or --yes is missing
  2    wrong arguments or settings
  3    done, but some of the letters could not be replayed and were skipped
  130  interrupted; what was replayed or deleted until then stays so

Settings from the environment: SCENEWIRE_DATABASE_URL, and SCENEWIRE_DEADLINE
for how long a replayed request may take (docs/configuration.md).
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `choice` is empty where `ids` name the letters."""

    command: str
    filters: LetterFilters = field(default_factory=LetterFilters)
    choice: LetterChoice = field(default_factory=LetterChoice)
    ids: list[int] | None = None
    group: bool = False
    cursor: str | None = None
    limit: int | None = None
    dry_run: bool = False
    yes: bool = False
    rate: float = 20.0
    older_than: timedelta | None = None
    everything: bool = False
    json: bool = False


def asked(argv: Sequence[str] | None = None) -> Asked:
    """Read the command line (by default the process's own). What is wrong ends the process with exit code 2."""
    parser, commands = _parser()
    given = vars(parser.parse_args(argv))
    command: str = given["command"]
    mine = commands[command]
    if command == "show":
        return Asked(command, ids=[given["id"]], json=given["json"])
    named = {name: given[name] for name in _FILTERS if given[name] is not None}
    if command == "list":
        filters = _checked(mine, LetterFilters, {**named, "replayed": given["replayed"]})
        return Asked(
            command,
            filters=filters,
            group=given["group"],
            cursor=given["cursor"],
            limit=given["limit"],
            json=given["json"],
        )
    ids: list[int] | None = sorted(set(given["ids"])) or None
    if ids is not None and named:
        mine.error("name ids or filters, not both")
    if ids is not None and given["limit"] is not None:
        mine.error("--limit goes with filters, not with ids")
    if command == "replay" and ids is None and not named and not given["all"]:
        mine.error("name ids or a filter, or say --all")
    return Asked(
        command,
        choice=_checked(mine, LetterChoice, named),
        ids=ids,
        limit=given["limit"],
        dry_run=given["dry_run"],
        yes=given["yes"],
        rate=given.get("rate", 0.0),
        older_than=given.get("older_than"),
        everything=given["all"],
        json=given["json"],
    )


def _checked(parser: argparse.ArgumentParser, model: type[_M], given: dict[str, Any]) -> _M:
    try:
        return model.model_validate(given, strict=False)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        option = _FILTERS[str(fault["loc"][0])]
        parser.error(f"argument {option}: {_message(option, fault)}")


def _message(option: str, fault: Any) -> str:
    match fault["type"]:
        case "string_pattern_mismatch":
            return "must be printable ASCII without spaces, such as docs/errors.md lists"
        case "uuid_parsing" | "uuid_type":
            return "must be a UUID"
    text = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return f"must be {text}" if option == "--class" else text


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(
        prog="python -m consumer.deadletters",
        description=textwrap.fill(
            "Dead letters: requests and events that are not tried again by themselves. Look at them, replay them when "
            "their cause is mended, delete them when they are done with.",
            _WIDTH,
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|show|replay|purge")
    made: dict[str, argparse.ArgumentParser] = {}

    def command(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        made[name] = commands.add_parser(
            name,
            help=summary,
            description=textwrap.fill(description, _WIDTH),
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        return made[name]

    listing = command("list", "which there are, the newest first", "List dead letters, the newest first.")
    _filters(listing)
    listing.add_argument("--replayed", action="store_true", default=None, help="only those that were replayed")
    listing.add_argument(
        "--not-replayed", dest="replayed", action="store_false", default=None, help="only those that were not"
    )
    listing.add_argument("--group", action="store_true", help="counts by class, code and model instead of letters")
    listing.add_argument("--limit", type=_count, metavar="N", default=50, help="most letters (default: %(default)s)")
    listing.add_argument("--cursor", metavar="CURSOR", help="go on after a page: `cursor` of its --json")

    show = command("show", "everything about one", "Show one dead letter, with all that was tried for it.")
    show.add_argument("id", type=_number, metavar="ID", help="the letter's number, as `list` shows it")

    replay = command(
        "replay",
        "try them again",
        "Replay dead letters, the oldest first. A failed image generation is pending again, with all its retries and "
        "a new deadline; whoever watches it sees that. An event is sent again to where it was read, byte for byte. "
        "What is not failed any more, or was tried again since, is skipped.",
    )
    _choice(replay)
    replay.add_argument("--all", action="store_true", help="every letter that can be replayed")
    replay.add_argument(
        "--rate", type=_rate, metavar="R", default=20.0, help="letters a second, evenly (default: %(default)g)"
    )

    purge = command(
        "purge",
        "delete them",
        "Delete dead letters, the oldest first: those that were replayed, and others only where that is said. The "
        "image generations and what was tried for them stay.",
    )
    _choice(purge)
    purge.add_argument(
        "--older-than", type=_age, metavar="AGE", help="delete what died so long ago, replayed or not: 30d"
    )
    purge.add_argument("--all", action="store_true", help="delete what fits, replayed or not, of any age")
    for each in made.values():
        each.add_argument("--json", action="store_true", help="JSON on stdout, for scripts")
    return parser, made


def _choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", type=_number, metavar="ID", help="these letters, instead of filters")
    _filters(parser)
    parser.add_argument("--limit", type=_count, metavar="N", help="most letters, the oldest first (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="change nothing, say how many and which groups")
    parser.add_argument("--yes", action="store_true", help="mean it, where more than 20 letters are touched")


def _filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters", "those with several values take commas, or the option again")
    for name, metavar, words in (
        ("error_class", "CLASS", "invalid, auth, quota, content, exhausted, deadline, poison, unexpected"),
        ("error_code", "CODE", "codes, as docs/errors.md lists them"),
        ("model_id", "MODEL", "models of the last attempt"),
        ("user_id", "UUID", "of this user"),
        ("chapter_id", "UUID", "of this chapter"),
        ("record_id", "UUID", "of this image generation"),
        ("since", "TIME", "died then or later"),
        ("until", "TIME", "died before then"),
    ):
        if name in _LISTS:
            group.add_argument(_FILTERS[name], dest=name, metavar=metavar, action="extend", type=_listed, help=words)
        else:
            group.add_argument(_FILTERS[name], dest=name, metavar=metavar, help=words)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= _LARGEST:
        raise argparse.ArgumentTypeError("must be a letter's number, as `list` shows it")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 1000000")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not _RATES[0] <= rate <= _RATES[1]:
        raise argparse.ArgumentTypeError(f"must be a number from {_RATES[0]:g} to {_RATES[1]:g}")
    return rate


def _age(text: str) -> timedelta:
    try:
        return age(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
