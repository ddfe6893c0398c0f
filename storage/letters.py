"""Dead letters found again: which there are, how many of a kind, and all that is known of one.

Conditions are put together from what is asked for, because each must be able to use its own index: one statement for
all would be planned for none of them. The values are always parameters.
"""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row

from schemas.letters import (
    DeadLetter,
    DeadLetterDetail,
    LetterAttempt,
    LetterChoice,
    LetterEvent,
    LetterFilters,
    LetterGroup,
    LetterHeader,
    LetterRecord,
    Refusal,
)
from storage import originals
from storage.database import Database
from telemetry.redaction import redact

_MOST_GROUPS = 500
_SHOWN_BYTES = 4_096
"""Of an event's body."""

COLUMNS = """l.id, CASE WHEN l.body IS NULL THEN 'record' ELSE 'event' END AS kind, l.record_id, l.user_id,
    l.chapter_id, l.attempt, l.model_id, l.error_class, l.error_code, l.error_message, l.topic, l.origin_topic,
    l.origin_partition, l.origin_offset, l.first_failed_at, l.failed_at, l.replayed_at"""

REFUSAL = f"""CASE
    WHEN l.replayed_at IS NOT NULL THEN '{Refusal.ALREADY_REPLAYED}'
    WHEN l.body IS NOT NULL THEN NULL
    WHEN g.id IS NULL OR g.lane IS NULL THEN '{Refusal.RECORD_GONE}'
    WHEN g.status IS DISTINCT FROM 'failed' THEN '{Refusal.NOT_FAILED}'
    WHEN g.attempt IS DISTINCT FROM l.attempt THEN '{Refusal.ATTEMPT_MOVED_ON}' END"""
"""Why letter `l` cannot be replayed, null when it can; `g` is its image generation, left joined."""

AND_ITS_RECORD = "dead_letters l LEFT JOIN image_generations g ON g.id = l.record_id AND l.body IS NULL"


class NotACursor(Exception):
    """What was given as a cursor is none of this list's."""


class Condition:
    """A WHERE clause over letters `l` that grows; `values` are its parameters."""

    def __init__(self, choice: LetterChoice | None = None) -> None:
        self.values: list[object] = []
        self._parts: list[str] = []
        for name in ("error_class", "error_code", "model_id"):
            self._add(f"l.{name} = ANY({{}}::text[])", getattr(choice, name, None))
        for name in ("user_id", "chapter_id", "record_id"):
            self._add(f"l.{name} = {{}}::uuid", getattr(choice, name, None))
        if choice is not None:
            self.time("l.failed_at >= {}", choice.since)
            self.time("l.failed_at < {}", choice.until)
        if isinstance(choice, LetterFilters) and choice.replayed is not None:
            self.also(f"l.replayed_at IS {'NOT ' if choice.replayed else ''}NULL")

    def also(self, part: str, *values: object) -> "Condition":
        """One more part; each `{}` in it is a parameter of `values`."""
        self._parts.append(part.format(*(self.parameter(value) for value in values)))
        return self

    def time(self, part: str, moment: datetime | timedelta | None) -> "Condition":
        """The same with a time, or an age by the database's clock; nothing for None."""
        if isinstance(moment, timedelta):
            age = self.parameter(moment.total_seconds())
            self._parts.append(part.format(f"now() - make_interval(secs => {age}::float8)"))
        elif moment is not None:
            self.also(part.replace("{}", "{}::timestamptz"), moment)
        return self

    def parameter(self, value: object) -> str:
        """A parameter's number, as SQL."""
        self.values.append(value)
        return f"${len(self.values)}"

    def _add(self, part: str, value: object) -> None:
        if value is not None:
            self.also(part, value)

    def __str__(self) -> str:
        return " AND ".join(self._parts) or "true"


async def listed(
    database: Database, filters: LetterFilters, *, limit: int, cursor: str | None = None
) -> tuple[list[DeadLetter], str | None]:
    """A page, the newest first, and the cursor of the next one. Raises `NotACursor`."""
    where = Condition(filters)
    if cursor is not None:
        where.also("(l.failed_at, l.id) < ({}::timestamptz, {}::bigint)", *_place(cursor))
    most = where.parameter(limit + 1)
    rows = await database.fetch(
        f"SELECT {COLUMNS} FROM dead_letters l WHERE {where} ORDER BY l.failed_at DESC, l.id DESC LIMIT {most}",
        *where.values,
    )
    page = [_letter(row) for row in rows[:limit]]
    more = len(rows) > limit
    return page, _cursor(page[-1]) if more else None


