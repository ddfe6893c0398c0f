"""Workers and slots: who is alive, and how many requests the provider's account may have open (PIPELINE W)."""

from uuid import UUID

from storage.database import Database

_REGISTER = """
INSERT INTO workers (id, name, alive_until) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (id) DO NOTHING
"""
_BEAT = """
UPDATE workers SET alive_until = clock_timestamp() + make_interval(secs => $2)
WHERE id = $1 AND fenced_at IS NULL RETURNING id
"""
_LEAVE = "UPDATE workers SET alive_until = clock_timestamp(), fenced_at = coalesce(fenced_at, now()) WHERE id = $1"
_FORGET = """
DELETE FROM workers w WHERE alive_until < now() - make_interval(secs => $1)
    AND NOT EXISTS (SELECT FROM image_generations g WHERE g.worker_id = w.id AND g.claim_token IS NOT NULL)
    AND NOT EXISTS (
        SELECT FROM provider_slots s JOIN generation_attempts a ON a.id = s.attempt_id WHERE a.worker_id = w.id)
"""
_MAKE_SLOTS = "INSERT INTO provider_slots (slot) SELECT generate_series(1, $1::int) ON CONFLICT (slot) DO NOTHING"
_DROP_SLOTS = "DELETE FROM provider_slots WHERE slot > $1 AND attempt_id IS NULL"
_OLD_ENOUGH = "SELECT pg_postmaster_start_time() < now() - make_interval(secs => $1) AS old_enough"


async def register(database: Database, worker_id: UUID, name: str, *, life: float) -> None:
    """Say that this process works, and is alive for `life` seconds from now."""
    await database.fetch(_REGISTER, worker_id, name, life)


async def beat(database: Database, worker_id: UUID, *, life: float) -> bool:
    """Say so again; False: another process judged this worker dead and took its work (W4)."""
    return bool(await database.fetch(_BEAT, worker_id, life))


async def leave(database: Database, worker_id: UUID) -> None:
    """A clean stop: whatever is still claimed may be taken over at once."""
    await database.fetch(_LEAVE, worker_id)


async def forget_old(database: Database, *, after: float) -> None:
    """Delete the rows of workers gone for `after` seconds that hold nothing."""
    await database.fetch(_FORGET, after)


async def provide_slots(database: Database, slots: int) -> None:
    """Make slots 1..`slots`; those above go as they fall free."""
    await database.fetch(_MAKE_SLOTS, slots)
    await database.fetch(_DROP_SLOTS, slots)


async def postgres_older_than(database: Database, seconds: float) -> bool:
    """Whether Postgres has run for so long that a worker's silence is the worker's own (W3)."""
    (row,) = await database.fetch(_OLD_ENOUGH, seconds)
    return bool(row.old_enough)


_FENCE_SILENT = """
UPDATE workers SET fenced_at = now()
WHERE fenced_at IS NULL AND alive_until < now() - make_interval(secs => $1) RETURNING id
"""


async def fence_silent(database: Database, *, after: float) -> int:
    """Fence workers silent for `after` seconds, before what they had sent is called uncertain (W4)."""
    return len(await database.fetch(_FENCE_SILENT, after))


_NEXT_SILENCE = """
SELECT extract(epoch FROM min(alive_until) - now())::float8 AS seconds FROM workers
WHERE fenced_at IS NULL AND alive_until > now()
"""


async def next_silence(database: Database) -> float | None:
    """Seconds until the next worker counts as dead if it gives no sign before; None: nobody is alive."""
    (row,) = await database.fetch(_NEXT_SILENCE)
    return None if row.seconds is None else float(row.seconds)
