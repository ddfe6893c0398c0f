"""Which dead letters are meant, as words, and how they look on a terminal."""

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from consumer import letter_pages as pages
from consumer.deadletters_arguments import asked
from consumer.letter_pages import plain, table
from schemas.errors import DEAD_CLASSES
from schemas.letters import (
    DeadClass,
    LetterChoice,
    LetterFilters,
    LetterGroup,
    PurgeRequest,
    Refusal,
    ReplayRequest,
    age,
    moment,
)

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_the_classes_are_those_that_have_a_topic() -> None:
    assert get_args(DeadClass) == tuple(one.value for one in DEAD_CLASSES)


def test_every_refusal_has_its_sentence() -> None:
    assert all(one.sentence.endswith(".") for one in Refusal)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("1w", timedelta(weeks=1)),
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31T13:00:00+01:00", NOON),
        ("2026-01-31 12:00", NOON),
        ("2026-01-31", NOON.replace(hour=0)),
    ],
)
def test_a_time_is_a_date_or_an_age(text: str, meant: datetime | timedelta) -> None:
    assert moment(text) == meant


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2", "h", "-2h", "2 h", "2y", "١h", "999999w", "0001-01-01", "9999-12-31", 7, True]
)
def test_what_is_neither_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        moment(text)
    with pytest.raises(ValueError, match="must be an age such as"):
        age(text)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{}", ()),
        ('{"ids": [1], "error_class": ["auth"]}', ()),
        ('{"ids": []}', ("ids",)),
        ('{"ids": [0]}', ("ids", 0)),
        ('{"ids": [9223372036854775808]}', ("ids", 0)),
        ('{"all": "yes"}', ("all",)),
        ('{"all": true, "limit": 1001}', ("limit",)),
        ('{"all": true, "replayed": true}', ("replayed",)),
        ('{"error_class": "auth"}', ("error_class",)),
        ('{"error_class": ["network"]}', ("error_class", 0)),
        ('{"error_code": ["a\\u0000b"]}', ("error_code", 0)),
        ('{"user_id": "7"}', ("user_id",)),
        ('{"since": 7}', ("since",)),
    ],
)
def test_a_replay_must_say_which_and_nothing_unknown(body: str, field: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        ReplayRequest.model_validate_json(body)
    assert refused.value.errors()[0]["loc"] == field


def test_a_purge_without_a_word_is_of_what_was_replayed() -> None:
    asked = PurgeRequest.model_validate_json("{}")
    assert (asked.ids, asked.older_than, asked.all, asked.narrows()) == (None, None, False, False)
    assert PurgeRequest.model_validate_json('{"older_than": "30d"}').older_than == timedelta(days=30)


def test_a_filter_narrows() -> None:
    assert not LetterFilters().narrows()
    assert LetterFilters(error_code=["x"]).narrows()


@given(st.text())
def test_whatever_a_stranger_wrote_is_one_harmless_line(text: str) -> None:
    told = plain(text)
    assert told.isprintable()
    assert len(told.splitlines()) <= 1


@given(st.lists(st.tuples(st.text(max_size=90), st.text(max_size=90), st.text(max_size=90)), max_size=5))
def test_a_table_is_never_wider_than_it_may_be(rows: list[tuple[str, str, str]]) -> None:
    lines = table(("ID", "CODE", "MODEL"), rows, width=40, right={0})
    assert len(lines) == len(rows) + 1
    assert all(len(line) <= 40 for line in lines)


def test_groups_of_the_longest_codes_fit_eighty_columns() -> None:
    one = LetterGroup(
        error_class="unexpected",
        error_code="reference_unreachable",
        model_id="seedream-4.5",
        letters=123_456,
        replayed=0,
        first_failed_at=NOON,
        last_failed_at=NOON,
    )
    head, line = pages.grouping([one], width=80)
    assert head.split() == ["LETTERS", "CLASS", "CODE", "MODEL", "FIRST", "(UTC)", "LAST", "(UTC)"]
    assert line.split() == [
        *("123,456", "unexpected", "reference_unreacha…", "seedream-4.5"),
        *("01-31", "12:00", "01-31", "12:00"),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("list --since yesterday", "argument --since: must be a time such as"),
        ("list --class auth,nope", "argument --class: must be 'invalid', 'auth'"),
        ("list --user 7", "argument --user: must be a UUID"),
        ("list --code a,,b", "argument --code: must be printable ASCII"),
        ("list --limit 0", "argument --limit: must be a whole number from 1"),
        ("replay", "name ids or a filter, or say --all"),
        ("replay 7 --class auth", "name ids or filters, not both"),
        ("replay 7 --limit 3", "--limit goes with filters"),
        ("replay --all --rate nan", "argument --rate: must be a number from 0.01 to 1000"),
        ("replay --all --replayed", "unrecognized arguments: --replayed"),
        ("purge --older-than 3y", "argument --older-than: must be an age"),
        ("show 0", "must be a letter's number"),
        ("show 9223372036854775808", "must be a letter's number"),
        ("", "list|show|replay|purge"),
    ],
)
def test_wrong_arguments_are_named(arguments: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        asked(arguments.split())
    assert ended.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_the_command_line_says_what_is_asked_for() -> None:
    given = asked(
        [
            "replay",
            "--class",
            "auth,quota",
            "--class",
            "poison",
            "--since",
            "2h",
            "--rate",
            "5",
            "--limit",
            "7",
            "--yes",
        ]
    )
    assert given.choice == LetterChoice(error_class=["auth", "quota", "poison"], since=timedelta(hours=2))
    assert (given.ids, given.rate, given.limit, given.yes, given.dry_run) == (None, 5.0, 7, True, False)
    given = asked(["purge", "7", "5", "7", "--all", "--dry-run"])
    assert (given.ids, given.everything, given.older_than, given.dry_run) == ([5, 7], True, None, True)
    assert asked(["list"]).filters == LetterFilters()
    assert asked(["list", "--not-replayed"]).filters.replayed is False


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["replay"], ["purge"]])
def test_help_is_complete_and_fits_eighty_columns(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        asked([*command, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(len(line) <= 80 for line in said.splitlines())
    assert all(word in said for word in ("Exit codes:", "SCENEWIRE_DATABASE_URL", "docs/configuration.md"))
    assert all(f"  {code} " in said for code in (0, 1, 2, 3, 130))
