"""Dead letters as plain text for a terminal: aligned, no wider than it is, and nothing in it that steers it."""

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from schemas.letters import (
    DeadLetter,
    DeadLetterDetail,
    LetterAttempt,
    LetterEvent,
    LetterGroup,
    LetterRecord,
    Refusal,
)

_GAP = "  "
_NARROWEST = 6
_LABEL = 12


def plain(text: object) -> str:
    """`text` on one line: line ends, control and formatting characters (an escape sequence among them) as escapes."""
    return "".join(_harmless(character) for character in str(text))


def _harmless(character: str) -> str:
    if character.isprintable() and unicodedata.category(character) != "Cf":
        return character
    return character.encode("unicode_escape").decode()


def when(time: datetime | None) -> str:
    """To the second, in UTC."""
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def listing(letters: Sequence[DeadLetter], *, width: int) -> list[str]:
    """One line a letter; `r` marks what was replayed."""
    rows = [
        (
            str(one.id),
            "r" if one.replayed_at else "",
            when(one.failed_at)[:16],
            one.error_class,
            one.error_code or "",
            one.model_id or short_topic(one.origin_topic or one.topic),
        )
        for one in letters
    ]
    return table(("ID", "", "DIED (UTC)", "CLASS", "CODE", "MODEL OR TOPIC"), rows, width=width, right={0})


def grouping(groups: Sequence[LetterGroup], *, width: int) -> list[str]:
    """One line a group; times without their year."""
    heads = ["LETTERS", "REPLAYED", "CLASS", "CODE", "MODEL", "FIRST (UTC)", "LAST (UTC)"]
    rows = [
        [
            f"{one.letters:,}",
            f"{one.replayed:,}",
            one.error_class,
            one.error_code or "",
            one.model_id or "",
            when(one.first_failed_at)[5:16],
            when(one.last_failed_at)[5:16],
        ]
        for one in groups
    ]
    if not any(one.replayed for one in groups):
        # a column of noughts would take the codes' room
        for row in (heads, *rows):
            del row[1]
    return table(heads, rows, width=width, right=set(range(len(heads) - 5)))


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, width: int, right: set[int] | frozenset[int] = frozenset()
) -> list[str]:
    """Columns side by side; where they are too wide together, the widest are cut first."""
    cells = [list(heads), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in cells:
        line = [_cut(cell, size) for cell, size in zip(row, widths, strict=True)]
        line = [
            cell.rjust(size) if column in right else cell.ljust(size)
            for column, (cell, size) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append(_GAP.join(line).rstrip())
    return lines


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def short_topic(topic: str) -> str:
    return topic.removeprefix("scene-images.").removesuffix(".v1")


def page(letter: DeadLetterDetail, *, width: int) -> list[str]:
    """Everything about one letter."""
    code = f", code {letter.error_code}" if letter.error_code else ""
    facts: dict[str, object] = {
        "class": f"{letter.error_class}{code}",
        "died": f"{when(letter.failed_at)} UTC",
        "first failed": f"{when(letter.first_failed_at)} UTC" if letter.first_failed_at else None,
        "told": letter.error_message,
        "topic": letter.topic,
        "read from": _origin(letter),
        "record": letter.record_id,
        "user": letter.user_id,
        "chapter": letter.chapter_id,
        "attempt": letter.attempt,
        "model": letter.model_id,
        "replay": _replay(letter),
    }
    lines = [f"Dead letter {letter.id}", *_facts(facts, width)]
    if letter.event is not None:
        lines += ["", "The event", *_event(letter.event, width)]
    if letter.record is not None:
        lines += ["", "Its image generation now", *_record(letter.record, width)]
    if letter.attempts:
        lines += ["", "What was tried"]
        for attempt in letter.attempts:
            lines += _attempt(attempt, width)
    return lines


def _origin(letter: DeadLetter) -> str | None:
    if letter.origin_topic is None:
        return None
    return f"{letter.origin_topic}, partition {letter.origin_partition}, offset {letter.origin_offset}"


def _replay(letter: DeadLetterDetail) -> str:
    if letter.refusal is Refusal.ALREADY_REPLAYED:
        return f"was replayed at {when(letter.replayed_at)} UTC"
    if letter.refusal is not None:
        return f"not possible: {letter.refusal.sentence}"
    return f"python -m consumer.deadletters replay {letter.id}"


def _event(event: LetterEvent, width: int) -> list[str]:
    kept = "" if event.exact else "not kept by the version that buried it"
    facts: dict[str, object] = {
        "key": event.key if event.key is not None else kept or "none",
        "headers": kept or f"{len(event.headers)}",
        "body": f"{event.bytes:,} bytes",
    }
    lines = _facts(facts, width)
    for header in event.headers:
        lines += _wrapped(f"{plain(header.name)}: {plain(header.value)}", width, 4)
    return lines + _wrapped(plain(event.body), width, 4)


def _record(record: LetterRecord, width: int) -> list[str]:
    facts: dict[str, object] = {
        "status": f"{record.status}, {record.stage}",
        "version": record.version,
        "attempt": f"{record.attempt}, {record.retry_count} retries",
        "scene": record.scene_number,
        "described as": record.scene_description,
        "tier, lane": f"{record.user_tier}, {record.lane}",
        "asked for": f"{when(record.created_at)} UTC",
        "deadline": f"{when(record.deadline_at)} UTC" if record.deadline_at else None,
    }
    return _facts(facts, width)


def _attempt(attempt: LetterAttempt, width: int) -> list[str]:
    counted = {True: ", counted", False: ", not counted", None: ""}[attempt.counted]
    code = f" {attempt.error_code}" if attempt.error_code else ""
    facts: dict[str, object] = {
        "outcome": f"{attempt.outcome or 'open'}{counted}",
        "error": f"{attempt.error_class}{code}" if attempt.error_class else None,
        "detail": attempt.error_detail,
        "sent": f"{when(attempt.sent_at)} UTC" if attempt.sent_at else "never",
        "closed": f"{when(attempt.closed_at)} UTC" if attempt.closed_at else None,
        "track_id": attempt.id,
        "provider id": attempt.provider_request_id,
        "cost": f"{attempt.cost:.4f} USD" if attempt.cost is not None else None,
    }
    return [f"  {attempt.attempt}. {plain(attempt.model_id)}", *_facts(facts, width, indent=5)]


def _facts(facts: Mapping[str, object], width: int, *, indent: int = 2) -> list[str]:
    lines: list[str] = []
    for name, value in facts.items():
        if value is not None:
            label = f"{' ' * indent}{name:<{_LABEL}}  "
            lines += textwrap.wrap(plain(value), width, initial_indent=label, subsequent_indent=" " * len(label)) or [
                label.rstrip()
            ]
    return lines


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent)


def reasons(skipped: Mapping[Refusal, int]) -> list[str]:
    """Why some were skipped, a line each."""
    return [f"  {count:,} {refusal.value}: {refusal.sentence}" for refusal, count in sorted(skipped.items())]
