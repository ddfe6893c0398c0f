"""Resume and takeover: what was begun and has no living worker (PIPELINE D1, W2 to W5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from storage.database import Database, Transaction
from storage.dispatching import CLAIMED_COLUMNS, Claimed, claimed
from storage.fragments import READ_WOKEN, WOKEN, tell_status


@dataclass(frozen=True, slots=True)
class Taken:
    """What a look over the dead brought: records to go on with, and how many go back to wait for dispatch."""

    resumed: list[Claimed]
    released: int


# judged by Postgres' clock alone; the caller makes sure that the silence is not Postgres' own (W3)
_DEAD = "SELECT id FROM workers WHERE alive_until < now() - make_interval(secs => $1) ORDER BY id"

# The open attempt that has an id or a picture is what a record is resumed with, whatever its number.
_RESUMABLE = """
SELECT g.id AS record_id, a.id AS attempt_id, g.worker_id, g.stage = 'storing' AS storing
FROM image_generations g
JOIN LATERAL (
    SELECT a.id FROM generation_attempts a
    WHERE a.record_id = g.id AND a.outcome IS NULL AND (a.provider_request_id IS NOT NULL OR a.output_urls IS NOT NULL)
    ORDER BY a.attempt DESC LIMIT 1
) a ON true
WHERE g.lane IS NOT NULL AND g.status = 'in_progress' AND {whose}
ORDER BY g.id LIMIT $1 FOR UPDATE OF g
"""
_UNCLAIMED = "g.claim_token IS NULL AND g.stage IN ('submitting', 'generating', 'storing')"
_OF_THE_DEAD = "g.claim_token IS NOT NULL AND g.worker_id = ANY($2::uuid[])"

_RESUME = f"""
WITH taken AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[]) AS t(record_id, attempt_id, token, takeovers)
), a AS (
    UPDATE generation_attempts a SET worker_id = $5, claim_token = t.token, claimed_at = now()
    FROM taken t WHERE a.id = t.attempt_id RETURNING a.*
), g AS (
    UPDATE image_generations g SET claim_token = t.token, worker_id = $5, takeovers = g.takeovers + t.takeovers
    FROM taken t WHERE g.id = t.record_id RETURNING g.*
)
SELECT {CLAIMED_COLUMNS} FROM g JOIN a ON a.record_id = g.id ORDER BY g.id
"""

_UNSENT = """
SELECT g.id AS record_id, g.worker_id
FROM image_generations g JOIN generation_attempts a ON a.record_id = g.id AND a.attempt = g.attempt
WHERE g.claim_token IS NOT NULL AND g.worker_id = ANY($1::uuid[]) AND g.status = 'in_progress'
    AND a.sent_at IS NULL AND a.outcome IS NULL AND a.provider_request_id IS NULL
ORDER BY g.id LIMIT 500 FOR UPDATE OF g
"""

RELEASE = f"""
WITH freed AS (
    UPDATE generation_attempts a SET claim_token = NULL, worker_id = NULL, claimed_at = NULL
    FROM image_generations g
    WHERE g.id = ANY($1::uuid[]) AND a.record_id = g.id AND a.attempt = g.attempt
        AND a.sent_at IS NULL AND a.outcome IS NULL
    RETURNING a.id, a.record_id
), slots AS (
    UPDATE provider_slots s SET attempt_id = NULL FROM freed WHERE s.attempt_id = freed.id
), told_rows AS (
    UPDATE image_generations g SET claim_token = NULL, worker_id = NULL, stage = 'queued', version = g.version + 1,
        updated_at = now()
    FROM freed WHERE g.id = freed.record_id RETURNING g.*
), told AS ({tell_status("consumer", "told_rows")}), {WOKEN}
SELECT g.id, {READ_WOKEN} FROM told_rows g
"""

_FENCE = "UPDATE workers SET fenced_at = coalesce(fenced_at, now()) WHERE id = ANY($1::uuid[])"

# a dead worker's attempts, marked as sending, whose answer never came: they may have been charged
_UNANSWERED = f"""
SELECT {CLAIMED_COLUMNS}
FROM generation_attempts a JOIN image_generations g ON g.id = a.record_id
LEFT JOIN workers w ON w.id = a.worker_id
WHERE a.sent_at IS NOT NULL AND a.outcome IS NULL AND a.provider_request_id IS NULL AND a.output_urls IS NULL
    AND a.id IN (SELECT attempt_id FROM provider_slots WHERE attempt_id IS NOT NULL)
    AND g.status = 'in_progress' AND g.claim_token = a.claim_token
    AND (w.id IS NULL OR w.alive_until < now() - make_interval(secs => $1))
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


