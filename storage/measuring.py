"""What the gauges of the whole line show: one statement that locks nothing, asked now and then by every consumer."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.words import Lane
from storage.database import Database
from storage.tables import WAITING

# of image_generations nothing is read that the index on turns does not hold
_MEASURE = f"""
WITH slots AS (
    SELECT count(*) FILTER (WHERE attempt_id IS NOT NULL) AS used,
        count(*) FILTER (WHERE attempt_id IS NULL AND free_at > clock_timestamp()) AS resting,
        count(*) FILTER (WHERE attempt_id IS NULL AND free_at <= clock_timestamp()) AS free
    FROM provider_slots
), alive AS (
    SELECT count(*) AS workers FROM workers WHERE fenced_at IS NULL AND alive_until > clock_timestamp()
), waiting AS (
    SELECT lane, count(*) AS records, extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS oldest
    FROM image_generations WHERE {WAITING} GROUP BY lane
)
SELECT slots.used, slots.resting, slots.free, alive.workers, l.lane, coalesce(waiting.records, 0) AS records,
    coalesce(waiting.oldest, 0) AS oldest
FROM unnest($1::text[]) AS l (lane) LEFT JOIN waiting USING (lane) CROSS JOIN slots CROSS JOIN alive
"""


@dataclass(frozen=True, slots=True)
class Measures:
    """Provider slots by state; by lane how many records wait for dispatch, and the age in seconds of the oldest."""

    workers_alive: int
    slots: Mapping[str, int]
    waiting: Mapping[str, int]
    oldest_waiting: Mapping[str, float]


async def measure(database: Database) -> Measures:
    """The line as it is now. Raises `storage.database.Unavailable`."""
    rows = await database.fetch(_MEASURE, [lane.value for lane in Lane])
    line = rows[0]
    return Measures(
        workers_alive=line.workers,
        slots={"free": line.free, "used": line.used, "resting": line.resting},
        waiting={row.lane: row.records for row in rows},
        oldest_waiting={row.lane: row.oldest for row in rows},
    )
