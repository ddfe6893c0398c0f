"""Dead letters: requests that will not be tried again, kept with everything a replay needs until they are purged."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from schemas import events, topics
from schemas.errors import ErrorClass
from schemas.letters import LetterChoice, LetterGroup
from storage import letters
from storage.database import Database
from storage.fragments import READ_WOKEN, WOKEN
from storage.letters import Condition
from storage.originals import Original


@dataclass(frozen=True, slots=True)
class DeadEvent:
    """An event that was read and cannot be worked on: `poison` or `invalid`. `body` is its own bytes.

    `key` is for reading, `original` what a replay sends; of a tombstone the body is empty.
    """

    error_class: ErrorClass
    code: str
    message: str
    topic: str
    partition: int
    offset: int
    key: str | None
    body: bytes
    original: Original
    received_at: datetime
    record_id: UUID | None = None
    user_id: UUID | None = None
    chapter_id: UUID | None = None


HEADER_TIME = """to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

_BURY = f"""
WITH dead AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bigint[], $8::text[], $9::bytea[],
        $10::timestamptz[], $11::uuid[], $12::uuid[], $13::uuid[], $14::jsonb[]
    ) AS d(error_class, error_code, error_message, topic, origin_topic, origin_partition, origin_offset, key, body,
           received_at, record_id, user_id, chapter_id, original)
), kept AS (
    INSERT INTO dead_letters (record_id, user_id, chapter_id, error_class, error_code, error_message, topic,
        origin_topic, origin_partition, origin_offset, body, original, first_failed_at)
    SELECT record_id, user_id, chapter_id, error_class, error_code, error_message, topic,
        origin_topic, origin_partition, origin_offset, body, original, received_at
    FROM dead
    ON CONFLICT (origin_topic, origin_partition, origin_offset) WHERE origin_topic IS NOT NULL DO NOTHING
    RETURNING origin_topic, origin_partition, origin_offset
), told AS (
    INSERT INTO outbox (topic, key, headers, body)
    SELECT d.topic, d.key, jsonb_strip_nulls(jsonb_build_object(
            'content-type', '{events.RAW_BYTES}', 'origin-topic', d.origin_topic,
            'origin-partition', d.origin_partition::text, 'origin-offset', d.origin_offset::text,
            'error-class', d.error_class, 'error-code', d.error_code,
            'error-message', left(d.error_message, 1024),
            'first-failed-at', {HEADER_TIME.format(time="d.received_at")},
            'failed-at', {HEADER_TIME.format(time="now()")})), d.body
    FROM dead d JOIN kept USING (origin_topic, origin_partition, origin_offset)
), {WOKEN}
SELECT count(*) AS kept, {READ_WOKEN} FROM kept
"""


async def bury(database: Database, dead: Sequence[DeadEvent]) -> int:
    """Keep these events as dead letters and put them on the topic of their class; one read again is kept once."""
    rows = [
        (
            d.error_class.value,
            d.code,
            d.message,
            topics.dead(d.error_class),
            d.topic,
            d.partition,
            d.offset,
            d.key,
            d.body,
            d.received_at,
            d.record_id,
            d.user_id,
            d.chapter_id,
            d.original.as_json(),
        )
        for d in dead
    ]
    (row,) = await database.fetch(_BURY, *(list(column) for column in zip(*rows, strict=True)))
    return int(row.kept)


@dataclass(frozen=True, slots=True)
class Purge:
    """Which letters may go: of those chosen the replayed ones; with `older_than` all that died so long ago; with
    `everything` all."""

    choice: LetterChoice
    ids: Sequence[int] | None = None
    older_than: timedelta | None = None
    everything: bool = False

    def condition(self) -> Condition:
        where = Condition(self.choice)
        if self.ids is not None:
            where.also("l.id = ANY({}::bigint[])", list(self.ids))
        where.time("l.failed_at < {}", self.older_than)
        return where if self.everything or self.older_than is not None else where.also("l.replayed_at IS NOT NULL")


async def purgeable(database: Database, purge: Purge, *, limit: int | None = None) -> tuple[list[LetterGroup], int]:
    """The groups of the first `limit` letters that may go, the oldest first, and how many may go in all."""
    where = purge.condition()
    (row,) = await database.fetch(f"SELECT count(*) AS letters FROM dead_letters l WHERE {where}", *where.values)
    most = where.parameter(limit)
    source = f"(SELECT l.* FROM dead_letters l WHERE {where} ORDER BY l.failed_at, l.id LIMIT {most}::bigint) l"
    return await letters.groups(database, source, where.values), int(row.letters)


async def purged(database: Database, purge: Purge, *, limit: int) -> int:
    """Delete `limit` of these letters at most, the oldest first; their records and attempts stay. Gives how many."""
    where = purge.condition()
    most = where.parameter(limit)
    rows = await database.fetch(
        f"""WITH held AS (
            SELECT l.id FROM dead_letters l
            WHERE l.id = ANY (ARRAY(
                SELECT l.id FROM dead_letters l WHERE {where} ORDER BY l.failed_at, l.id LIMIT {most}::bigint))
            ORDER BY l.id FOR UPDATE
        ), gone AS (DELETE FROM dead_letters l USING held WHERE l.id = held.id RETURNING l.id)
        SELECT count(*) AS letters FROM gone""",
        *where.values,
    )
    return int(rows[0].letters)
