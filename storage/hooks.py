"""Ids that the provider's webhook names: noted unconfirmed, confirmed or refuted by a consumer (PIPELINE S1, W6)."""

from enum import Enum
from uuid import UUID

from storage.database import Database, Transaction
from storage.fragments import READ_WOKEN, WOKEN, tell_status

# an attempt that was never sent is not known to the provider, whoever says so
_NOTE = """
UPDATE generation_attempts SET webhook_request_id = $2
WHERE webhook_token = $1 AND sent_at IS NOT NULL AND (outcome IS NULL OR outcome = 'uncertain')
    AND provider_request_id IS NULL AND webhook_request_id IS NULL AND output_urls IS NULL
RETURNING id
"""


async def note(database: Database, token: str, request_id: str) -> bool:
    """Note the id on the open attempt of this token, unless it has one; False: there is no such attempt.

    Nothing is submitted beside it from here on (PIPELINE S1); a consumer finds out whether it is true.
    """
    return bool(await database.fetch(_NOTE, token, request_id))


_NAMED = "SELECT webhook_request_id FROM generation_attempts WHERE id = $1 AND webhook_request_id IS NOT NULL"


async def named(database: Database, attempt_id: UUID) -> str | None:
    """The id that a webhook named for this attempt, if one did."""
    rows = await database.fetch(_NAMED, attempt_id)
    return str(rows[0].webhook_request_id) if rows else None


class Refuted(Enum):
    """What became of an attempt whose webhook's id was not its own."""

    # still held and still unanswered: the caller settles it as such
    UNANSWERED = "unanswered"
    # uncertain as before; a record that was held for it is back at its retry
    UNCERTAIN = "uncertain"
    # the claim has gone, or the attempt has got its true id: nothing was written
    LOST = "lost"


_LOCK = """
SELECT g.status = 'in_progress' AND g.claim_token = $1 AS held
FROM image_generations g JOIN generation_attempts a ON a.record_id = g.id WHERE a.id = $2 FOR UPDATE OF g
"""

_FORGET = """
UPDATE generation_attempts SET webhook_request_id = NULL
WHERE id = $2 AND claim_token = $1 AND webhook_request_id = $3 AND provider_request_id IS NULL AND output_urls IS NULL
    AND (outcome IS NULL OR outcome = 'uncertain')
RETURNING outcome
"""

# as when it was followed to its failure; only that the attempt is as open as before
_BACK_TO_RETRY = f"""
WITH told_rows AS (
    UPDATE image_generations g SET stage = 'retry_wait', progress = 0, version = g.version + 1,
        attempt = g.attempt + (EXISTS (SELECT FROM generation_attempts a
            WHERE a.record_id = g.id AND a.attempt = g.attempt AND a.outcome IS NOT NULL))::int,
        retry_at = coalesce(g.retry_at, now()), claim_token = NULL, worker_id = NULL, updated_at = now()
    WHERE g.claim_token = $1 RETURNING g.*
), told AS ({tell_status("consumer", "told_rows")}), {WOKEN}
SELECT g.id, {READ_WOKEN} FROM told_rows g
"""

_CLOSE = """
WITH closed AS (
    UPDATE generation_attempts SET outcome = 'uncertain', counted = true, closed_at = now()
    WHERE id = $1 AND outcome IS NULL RETURNING id
)
UPDATE provider_slots s SET attempt_id = NULL FROM closed WHERE s.attempt_id = closed.id
"""


async def refute(database: Database, claim_token: UUID, attempt_id: UUID, request_id: str) -> Refuted:
    """The provider knows no such job of ours: forget the id, so that a later webhook may name another."""

    async def work(tx: Transaction) -> Refuted:
        (record,) = await tx.fetch(_LOCK, claim_token, attempt_id)
        forgotten = await tx.fetch(_FORGET, claim_token, attempt_id, request_id)
        if not forgotten:
            return Refuted.LOST
        if not record.held:
            # the record has ended, or goes on without this attempt
            await tx.fetch(_CLOSE, attempt_id)
            return Refuted.UNCERTAIN
        if forgotten[0].outcome is None:
            return Refuted.UNANSWERED
        await tx.fetch(_BACK_TO_RETRY, claim_token)
        return Refuted.UNCERTAIN

    return await database.run(work)
