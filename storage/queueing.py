"""Who waits for dispatch, in what order, and how fast slots fall free: read as a whole now and then, locking nothing.

What a person is told of the time left is made from this (`notifier.forecast`); nothing is decided by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from storage.database import Database
from storage.fragments import DEADLINE, PROVIDER_OPEN
from storage.tables import WAITING
from storage.turns import LANE_WEIGHTS

Place: TypeAlias = tuple[int, datetime, UUID]
"""What a lane is ordered by: turn, created_at, record_id."""

READY = f"""{WAITING} AND g.turn IS NOT NULL AND g.admitted_at IS NOT NULL
        AND g.stage IN ('queued', 'retry_wait', 'provider_paused') AND (g.retry_at IS NULL OR g.retry_at <= now())"""
"""Of an image_generations row `g`: it stands in its lane's line, with nothing to wait for but its turn."""


_ORDER = "turn, created_at, id"


def _line(lane: str) -> str:
    return f"""SELECT '{lane}' AS lane, array_agg(turn ORDER BY {_ORDER}) AS turns,
    array_agg(created_at::timestamptz ORDER BY {_ORDER}) AS times, array_agg(id ORDER BY {_ORDER}) AS ids
FROM (SELECT turn, created_at, id FROM image_generations g
    WHERE {READY} AND g.lane = '{lane}' AND {DEADLINE} > now() ORDER BY {_ORDER} LIMIT $1) ready"""


_LINES = " UNION ALL ".join(_line(lane) for lane in LANE_WEIGHTS)

# an attempt that was taken over keeps the time at which it was sent; one that waits for its mark has none yet
_SLOTS = f"""
SELECT extract(epoch FROM now() - least(a.claimed_at, a.sent_at))::float8 AS busy_for,
    extract(epoch FROM s.free_at - now())::float8 AS rests_for,
    {PROVIDER_OPEN} AS paused,
    EXISTS (SELECT FROM workers WHERE fenced_at IS NULL AND alive_until > now()) AS worked_on
FROM provider_slots s LEFT JOIN generation_attempts a ON a.id = s.attempt_id
"""

# By id, which is in order of time: the newest attempts, and not a table that grows for ever. Each slot may hold one
# that says nothing yet.
_RECENT = """
WITH newest AS (
    SELECT a.record_id, a.model_id, a.outcome, a.sent_at, a.generated_at, a.closed_at, g.lane,
        least(a.claimed_at, a.sent_at) AS began, coalesce(a.generated_at, a.closed_at) AS freed_at
    FROM (SELECT * FROM generation_attempts ORDER BY id DESC
        LIMIT 200 + 2 * (SELECT count(*) FROM provider_slots)) a
    JOIN image_generations g ON g.id = a.record_id
    WHERE a.sent_at IS NOT NULL AND coalesce(a.generated_at, a.closed_at) IS NOT NULL
), took AS (
    SELECT record_id, lane, model_id, extract(epoch FROM freed_at - began)::float8 AS held,
        CASE WHEN outcome = 'success' THEN extract(epoch FROM closed_at - began)::float8 END AS whole,
        CASE WHEN outcome = 'success' THEN extract(epoch FROM generated_at - sent_at)::float8 END AS made,
        CASE WHEN outcome = 'success' THEN extract(epoch FROM closed_at - generated_at)::float8 END AS stored
    FROM newest
)
SELECT lane, model_id, sum(held) AS held, count(held)::int AS attempts, count(DISTINCT record_id)::int AS records,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY whole) AS whole,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY made) AS made,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY stored) AS stored
FROM took GROUP BY GROUPING SETS ((), (lane), (model_id))
"""


@dataclass(frozen=True, slots=True)
class Line:
    """The first of a lane, in order of dispatch; `whole`: nobody stands behind them."""

    places: Sequence[Place]
    whole: bool


@dataclass(frozen=True, slots=True)
class Pace:
    """What recent attempts took, in seconds; medians but for the first two. None where there were none that succeeded.

    `slot_held`: a slot, by one attempt; `slot_spent`: slots in all, by one record with its retries. `whole`: from
    dispatch to the stored picture; `made`: from the submit to the provider's picture; `stored`: from there.
    """

    slot_held: float
    slot_spent: float
    whole: float | None
    made: float | None
    stored: float | None


@dataclass(frozen=True, slots=True)
class Queue:
    """`busy`: of each slot in use, seconds since it was taken; `resting`: of each other one, seconds until it may be.

    `paused`: the provider's breaker is open. `worked_on`: some worker is alive. `pace`: None before the first attempt.
    """

    lines: Mapping[str, Line]
    busy: Sequence[float]
    resting: Sequence[float]
    paused: bool
    worked_on: bool
    pace: Pace | None
    by_lane: Mapping[str, Pace]
    by_model: Mapping[str, Pace]


async def queue(database: Database, *, depth: int) -> Queue:
    """The first `depth` of each lane, the slots, and the pace of late. Raises `Unavailable`."""
    lines = {
        row.lane: Line(
            list(zip(row.turns or (), row.times or (), row.ids or (), strict=True)), len(row.ids or ()) < depth
        )
        for row in await database.fetch(_LINES, depth)
    }
    slots = await database.fetch(_SLOTS)
    paces = {
        (row.lane, row.model_id): Pace(row.held / row.attempts, row.held / row.records, row.whole, row.made, row.stored)
        for row in await database.fetch(_RECENT)
        if row.attempts
    }
    return Queue(
        lines=lines,
        busy=[max(0.0, row.busy_for) for row in slots if row.busy_for is not None],
        resting=[max(0.0, row.rests_for) for row in slots if row.busy_for is None],
        paused=any(row.paused for row in slots),
        worked_on=any(row.worked_on for row in slots),
        pace=paces.get((None, None)),
        by_lane={lane: pace for (lane, _), pace in paces.items() if lane is not None},
        by_model={model: pace for (_, model), pace in paces.items() if model is not None},
    )
