"""What dispatch should have taken and did not: asked now and then by a consumer that judges itself."""

from uuid import UUID

from schemas.words import Lane
from storage.database import Database
from storage.dispatching import DUE, LIGHT

# the conditions of an offer without its locks; while a breaker is open, or its models' are, waiting is right (K2, K4)
_UNDISPATCHED = f"""
SELECT first.id FROM unnest($1::text[]) AS l (lane) CROSS JOIN LATERAL (
    SELECT g.id FROM image_generations g WHERE {DUE} AND g.lane = l.lane ORDER BY g.turn, g.created_at, g.id LIMIT 1
) first
WHERE {LIGHT} AND EXISTS (SELECT FROM provider_slots WHERE attempt_id IS NULL AND free_at <= now())
    AND NOT EXISTS (SELECT FROM breakers WHERE opened_at IS NOT NULL)
"""


async def undispatched(database: Database) -> frozenset[UUID]:
    """Records that are due and first in their lane while a slot is free and nothing says that they are to wait.

    In a line that moves each of them is gone a moment later. Raises `storage.database.Unavailable`.
    """
    rows = await database.fetch(_UNDISPATCHED, [lane.value for lane in Lane])
    return frozenset(row.id for row in rows)