async def count(database: Database, filters: LetterFilters) -> int:
    """How many there are."""
    where = Condition(filters)
    (row,) = await database.fetch(f"SELECT count(*) AS letters FROM dead_letters l WHERE {where}", *where.values)
    return int(row.letters)


async def grouped(database: Database, filters: LetterFilters) -> list[LetterGroup]:
    """Counts by class, code and model, the largest first, 500 groups at most."""
    where = Condition(filters)
    return await groups(database, f"dead_letters l WHERE {where}", where.values)


async def groups(database: Database, source: str, values: Sequence[object]) -> list[LetterGroup]:
    """The groups of the letters `l` in `source`, which is SQL after FROM."""
    rows = await database.fetch(
        f"""SELECT l.error_class, l.error_code, l.model_id, count(*) AS letters, count(l.replayed_at) AS replayed,
                min(l.failed_at) AS first_failed_at, max(l.failed_at) AS last_failed_at
            FROM {source} GROUP BY 1, 2, 3 ORDER BY 4 DESC, 7 DESC, 1, 2, 3 LIMIT {_MOST_GROUPS}""",
        *values,
    )
    return [LetterGroup.model_validate(dict(row._mapping)) for row in rows]


_ONE = f"""
SELECT {COLUMNS}, {REFUSAL} AS refusal, l.body, l.headers, l.original, r.id IS NOT NULL AS known, r.status, r.stage,
    r.version, r.attempt AS record_attempt, r.retry_count, r.scene_number, r.scene_description, r.user_tier, r.lane,
    r.created_at::timestamptz AS created_at, r.deadline_at
FROM {AND_ITS_RECORD} LEFT JOIN image_generations r ON r.id = l.record_id WHERE l.id = $1
"""

_ATTEMPTS = """
SELECT id, attempt, model_id, sent_at, provider_request_id, outcome, counted, error_class, error_code, error_detail,
    cost::float8 AS cost, closed_at
FROM generation_attempts WHERE record_id = $1 ORDER BY attempt LIMIT 500
"""


async def one(database: Database, letter_id: int) -> DeadLetterDetail | None:
    """Everything about one letter; texts of others are without secrets. None: there is no such letter."""
    rows = await database.fetch(_ONE, letter_id)
    if not rows:
        return None
    (row,) = rows
    attempts = await database.fetch(_ATTEMPTS, row.record_id) if row.known else []
    return DeadLetterDetail(
        **_letter(row).model_dump(),
        refusal=row.refusal,
        record=_record(row) if row.known else None,
        attempts=[_attempt(attempt) for attempt in attempts],
        event=_event(row) if row.body is not None else None,
    )


def _letter(row: Row[Any]) -> DeadLetter:
    values = {name: value for name, value in row._mapping.items() if name in DeadLetter.model_fields}
    return DeadLetter.model_validate({**values, "error_message": _told(row.error_message)})


def _record(row: Row[Any]) -> LetterRecord:
    values = {name: value for name, value in row._mapping.items() if name in LetterRecord.model_fields}
    return LetterRecord.model_validate({**values, "attempt": row.record_attempt})


def _attempt(row: Row[Any]) -> LetterAttempt:
    return LetterAttempt.model_validate({**row._mapping, "error_detail": _told(row.error_detail)})


def _event(row: Row[Any]) -> LetterEvent:
    original = originals.read(row.original)
    exact = original is not None
    if original is None and row.origin_topic is None:
        # one of ours, that the relay could not send
        original, exact = originals.of_ours(row.headers), True
    original = original or originals.Original()
    body = bytes(row.body)
    return LetterEvent(
        key=_text(original.key),
        headers=[LetterHeader(name=name, value=_text(value)) for name, value in original.headers],
        exact=exact,
        bytes=len(body),
        # cut after the secrets are out: half of one would not be known as such
        body=(_text(body[: 2 * _SHOWN_BYTES]) or "")[:_SHOWN_BYTES],
    )


def _told(text: str | None) -> str | None:
    return None if text is None else redact(text)


def _text(value: bytes | None) -> str | None:
    return None if value is None else redact(value.decode("utf-8", "backslashreplace"))


def _cursor(last: DeadLetter) -> str:
    return base64.urlsafe_b64encode(f"{last.failed_at.isoformat()}/{last.id}".encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[datetime, int]:
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"==").decode("ascii")
        time, _, letter_id = text.partition("/")
        failed_at, number = datetime.fromisoformat(time), int(letter_id)
        if failed_at.tzinfo is not None and 0 < number < 2**63:
            return failed_at.astimezone(UTC), number
    except (ValueError, OverflowError, binascii.Error):
        pass
    raise NotACursor
