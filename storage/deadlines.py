"""Records past their deadline, and attempts nobody will answer for any more (PIPELINE F3)."""

from uuid import UUID

from schemas.errors import ErrorClass
from storage.database import Database
from storage.fragments import DEADLINE, PROVIDER_OPEN, READ_WOKEN
from storage.settling import fail_rows

# A claimed record gets the submit timeout on top: its worker ends it itself at the next mark or poll.
_OVERDUE = f"""g.lane IS NOT NULL AND g.status IN ('pending', 'in_progress')
        AND g.deadline_at < now() AND {DEADLINE} < now()
        AND (g.claim_token IS NULL OR {DEADLINE} < now() - make_interval(secs => $1))"""

# Found by the deadlines' index and then locked in order of id: in one step the whole table would be read in that order.
# A sent attempt keeps its slot until it has been followed to its end; an unsent one closes with its record.
_END_OVERDUE = f"""
WITH held AS (
    SELECT g.id FROM image_generations g
    WHERE g.id = ANY (ARRAY(
            SELECT g.id FROM image_generations g WHERE {_OVERDUE} ORDER BY g.deadline_at LIMIT 100))
        AND {_OVERDUE}
        AND NOT {PROVIDER_OPEN}
    ORDER BY g.id FOR UPDATE OF g
), closed AS (
    UPDATE generation_attempts a SET outcome = 'cancelled', counted = false, error_class = '{ErrorClass.DEADLINE}',
        closed_at = now()
    FROM held WHERE a.record_id = held.id AND a.outcome IS NULL AND a.sent_at IS NULL
    RETURNING a.id, a.record_id, a.cost, a.prompt
), freed AS (
    UPDATE provider_slots s SET attempt_id = NULL FROM closed WHERE s.attempt_id = closed.id
), ended AS (
    UPDATE image_generations g SET status = 'failed', version = g.version + 1, claim_token = NULL,
        worker_id = NULL, retry_at = NULL, error_class = '{ErrorClass.DEADLINE}',
        error_code = CASE g.stage WHEN 'storing' THEN 'storing_failed' ELSE 'deadline_exceeded' END,
        error_message = CASE g.stage
            WHEN 'storing' THEN 'The picture was made but could not be stored in time. Ask us to store it again: '
                || 'nothing more is charged for that.'
            ELSE 'This image could not be made in time. Please request it again.' END,
        stage = 'done', updated_at = now(), completed_at = now()
    FROM held WHERE g.id = held.id RETURNING g.*
), {fail_rows("ended", closed="closed")}
SELECT g.id, {READ_WOKEN} FROM ended g
"""


async def end_overdue(database: Database, *, claimed_grace: float) -> int:
    """End what is past its deadline, 100 at most; a claimed record is left `claimed_grace` seconds longer."""
    return len(await database.fetch(_END_OVERDUE, claimed_grace))


_CLOSE_ATTEMPT = """
WITH closed AS (
    UPDATE generation_attempts a SET
        outcome = CASE WHEN $2::bool THEN 'late_success' WHEN a.outcome = 'uncertain' THEN 'late_failure' ELSE $3 END,
        counted = true, closed_at = now(),
        output_urls = coalesce(a.output_urls, $4::jsonb), proxy_urls = coalesce(a.proxy_urls, $5::jsonb)
    FROM image_generations g
    WHERE a.id = $1 AND g.id = a.record_id AND (a.outcome IS NULL OR a.outcome = 'uncertain')
        AND g.status IN ('completed', 'failed', 'cancelled')
    RETURNING a.id
), freed AS (
    UPDATE provider_slots s SET attempt_id = NULL FROM closed WHERE s.attempt_id = closed.id
)
SELECT id FROM closed
"""


async def close_after_the_end(
    database: Database,
    attempt_id: UUID,
    *,
    succeeded: bool,
    outcome: str = "failed",
    output_urls: str | None = None,
    proxy_urls: str | None = None,
) -> bool:
    """Note how an attempt ended whose record had ended before it; the record is not touched, the slot falls free.

    False: its record has not ended, so that the attempt is somebody else's to close.

    `output_urls` and `proxy_urls`: json arrays, kept on the attempt so that a replay needs no submit.
    """
    rows = await database.fetch(_CLOSE_ATTEMPT, attempt_id, succeeded, outcome, output_urls, proxy_urls)
    return bool(rows)


_PURGE_KEYS = "DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(secs => $1)"


async def purge_keys(database: Database, *, after: float) -> None:
    """Forget idempotency keys older than `after` seconds."""
    await database.fetch(_PURGE_KEYS, after)
