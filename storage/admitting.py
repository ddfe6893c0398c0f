"""Admit: a consumer read the event, and Postgres now knows that the record waits for dispatch (PIPELINE B3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic_core import to_json

from schemas.events import RequestedData
from schemas.words import Lane
from storage.database import Database
from storage.fragments import OPEN_SECONDS_NOW, READ_WOKEN, WOKEN, tell_status
from storage.tables import WAITING


@dataclass(frozen=True, slots=True)
class Asked:
    """One readable, valid event of a requested topic."""

    data: RequestedData
    lane: Lane
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Admitted:
    """How many were known and now wait, how many another service asked for, and how many changed nothing."""

    known: int
    created: int
    ignored: int


_REACHED = f"""greatest(
        (SELECT l.turn FROM lanes l WHERE l.lane = {{row}}.lane),
        (SELECT coalesce(max(w.turn), 0) FROM image_generations w
         WHERE w.user_id = {{row}}.user_id AND w.lane = {{row}}.lane AND {WAITING}))"""

TURN = f"{_REACHED} + row_number() OVER (PARTITION BY {{row}}.user_id, {{row}}.lane ORDER BY {{row}}.ordinal)"
"""SQL for the turn of `row` (user_id, lane, ordinal): one more than what the lane has reached and than what its user
already waits for. So users take turns, and a user's own scenes stay in order."""


def _turns(rows: str) -> str:
    """SQL for `rows` with their turns, for many at once: what was reached is looked up once for a user in a lane."""
    return f"""SELECT p.*, place + max(reached) OVER (PARTITION BY user_id, lane) AS turn FROM (
        SELECT p.*, CASE place WHEN 1 THEN {_REACHED.format(row="p")} END AS reached
        FROM (SELECT r.*, row_number() OVER (PARTITION BY user_id, lane ORDER BY ordinal) AS place FROM {rows} r) p
    ) p"""


# OFFSET 0: one look by id for each event. A plan made while there are few records would read all that wait, and keep to
# it when there are many.
_ADMIT = f"""
WITH asked AS (
    SELECT * FROM unnest(
        $1::int[], $2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::uuid[], $11::jsonb[], $12::text[], $13::text[], $14::text[]
    ) AS a(ordinal, id, user_id, chapter_id, scene_number, scene_description, style, aspect_ratio, custom_prompt,
           script_id, metadata, user_tier, lane, traceparent)
), known AS (
    SELECT a.*, g.lane AS kept_lane FROM (SELECT * FROM asked ORDER BY id) a CROSS JOIN LATERAL (
        SELECT lane, status, user_id, admitted_at FROM image_generations WHERE id = a.id OFFSET 0 FOR UPDATE) g
    WHERE g.lane IS NOT NULL AND g.status = 'pending' AND g.user_id = a.user_id AND g.admitted_at IS NULL
), heard AS (
    -- all columns go along: to look them up again by id would compare each event of a batch with every other
    SELECT true AS known, ordinal, id, user_id, chapter_id, scene_number, scene_description, style, aspect_ratio,
        custom_prompt, script_id, metadata, user_tier, kept_lane AS lane, traceparent FROM known
    UNION ALL
    SELECT false, a.* FROM asked a WHERE NOT EXISTS (SELECT FROM image_generations g WHERE g.id = a.id OFFSET 0)
), turns AS ({_turns("heard")}), admitted AS (
    UPDATE image_generations g SET admitted_at = now(), turn = turns.turn
    FROM turns WHERE turns.known AND g.id = turns.id
    RETURNING g.id
), created AS (
    INSERT INTO image_generations (
        id, user_id, chapter_id, script_id, scene_number, image_type, scene_description, style, aspect_ratio,
        custom_prompt, user_tier, status, stage, progress, version, attempt, lane, metadata, traceparent,
        created_at, updated_at, admitted_at, turn, deadline_at, paused_seconds)
    SELECT u.id, u.user_id, u.chapter_id, u.script_id, u.scene_number, 'scene', u.scene_description, u.style,
        u.aspect_ratio, u.custom_prompt, u.user_tier, 'pending', 'queued', 0, 1, 1, u.lane, u.metadata, u.traceparent,
        now(), now(), now(), u.turn, now() + make_interval(secs => $15), {OPEN_SECONDS_NOW}
    FROM turns u WHERE NOT u.known ORDER BY u.id
    ON CONFLICT (id) DO NOTHING
    RETURNING *
), told AS ({tell_status("consumer", "created")}), {WOKEN}
SELECT (SELECT count(*) FROM admitted) AS known, (SELECT count(*) FROM created) AS created, {READ_WOKEN}
"""


async def admit(database: Database, asked: Sequence[Asked], *, deadline: float) -> Admitted:
    """Admit all of `asked` in one statement; an event read again changes nothing.

    `deadline`: seconds a request made here may take in all. Raises `Unavailable`.
    """
    first = {one.data.record_id: one for one in reversed(asked)}
    rows = [
        (
            i,
            one.data.record_id,
            one.data.user_id,
            one.data.chapter_id,
            one.data.scene_number,
            one.data.scene_description,
            one.data.style.value,
            one.data.aspect_ratio,
            one.data.custom_prompt,
            one.data.script_id,
            to_json(one.data.extras()).decode(),
            one.data.user_tier.value,
            one.lane.value,
            one.traceparent,
        )
        for i, one in enumerate(one for one in asked if first[one.data.record_id] is one)
    ]
    if not rows:
        return Admitted(0, 0, 0)
    (row,) = await database.fetch(_ADMIT, *(list(column) for column in zip(*rows, strict=True)), deadline)
    return Admitted(row.known, row.created, len(asked) - row.known - row.created)


_ADMIT_OVERDUE = f"""
WITH known AS (
    SELECT g.id, g.user_id, g.lane, row_number() OVER (ORDER BY g.created_at, g.id) AS ordinal FROM (
        SELECT id, user_id, lane, created_at FROM image_generations
        WHERE {WAITING} AND status = 'pending' AND admitted_at IS NULL
            -- by the index of turns, which none of them has: not by a look at everybody who waits
            AND lane = ANY(ARRAY[{", ".join(f"'{lane.value}'" for lane in Lane)}]) AND turn IS NULL
            AND created_at < now() - make_interval(secs => $1)
        ORDER BY id LIMIT 500 FOR UPDATE
    ) g
), turns AS ({_turns("known")})
UPDATE image_generations g SET admitted_at = now(), turn = turns.turn FROM turns WHERE g.id = turns.id RETURNING g.id
"""


async def admit_overdue(database: Database, *, after: float) -> int:
    """Admit what has been pending for `after` seconds without an event: one lost with Kafka is a non-event (D2)."""
    return len(await database.fetch(_ADMIT_OVERDUE, after))


_STILL_WAITING = f"""
SELECT greatest(0, extract(epoch FROM coalesce(g.retry_at, now()) - clock_timestamp()))::float8 AS due_in
FROM unnest($1::uuid[], $2::int[]) AS a(id, attempt) CROSS JOIN LATERAL (
    SELECT attempt, retry_at, lane, claim_token, status FROM image_generations WHERE id = a.id OFFSET 0) g
WHERE g.attempt = a.attempt AND {WAITING}
"""


async def still_waiting(database: Database, attempts: Sequence[tuple[UUID, int]]) -> list[float]:
    """Of those of these (record_id, attempt) that wait for dispatch under that very number: the seconds until each is
    due, by the database's clock."""
    rows = await database.fetch(_STILL_WAITING, [r for r, _ in attempts], [a for _, a in attempts])
    return [row.due_in for row in rows]
