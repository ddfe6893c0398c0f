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


# Rows compared, and in an order that says so: the index of users and their turns is the only one that has it. With `=`
# the planner may as well walk the index of a lane's turns, all of it where the user waits for nothing in the lane; with
# a lower bound, in a young database, it would sort all that the user ever asked for, and keep to that. So the next
# lower place is looked up, whoever waits there.
_REACHED = f"""greatest(
        (SELECT l.turn FROM lanes l WHERE l.lane = {{row}}.lane),
        coalesce((SELECT n.turn FROM (
            SELECT w.user_id, w.lane, w.turn FROM image_generations w
            WHERE (w.user_id, w.lane, w.turn) <= ({{row}}.user_id, {{row}}.lane, {2**63 - 1}) AND {WAITING}
            ORDER BY w.user_id DESC, w.lane DESC, w.turn DESC LIMIT 1
        ) n WHERE n.user_id = {{row}}.user_id AND n.lane = {{row}}.lane), 0))"""

TURN = f"{_REACHED} + row_number() OVER (PARTITION BY {{row}}.user_id, {{row}}.lane ORDER BY {{row}}.ordinal)"
"""SQL for the turn of `row` (user_id, lane, ordinal): one more than what the lane has reached and than what its user
already waits for. So users take turns, and a user's own scenes stay in order."""


def _turns(rows: str) -> str:
    """SQL for `rows` with their turns, for many at once: what was reached is looked up once for a user in a lane."""
    # OFFSET 0: pulled up, the look would be taken once for each place that its result is read in
    return f"""SELECT p.*, place + max(reached) OVER (PARTITION BY user_id, lane) AS turn FROM (
        SELECT p.*, CASE place WHEN 1 THEN {_REACHED.format(row="p")} END AS reached
        FROM (SELECT r.*, row_number() OVER (PARTITION BY user_id, lane ORDER BY ordinal) AS place FROM {rows} r) p
        OFFSET 0
    ) p"""


# OFFSET 0: one look by id for each event. A plan made while there are few records would read all that wait, and keep to
# it when there are many.
_ADMIT_KNOWN = f"""
WITH asked AS (
    SELECT * FROM unnest($1::int[], $2::uuid[], $3::uuid[]) AS a(ordinal, id, user_id)
), met AS (
    SELECT a.*, g.lane, g.lane IS NOT NULL AND g.status = 'pending' AND g.user_id = a.user_id
        AND g.admitted_at IS NULL AS waits
    FROM (SELECT * FROM asked ORDER BY id) a CROSS JOIN LATERAL (
        SELECT lane, status, user_id, admitted_at FROM image_generations WHERE id = a.id OFFSET 0 FOR UPDATE) g
), known AS (SELECT ordinal, id, user_id, lane FROM met WHERE waits
), turns AS ({_turns("known")}), admitted AS (
    UPDATE image_generations g SET admitted_at = now(), turn = turns.turn FROM turns WHERE g.id = turns.id
)
SELECT (SELECT count(*) FROM known) AS known, ARRAY(SELECT ordinal FROM met) AS met
"""

_CREATE = f"""
WITH asked AS (
    SELECT * FROM unnest(
        $1::int[], $2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::uuid[], $11::jsonb[], $12::text[], $13::text[], $14::text[]
    ) AS a(ordinal, id, user_id, chapter_id, scene_number, scene_description, style, aspect_ratio, custom_prompt,
           script_id, metadata, user_tier, lane, traceparent)
), turns AS ({_turns("asked")}), created AS (
    INSERT INTO image_generations (
        id, user_id, chapter_id, script_id, scene_number, image_type, scene_description, style, aspect_ratio,
        custom_prompt, user_tier, status, stage, progress, version, attempt, lane, metadata, traceparent,
        created_at, updated_at, admitted_at, turn, deadline_at, paused_seconds)
    SELECT u.id, u.user_id, u.chapter_id, u.script_id, u.scene_number, 'scene', u.scene_description, u.style,
        u.aspect_ratio, u.custom_prompt, u.user_tier, 'pending', 'queued', 0, 1, 1, u.lane, u.metadata, u.traceparent,
        now(), now(), now(), u.turn, now() + make_interval(secs => $15), {OPEN_SECONDS_NOW}
    FROM turns u ORDER BY u.id
    ON CONFLICT (id) DO NOTHING
    RETURNING *
), told AS ({tell_status("consumer", "created")}), {WOKEN}
SELECT (SELECT count(*) FROM created) AS created, {READ_WOKEN}
"""


async def admit(database: Database, asked: Sequence[Asked], *, deadline: float) -> Admitted:
    """Admit all of `asked`; an event read again changes nothing.

    Two statements, the second only for what another service asks for: nearly all that comes was accepted here, and of
    that the words of the request are on record already. Whoever puts a record on record between the two is not
    disturbed, and its own event admits it.

    `deadline`: seconds a request made here may take in all. Raises `Unavailable`.
    """
    first = {one.data.record_id: one for one in reversed(asked)}
    rows = [one for one in asked if first[one.data.record_id] is one]
    if not rows:
        return Admitted(0, 0, 0)
    ids, users = [one.data.record_id for one in rows], [one.data.user_id for one in rows]
    (row,) = await database.fetch(_ADMIT_KNOWN, list(range(len(rows))), ids, users)
    met = set(row.met)
    new = [(ordinal, *_columns(one)) for ordinal, one in enumerate(rows) if ordinal not in met]
    created = 0
    if new:
        (made,) = await database.fetch(_CREATE, *(list(column) for column in zip(*new, strict=True)), deadline)
        created = made.created
    return Admitted(row.known, created, len(asked) - row.known - created)


def _columns(asked: Asked) -> tuple[object, ...]:
    data = asked.data
    return (
        data.record_id,
        data.user_id,
        data.chapter_id,
        data.scene_number,
        data.scene_description,
        data.style.value,
        data.aspect_ratio,
        data.custom_prompt,
        data.script_id,
        to_json(data.extras()).decode(),
        data.user_tier.value,
        asked.lane.value,
        asked.traceparent,
    )


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
