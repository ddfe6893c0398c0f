"""Resume, takeover and harvest: what was begun and has no task that works on it (PIPELINE D1, W2 to W6, X1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row

from storage.database import Database, Transaction
from storage.dispatching import CLAIMED_COLUMNS, Claimed, claimed
from storage.fragments import READ_WOKEN, WOKEN, tell_status
from storage.sending import NOT_SENT

MOST_TAKEOVERS = 3
"""A picture that was being stored when so many workers died is not stored again (W5)."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a look over the dead brought: records to go on with, and how many go back to wait for dispatch."""

    resumed: list[Claimed]
    released: int


# judged by Postgres' clock alone; the caller makes sure that the silence is not Postgres' own (W3)
_DEAD = "SELECT id FROM workers WHERE alive_until < now() ORDER BY id"

# An attempt that the provider has taken: with it its record is resumed, whatever its number, and an uncertain one that
# got its id late just so (W6).
ANSWERED = """(a.outcome IS NULL OR a.outcome = 'uncertain')
    AND (a.provider_request_id IS NOT NULL OR a.webhook_request_id IS NOT NULL OR a.output_urls IS NOT NULL)"""

_RESUMABLE = f"""
SELECT g.id AS record_id, a.id AS attempt_id, g.worker_id, g.stage = 'storing' AS storing, g.takeovers,
    g.status = 'pending' AS replayed
FROM generation_attempts a JOIN image_generations g ON g.id = a.record_id
WHERE {ANSWERED} AND NOT EXISTS (
        SELECT FROM generation_attempts b WHERE b.record_id = a.record_id AND b.attempt > a.attempt
            AND {ANSWERED.replace("a.", "b.")})
    AND g.lane IS NOT NULL AND {{whose}}
ORDER BY g.id LIMIT $1 FOR UPDATE OF g
"""
# pending with an answered attempt: replayed (T2)
_UNCLAIMED = "g.claim_token IS NULL AND g.status IN ('in_progress', 'pending')"
_OF_THE_DEAD = "g.claim_token IS NOT NULL AND g.status = 'in_progress' AND g.worker_id = ANY($2::uuid[])"

_HOLDS_SUSPECT = """
SELECT EXISTS (SELECT FROM image_generations WHERE worker_id = $1 AND claim_token IS NOT NULL
    AND status = 'in_progress' AND stage = 'storing' AND takeovers > 0) AS holds
"""

# only of a replayed record it is news that somebody works on it
_RESUME = f"""
WITH taken AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $6::bool[])
        AS t(record_id, attempt_id, token, takeovers, replayed)
), a AS (
    UPDATE generation_attempts a SET worker_id = $5, claim_token = t.token, claimed_at = now()
    FROM taken t WHERE a.id = t.attempt_id RETURNING a.*, t.replayed
), g AS (
    UPDATE image_generations g SET claim_token = t.token, worker_id = $5, takeovers = g.takeovers + t.takeovers
    FROM taken t WHERE g.id = t.record_id AND NOT t.replayed RETURNING g.*
), told_rows AS (
    UPDATE image_generations g SET claim_token = a.claim_token, worker_id = $5, status = 'in_progress',
        stage = CASE WHEN a.output_urls IS NULL THEN 'generating' ELSE 'storing' END,
        progress = CASE WHEN a.output_urls IS NULL THEN 15 ELSE 85 END,
        model_id = a.model_id, version = g.version + 1, updated_at = now()
    FROM a WHERE g.id = a.record_id AND a.replayed RETURNING g.*
), told AS ({tell_status("consumer", "told_rows")}), {WOKEN}
SELECT {CLAIMED_COLUMNS}, {READ_WOKEN} FROM (SELECT * FROM g UNION ALL SELECT * FROM told_rows) g
JOIN a ON a.record_id = g.id ORDER BY g.id
"""

_UNSENT = """
SELECT g.id AS record_id, g.worker_id
FROM image_generations g JOIN generation_attempts a ON a.record_id = g.id AND a.attempt = g.attempt
WHERE g.claim_token IS NOT NULL AND g.worker_id = ANY($1::uuid[]) AND g.status = 'in_progress'
    AND a.sent_at IS NULL AND a.outcome IS NULL AND a.provider_request_id IS NULL
ORDER BY g.id LIMIT 500 FOR UPDATE OF g
"""

