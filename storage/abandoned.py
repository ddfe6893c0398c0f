"""Attempts that nobody will answer for: of workers long dead, or of records that have ended (PIPELINE W2, W6, F3)."""

from uuid import UUID

from storage.database import Database
from storage.dispatching import CLAIMED_COLUMNS, Claimed, claimed
from storage.takeovers import ANSWERED

# Only of workers that are fenced: one that came back in the last moment goes on, and its call may be answered yet (W4).
_UNANSWERED = f"""
SELECT {CLAIMED_COLUMNS}
FROM generation_attempts a JOIN image_generations g ON g.id = a.record_id
LEFT JOIN workers w ON w.id = a.worker_id
WHERE a.sent_at IS NOT NULL AND a.outcome IS NULL AND a.provider_request_id IS NULL AND a.output_urls IS NULL
    AND a.id IN (SELECT attempt_id FROM provider_slots WHERE attempt_id IS NOT NULL)
    AND g.status = 'in_progress' AND g.claim_token = a.claim_token
    AND (w.id IS NULL OR w.fenced_at IS NOT NULL AND w.alive_until < now() - make_interval(secs => $1))
ORDER BY g.id LIMIT 100
"""

# the same where the record has ended meanwhile: only the attempt is left to close
_UNANSWERED_AFTER_THE_END = """
WITH closed AS (
    UPDATE generation_attempts a SET outcome = 'uncertain', counted = true, closed_at = now()
    FROM image_generations g
    WHERE g.id = a.record_id AND g.status IN ('completed', 'failed', 'cancelled')
        AND a.sent_at IS NOT NULL AND a.outcome IS NULL AND a.provider_request_id IS NULL AND a.output_urls IS NULL
        AND a.id IN (SELECT attempt_id FROM provider_slots WHERE attempt_id IS NOT NULL)
        AND NOT EXISTS (SELECT FROM workers w
            WHERE w.id = a.worker_id AND w.alive_until >= now() - make_interval(secs => $1))
    RETURNING a.id
)
UPDATE provider_slots s SET attempt_id = NULL FROM closed WHERE s.attempt_id = closed.id
"""


async def unanswered(database: Database, *, after: float) -> list[Claimed]:
    """Attempts sent by fenced workers that have been dead for `after` seconds, and not answered (W2).

    Call `workers.fence_silent` before. Those of ended records are closed here as uncertain; the others are for the
    caller to settle, under their claims.
    """
    await database.fetch(_UNANSWERED_AFTER_THE_END, after)
    return [claimed(row) for row in await database.fetch(_UNANSWERED, after)]


_ORPHANS = f"""
WITH orphans AS (
    SELECT a.id, a.record_id FROM generation_attempts a
    JOIN image_generations g ON g.id = a.record_id
    LEFT JOIN workers w ON w.id = a.worker_id
    WHERE g.status IN ('completed', 'failed', 'cancelled') AND g.lane IS NOT NULL
        AND {ANSWERED} AND a.output_urls IS NULL
        AND (w.id IS NULL OR w.alive_until < now())
    ORDER BY a.record_id LIMIT $2 FOR UPDATE OF a
), a AS (
    UPDATE generation_attempts a SET worker_id = $1, claim_token = gen_random_uuid(), claimed_at = now()
    FROM orphans WHERE a.id = orphans.id RETURNING a.*
)
SELECT {CLAIMED_COLUMNS.replace("g.claim_token", "a.claim_token")} FROM a JOIN image_generations g ON g.id = a.record_id
"""


async def adopt_orphans(database: Database, worker_id: UUID, *, limit: int = 20) -> list[Claimed]:
    """Attempts with an id and without a living worker whose records have ended; the claim is on the attempt alone.

    They are followed so that their slots fall free, and so that a picture that was paid for is known (F3, W6).
    """
    return [claimed(row) for row in await database.fetch(_ORPHANS, worker_id, limit)]
