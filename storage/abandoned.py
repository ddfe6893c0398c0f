"""Attempts that nobody answers for: of workers long dead, or of records that have ended (PIPELINE W2, W5, W6, F3)."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row

from storage.database import Database, Transaction
from storage.dispatching import CLAIMED_COLUMNS, SECONDS_LEFT, Claimed, claimed
from storage.fragments import ENDED
from storage.takeovers import ANSWERED, FENCE

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

# the same where the record has ended meanwhile, or goes on without it: only the attempt is left to close
_UNANSWERED_AND_ALONE = f"""
WITH closed AS (
    UPDATE generation_attempts a SET outcome = 'uncertain', counted = true, closed_at = now()
    FROM image_generations g
    WHERE g.id = a.record_id AND ({ENDED} OR g.claim_token IS DISTINCT FROM a.claim_token)
        AND a.sent_at IS NOT NULL AND a.outcome IS NULL
        AND a.provider_request_id IS NULL AND a.webhook_request_id IS NULL AND a.output_urls IS NULL
        AND a.id IN (SELECT attempt_id FROM provider_slots WHERE attempt_id IS NOT NULL)
        AND NOT EXISTS (SELECT FROM workers w
            WHERE w.id = a.worker_id AND w.alive_until >= now() - make_interval(secs => $1))
    RETURNING a.id
)
UPDATE provider_slots s SET attempt_id = NULL FROM closed WHERE s.attempt_id = closed.id
"""


async def unanswered(database: Database, *, after: float) -> list[Claimed]:
    """Attempts sent by fenced workers that have been dead for `after` seconds, and not answered (W2).

    Call `workers.fence_silent` before. Those whose records have ended, or were replayed meanwhile, are closed here as
    uncertain; the others are for the caller to settle, under their claims.
    """
    await database.fetch(_UNANSWERED_AND_ALONE, after)
    return [claimed(row) for row in await database.fetch(_UNANSWERED, after)]


# `died`: its worker was at the picture's bytes when it ended without a word
_ORPHANS = f"""
SELECT a.id AS attempt_id, a.claim_token, w.id AS worker_id, a.output_urls IS NOT NULL AS storing, g.takeovers,
    a.output_urls IS NOT NULL AND a.worker_id IS NOT NULL AND a.worker_id <> $1 AS died
FROM generation_attempts a JOIN image_generations g ON g.id = a.record_id
LEFT JOIN workers w ON w.id = a.worker_id
WHERE {ENDED} AND g.lane IS NOT NULL AND {ANSWERED}
    AND (w.id IS NULL OR w.alive_until < now() OR w.id = $1 AND a.claim_token <> ALL($2::uuid[]))
ORDER BY a.record_id LIMIT $3 FOR UPDATE OF g
"""

_HOLDS_SUSPECT = f"""
SELECT EXISTS (SELECT FROM generation_attempts a JOIN image_generations g ON g.id = a.record_id
    WHERE {ANSWERED} AND {ENDED} AND a.worker_id = $1 AND a.claim_token = ANY($2::uuid[])
        AND a.output_urls IS NOT NULL AND g.takeovers > 0) AS holds
"""

# A picture's addresses are believed for a while from when they were given; the rest is the record's own time, in which
# a job must be done.
_TIME = f"""CASE WHEN a.output_urls IS NULL THEN {SECONDS_LEFT}
    ELSE extract(epoch FROM coalesce(a.generated_at, now()) - now())::float8 + $6 END"""

# nothing is told of the takeover: it is not seen in the record's status
_ADOPT = f"""
WITH taken AS (
    SELECT * FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::int[]) AS t(attempt_id, old_token, token, died)
), a AS (
    UPDATE generation_attempts a SET worker_id = $1, claim_token = t.token, claimed_at = now()
    FROM taken t WHERE a.id = t.attempt_id AND a.claim_token IS NOT DISTINCT FROM t.old_token
    RETURNING a.*, t.died
), suspected AS (
    UPDATE image_generations g SET takeovers = g.takeovers + a.died FROM a
    WHERE g.id = a.record_id AND a.died > 0 RETURNING g.id, g.takeovers
)
SELECT {
    CLAIMED_COLUMNS.replace("g.claim_token", "a.claim_token")
    .replace("g.takeovers", "coalesce(s.takeovers, g.takeovers) AS takeovers")
    .replace(SECONDS_LEFT, _TIME)
}
FROM a JOIN image_generations g ON g.id = a.record_id LEFT JOIN suspected s ON s.id = a.record_id
ORDER BY g.id
"""


async def adopt_orphans(
    database: Database, worker_id: UUID, tokens: Sequence[UUID] = (), *, keep_trying: float, limit: int = 20
) -> list[Claimed]:
    """Attempts whose records have ended, with an id or addresses and nobody who follows them; the claim is on the
    attempt alone. `tokens`: what this worker's own tasks hold.

    They are followed so that their slots fall free, and so that a picture that was paid for is kept (F3, W6). Of those
    that have addresses `seconds_left` counts `keep_trying` seconds from when these were given.
    """

    async def work(tx: Transaction) -> list[Claimed]:
        found = await tx.fetch(_ORPHANS, worker_id, list(tokens), limit)
        found = await _one_suspect(tx, worker_id, tokens, found)
        if not found:
            return []
        # whoever takes, fences (W4)
        if losers := {row.worker_id for row in found if row.worker_id not in (None, worker_id)}:
            await tx.fetch(FENCE, sorted(losers))
        rows = await tx.fetch(
            _ADOPT,
            worker_id,
            [row.attempt_id for row in found],
            [row.claim_token for row in found],
            [uuid4() for _ in found],
            [int(row.died) for row in found],
            keep_trying,
        )
        return [claimed(row) for row in rows]

    return await database.run(work)


async def _one_suspect(
    tx: Transaction, worker_id: UUID, tokens: Sequence[UUID], found: Sequence[Row[Any]]
) -> list[Row[Any]]:
    """As in a takeover (W5): of the pictures that a worker has died on, one at a time in a worker."""
    suspects = [row for row in found if row.storing and row.takeovers + row.died > 0]
    if not suspects:
        return list(found)
    (row,) = await tx.fetch(_HOLDS_SUSPECT, worker_id, list(tokens))
    left = suspects if row.holds else suspects[1:]
    return [one for one in found if one not in left]