# $2: their own task says that it has sent nothing, whatever the mark
_RELEASE = f"""
WITH freed AS (
    UPDATE generation_attempts a SET claim_token = NULL, worker_id = NULL, claimed_at = NULL, sent_at = NULL
    FROM image_generations g
    WHERE g.id = ANY($1::uuid[]) AND a.record_id = g.id AND a.attempt = g.attempt
        AND (a.sent_at IS NULL OR $2::bool)
        AND a.outcome IS NULL AND a.provider_request_id IS NULL AND a.output_urls IS NULL
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

FENCE = "UPDATE workers SET fenced_at = coalesce(fenced_at, now()) WHERE id = ANY($1::uuid[])"


async def take_over(database: Database, worker_id: UUID, *, judge: bool, limit: int = 50) -> Taken:
    """Resume what lies unclaimed and, with `judge`, what dead workers hold; give back what they had not sent.

    Whoever loses something is fenced in the same transaction. Raises `Unavailable`.
    """

    async def work(tx: Transaction) -> Taken:
        dead = [row.id for row in await tx.fetch(_DEAD)] if judge else []
        unclaimed = await tx.fetch(_RESUMABLE.format(whose=_UNCLAIMED), limit)
        orphaned = await tx.fetch(_RESUMABLE.format(whose=_OF_THE_DEAD), limit, dead) if dead else []
        unsent = await tx.fetch(_UNSENT, dead) if dead else []
        # counted only where the provider's bytes were being opened when the worker died (W5)
        found = [(row, 0) for row in unclaimed] + [(row, int(row.storing)) for row in orphaned]
        taken = await _one_suspect(tx, worker_id, found)
        losers = {row.worker_id for row, _ in taken if row.worker_id is not None} | {row.worker_id for row in unsent}
        if losers:
            await tx.fetch(FENCE, sorted(losers))
        released = await tx.fetch(_RELEASE, [row.record_id for row in unsent], False) if unsent else []
        resumed: list[Claimed] = []
        if taken:
            rows = await tx.fetch(
                _RESUME,
                [row.record_id for row, _ in taken],
                [row.attempt_id for row, _ in taken],
                [uuid4() for _ in taken],
                [counted for _, counted in taken],
                worker_id,
                [row.replayed for row, _ in taken],
            )
            resumed = [claimed(row) for row in rows]
        return Taken(resumed, len(released))

    return await database.run(work)


async def _one_suspect(
    tx: Transaction, worker_id: UUID, found: Sequence[tuple[Row[Any], int]]
) -> list[tuple[Row[Any], int]]:
    """Of the records that a worker has died on, one at a time in a worker: who shares its death is not suspected again.

    The others stay where they are until that one is stored.
    """
    suspects = [(row, counted) for row, counted in found if row.storing and row.takeovers + counted > 0]
    if not suspects:
        return list(found)
    (row,) = await tx.fetch(_HOLDS_SUSPECT, worker_id)
    left = suspects if row.holds else suspects[1:]
    return [one for one in found if one not in left]


async def hand_back(database: Database, tokens: Sequence[UUID], *, nothing_sent: bool = False) -> int:
    """Give up these claims: what was not sent waits again, what has an id is resumed by whoever comes (X1).

    `nothing_sent`: their tasks have made no call since they marked; the marks are taken back, and where the claim has
    gone to another it is on record that nothing was sent.
    """

    async def work(tx: Transaction) -> int:
        rows = await tx.fetch(_OURS, tokens, nothing_sent)
        unsent = [row.record_id for row in rows if row.unsent]
        begun = [row.record_id for row in rows if row.resumable]
        if unsent:
            await tx.fetch(_RELEASE, unsent, nothing_sent)
        if begun:
            await tx.fetch(_LET_GO, begun)
        if nothing_sent:
            await tx.fetch(NOT_SENT, tokens)
        return len(unsent) + len(begun)

    return await database.run(work)


_OURS = f"""
SELECT g.id AS record_id,
    c.id IS NOT NULL AND (c.sent_at IS NULL OR $2::bool)
        AND c.outcome IS NULL AND c.provider_request_id IS NULL AND c.output_urls IS NULL AS unsent,
    EXISTS (SELECT FROM generation_attempts a WHERE a.record_id = g.id AND {ANSWERED}) AS resumable
FROM image_generations g LEFT JOIN generation_attempts c ON c.record_id = g.id AND c.attempt = g.attempt
WHERE g.claim_token = ANY($1::uuid[]) AND g.status = 'in_progress' ORDER BY g.id FOR UPDATE OF g
"""

# the attempt as well: should its record end now, it is nobody's, and is followed by whoever sweeps
_LET_GO = """
WITH a AS (
    UPDATE generation_attempts a SET claim_token = NULL, worker_id = NULL FROM image_generations g
    WHERE g.id = ANY($1::uuid[]) AND a.record_id = g.id AND a.claim_token = g.claim_token
)
UPDATE image_generations SET claim_token = NULL, worker_id = NULL WHERE id = ANY($1::uuid[]) AND claim_token IS NOT NULL
"""

# NOT IN a query is hashed once; <> ALL would compare each claim with each token
_FORGOTTEN = f"""
SELECT {CLAIMED_COLUMNS}
FROM image_generations g JOIN generation_attempts a ON a.record_id = g.id AND a.claim_token = g.claim_token
WHERE g.worker_id = $1 AND g.claim_token IS NOT NULL AND g.claim_token NOT IN (SELECT unnest($2::uuid[]))
    AND g.status = 'in_progress'
    AND (a.outcome IS NULL OR {ANSWERED})
ORDER BY g.id, a.attempt DESC
"""


async def forgotten(database: Database, worker_id: UUID, tokens: Sequence[UUID]) -> list[Claimed]:
    """What is claimed in this worker's name under other tokens than these: its commit was never heard of (W1)."""
    found = [claimed(row) for row in await database.fetch(_FORGOTTEN, worker_id, tokens)]
    return list({one.claim_token: one for one in reversed(found)}.values())
