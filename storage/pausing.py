"""What an open breaker means for those who wait: they are told, and their deadlines move (PIPELINE K2).

Many records may be concerned, so each step lists them first and then changes a few hundred at a time, each batch in a
transaction of its own, `ORDER BY id`. Every step may be done again, and by several at once.
"""

from collections.abc import Sequence
from uuid import UUID

from storage.database import Database
from storage.fragments import OPEN_SECONDS, PROVIDER_OPEN, READ_WOKEN, WOKEN, tell_status
from storage.tables import WAITING

BATCH = 500

_UNTOLD = f"SELECT g.id FROM image_generations g WHERE {WAITING} AND g.stage IN ('queued', 'retry_wait') ORDER BY g.id"
_TOLD = "SELECT g.id FROM image_generations g WHERE g.stage = 'provider_paused' ORDER BY g.id"
_LATE = f"""
SELECT g.id FROM image_generations g
WHERE g.lane IS NOT NULL AND g.status IN ('pending', 'in_progress') AND g.paused_seconds < {OPEN_SECONDS} ORDER BY g.id
"""


def _restage(condition: str, stage: str) -> str:
    return f"""
WITH held AS (
    SELECT g.id FROM image_generations g WHERE g.id = ANY ($1::uuid[]) AND {condition} ORDER BY g.id FOR UPDATE
), told_rows AS (
    UPDATE image_generations g SET stage = {stage}, version = g.version + 1, updated_at = now()
    FROM held WHERE g.id = held.id RETURNING g.*
), told AS ({tell_status("consumer", "told_rows")}), {WOKEN}
SELECT g.id, {READ_WOKEN} FROM told_rows g
"""


_PAUSE = _restage(f"{WAITING} AND g.stage IN ('queued', 'retry_wait') AND {PROVIDER_OPEN}", "'provider_paused'")
_GO_ON = _restage(
    f"g.stage = 'provider_paused' AND NOT {PROVIDER_OPEN}",
    "CASE WHEN g.retry_at > now() THEN 'retry_wait' ELSE 'queued' END",
)
# no version: a deadline is nobody's business but ours
_MOVE = f"""
WITH held AS (
    SELECT g.id FROM image_generations g
    WHERE g.id = ANY ($1::uuid[]) AND g.status IN ('pending', 'in_progress') AND g.paused_seconds < {OPEN_SECONDS}
    ORDER BY g.id FOR UPDATE
)
UPDATE image_generations g SET paused_seconds = {OPEN_SECONDS},
    deadline_at = g.deadline_at + make_interval(secs => {OPEN_SECONDS} - g.paused_seconds)
FROM held WHERE g.id = held.id RETURNING g.id
"""


async def untold(database: Database) -> list[UUID]:
    """Who waits and has not been told that the provider is paused."""
    return [row.id for row in await database.fetch(_UNTOLD)]


async def told(database: Database) -> list[UUID]:
    """Who has been told so."""
    return [row.id for row in await database.fetch(_TOLD)]


async def late(database: Database) -> list[UUID]:
    """Whose deadline does not yet allow for all the time that the breaker was open."""
    return [row.id for row in await database.fetch(_LATE)]


async def pause(database: Database, records: Sequence[UUID]) -> int:
    """Tell `BATCH` records at the most that the provider is paused; does nothing once it is not."""
    return len(await database.fetch(_PAUSE, list(records)))


async def go_on(database: Database, records: Sequence[UUID]) -> int:
    """Tell them that it goes on; does nothing while the breaker is open."""
    return len(await database.fetch(_GO_ON, list(records)))


async def move_deadlines(database: Database, records: Sequence[UUID]) -> int:
    """Move their deadlines by the time open that they do not allow for yet."""
    return len(await database.fetch(_MOVE, list(records)))