async def take_over(database: Database, worker_id: UUID, *, judge: bool, stale: float = 0.0, limit: int = 50) -> Taken:
    """Resume what lies unclaimed and, with `judge`, what dead workers hold; give back what they had not sent.

    `stale`: seconds beyond a worker's last promise before it counts as dead. Whoever loses something is fenced in the
    same transaction. Raises `Unavailable`.
    """

    async def work(tx: Transaction) -> Taken:
        dead = [row.id for row in await tx.fetch(_DEAD, stale)] if judge else []
        unclaimed = await tx.fetch(_RESUMABLE.format(whose=_UNCLAIMED), limit)
        orphaned = await tx.fetch(_RESUMABLE.format(whose=_OF_THE_DEAD), limit, dead) if dead else []
        unsent = await tx.fetch(_UNSENT, dead) if dead else []
        losers = {row.worker_id for row in [*orphaned, *unsent]}
        if losers:
            await tx.fetch(_FENCE, sorted(losers))
        if unsent:
            await tx.fetch(RELEASE, [row.record_id for row in unsent])
        resumed: list[Claimed] = []
        if unclaimed or orphaned:
            rows = [*unclaimed, *orphaned]
            # counted only where the provider's bytes were being opened when the worker died (W5)
            counted = [0] * len(unclaimed) + [int(row.storing) for row in orphaned]
            taken = await tx.fetch(
                _RESUME,
                [row.record_id for row in rows],
                [row.attempt_id for row in rows],
                [uuid4() for _ in rows],
                counted,
                worker_id,
            )
            resumed = [claimed(row) for row in taken]
        return Taken(resumed, len(unsent))

    return await database.run(work)


async def unanswered(database: Database, *, after: float) -> list[Claimed]:
    """Attempts sent by workers that have been dead for `after` seconds, and not answered (W2).

    Those of ended records are closed here as uncertain; the others are for the caller to settle, under their claims.
    """
    await database.fetch(_UNANSWERED_AFTER_THE_END, after)
    return [claimed(row) for row in await database.fetch(_UNANSWERED, after)]


async def hand_back(database: Database, tokens: Sequence[UUID]) -> int:
    """Give up these claims: what was not sent waits again, what has an id is resumed by whoever comes (X1)."""

    async def work(tx: Transaction) -> int:
        rows = await tx.fetch(_OURS, tokens)
        unsent = [row.record_id for row in rows if row.unsent]
        begun = [row.record_id for row in rows if row.resumable]
        if unsent:
            await tx.fetch(RELEASE, unsent)
        if begun:
            await tx.fetch(_LET_GO, begun)
        return len(unsent) + len(begun)

    return await database.run(work)


_OURS = """
SELECT g.id AS record_id, a.sent_at IS NULL AND a.outcome IS NULL AND a.provider_request_id IS NULL AS unsent,
    EXISTS (SELECT FROM generation_attempts o WHERE o.record_id = g.id AND o.outcome IS NULL
        AND (o.provider_request_id IS NOT NULL OR o.output_urls IS NOT NULL)) AS resumable
FROM image_generations g JOIN generation_attempts a ON a.record_id = g.id AND a.attempt = g.attempt
WHERE g.claim_token = ANY($1::uuid[]) AND g.status = 'in_progress' ORDER BY g.id FOR UPDATE OF g
"""

_LET_GO = "UPDATE image_generations SET claim_token = NULL, worker_id = NULL WHERE id = ANY($1::uuid[])"

# attempts of ended records that still hold a slot and have an id: somebody must follow them to their end (F3)
_ORPHANS = f"""
WITH orphans AS (
    SELECT a.id, a.record_id FROM generation_attempts a
    JOIN provider_slots s ON s.attempt_id = a.id
    JOIN image_generations g ON g.id = a.record_id
    LEFT JOIN workers w ON w.id = a.worker_id
    WHERE g.status IN ('completed', 'failed', 'cancelled') AND a.provider_request_id IS NOT NULL
        AND (w.id IS NULL OR w.alive_until < now() - make_interval(secs => $2))
    ORDER BY a.record_id LIMIT $3 FOR UPDATE OF a
), a AS (
    UPDATE generation_attempts a SET worker_id = $1, claim_token = gen_random_uuid(), claimed_at = now()
    FROM orphans WHERE a.id = orphans.id RETURNING a.*
)
SELECT {CLAIMED_COLUMNS.replace("g.claim_token", "a.claim_token")} FROM a JOIN image_generations g ON g.id = a.record_id
"""


async def adopt_orphans(database: Database, worker_id: UUID, *, stale: float = 0.0, limit: int = 20) -> list[Claimed]:
    """Attempts without a living worker whose records have ended; the claim is on the attempt alone."""
    return [claimed(row) for row in await database.fetch(_ORPHANS, worker_id, stale, limit)]
