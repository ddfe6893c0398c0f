"""What is asked for, how the provider takes it, and how a test waits until the street is where it wants it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from storage.database import Database
from tests.chaos import books
from tests.chaos.people import PATIENCE, Person

JOB = "A job that takes a while"
SLOW_ANSWER = "An answer that takes a while"
SLOW_PICTURE = "A picture that takes a while"
AT_ONCE = "A scene that is made at once"

MIXED: Sequence[dict[str, Any]] = (
    {"text": SLOW_ANSWER, "action": {"answer": "success", "latency": {"low": 1, "high": 2}}},
    {"call": "picture", "text": SLOW_PICTURE, "first": 4, "action": {"answer": "success", "latency": 1.5}},
    {"text": JOB, "action": {"answer": "processing", "duration": {"low": 0.5, "high": 2}}},
)

HELD: Sequence[dict[str, Any]] = (
    {"call": "fetch", "text": JOB, "action": {"answer": "error", "fault": "bad_gateway"}},
)
"""Nobody is told how a job stands: it is followed until a script without this says so."""

_OPEN_SUBMITS = """
SELECT count(*) FILTER (WHERE a.sent_at IS NOT NULL AND a.provider_request_id IS NULL) AS open,
    count(*) FILTER (WHERE a.provider_request_id IS NOT NULL) AS making
FROM generation_attempts a JOIN image_generations g ON g.id = a.record_id
WHERE g.user_id = ANY($1) AND a.outcome IS NULL AND a.output_urls IS NULL
"""


async def comes_true(database: Database, query: str, *args: object, within: float = PATIENCE) -> None:
    """Wait until `query` gives a row."""

    async def given() -> bool:
        (row,) = await database.fetch(f"SELECT EXISTS ({query}) AS so", *args)
        return bool(row.so)

    assert await books.until(given, within), f"not within {within:g} s: {query}"


async def reaches(database: Database, records: Sequence[UUID], stage: str) -> None:
    """Wait until all of `records` are at this stage."""
    query = "SELECT WHERE NOT EXISTS (SELECT FROM image_generations WHERE id = ANY($1::uuid[]) AND stage <> $2)"
    await comes_true(database, query, list(records), stage)


async def in_mid_call(database: Database, *people: Person) -> None:
    """Wait until some submit is open and some job is followed."""
    users = [one.user_id for one in people]
    await comes_true(database, f"SELECT FROM ({_OPEN_SUBMITS}) AS now WHERE open > 0 AND making > 0", users)


async def record(database: Database, record_id: UUID) -> Row[Any]:
    (row,) = await database.fetch("SELECT * FROM image_generations WHERE id = $1", record_id)
    return row


async def attempts(database: Database, record_id: UUID) -> list[tuple[int, str | None]]:
    """Number and outcome of each, in order."""
    rows = await database.fetch(
        "SELECT attempt, outcome FROM generation_attempts WHERE record_id = $1 ORDER BY attempt", record_id
    )
    return [(row.attempt, row.outcome) for row in rows]
