"""The end of a record before its work is done: its deadline, or a cancel (PIPELINE F3)."""

from dataclasses import dataclass
from uuid import UUID

from schemas.errors import ErrorClass
from storage.database import Database, Transaction
from storage.dispatching import SECONDS_LEFT
from storage.fragments import DEADLINE, PROVIDER_OPEN, READ_WOKEN, WOKEN, tell_status
from storage.settling import fail_rows


def _ended(status: str, *, error_class: str, code: str, message: str) -> str:
    """CTEs that end the records of a CTE `held`; the arguments are SQL.

    A sent attempt keeps its slot until it has been followed to its end; an unsent one closes with its record.
    """
    return f"""spent AS (
    SELECT a.record_id, a.cost, a.prompt FROM generation_attempts a JOIN held ON a.record_id = held.id
    WHERE a.outcome IS NULL ORDER BY a.attempt DESC
), closed AS (
    UPDATE generation_attempts a SET outcome = 'cancelled', counted = false, error_class = {error_class},
        closed_at = now()
    FROM held WHERE a.record_id = held.id AND a.outcome IS NULL AND a.sent_at IS NULL RETURNING a.id
), freed AS (
    UPDATE provider_slots s SET attempt_id = NULL FROM closed WHERE s.attempt_id = closed.id
), ended AS (
    UPDATE image_generations g SET status = {status}, version = g.version + 1, claim_token = NULL,
        worker_id = NULL, retry_at = NULL, error_class = {error_class}, error_code = {code}, error_message = {message},
        stage = 'done', updated_at = now(), completed_at = now()
    FROM held WHERE g.id = held.id RETURNING g.*
)"""


_LATE = _ended(
    "'failed'",
    error_class=f"'{ErrorClass.DEADLINE}'",
    code="CASE g.stage WHEN 'storing' THEN 'storing_failed' ELSE 'deadline_exceeded' END",
    message="""CASE g.stage
            WHEN 'storing' THEN 'The picture was made but could not be stored in time. Ask us to store it again: '
                || 'nothing more is charged for that.'
            ELSE 'This image could not be made in time. Please request it again.' END""",
)
_END_LATE = f"""{_LATE}, {fail_rows("ended", closed="spent")}
SELECT g.id, {READ_WOKEN} FROM ended g
"""

# A claimed record gets the submit timeout on top: its worker ends it itself at the next mark or poll.
_OVERDUE = f"""g.lane IS NOT NULL AND g.status IN ('pending', 'in_progress')
        AND g.deadline_at < now() AND {DEADLINE} < now()
        AND (g.claim_token IS NULL OR {DEADLINE} < now() - make_interval(secs => $1))"""

# Found by the deadlines' index and then locked in order of id: in one step the whole table would be read in that order.
_END_OVERDUE = f"""
WITH held AS (
    SELECT g.id FROM image_generations g
    WHERE g.id = ANY (ARRAY(
            SELECT g.id FROM image_generations g WHERE {_OVERDUE} ORDER BY g.deadline_at LIMIT 100))
        AND {_OVERDUE}
        AND NOT {PROVIDER_OPEN}
    ORDER BY g.id FOR UPDATE OF g
), {_END_LATE}"""


async def end_overdue(database: Database, *, claimed_grace: float) -> int:
    """End what is past its deadline, 100 at most; a claimed record is left `claimed_grace` seconds longer."""
    return len(await database.fetch(_END_OVERDUE, claimed_grace))


@dataclass(frozen=True, slots=True)
class Overdue:
    """A claimed record whose time seemed over: it has ended, or has `seconds_left` as a breaker moved its deadline."""

    ended: bool
    seconds_left: float


_TIME_LEFT = f"""
SELECT {SECONDS_LEFT} AS seconds_left, {PROVIDER_OPEN} AS paused FROM image_generations g
WHERE g.claim_token = $1 AND g.status = 'in_progress' FOR UPDATE
"""
_END_CLAIMED = f"""
WITH held AS (SELECT g.id FROM image_generations g WHERE g.claim_token = $1), {_END_LATE}"""
_WHILE_PAUSED = 30.0
"""Seconds to go on with while the provider's breaker is open: nobody is ended then (PIPELINE K2)."""


async def end_claimed(database: Database, claim_token: UUID) -> Overdue | None:
    """End a claimed record at its deadline, with its attempt left open: what the provider made is kept for a replay.

    None: the claim has gone.
    """

    async def work(tx: Transaction) -> Overdue | None:
        rows = await tx.fetch(_TIME_LEFT, claim_token)
        if not rows:
            return None
        left = max(rows[0].seconds_left, _WHILE_PAUSED if rows[0].paused else 0.0)
        if left > 0:
            return Overdue(False, left)
        await tx.fetch(_END_CLAIMED, claim_token)
        return Overdue(True, 0.0)

    return await database.run(work)


_CANCEL = f"""
WITH held AS (
    SELECT g.id FROM image_generations g
    WHERE g.id = $1 AND ($2::uuid IS NULL OR g.user_id = $2) AND g.lane IS NOT NULL
        AND g.status IN ('pending', 'in_progress') FOR UPDATE
), {_ended("'cancelled'", error_class="NULL", code="NULL", message="NULL")},
told AS ({tell_status("consumer", "ended")}), {WOKEN}
SELECT g.id, {READ_WOKEN} FROM ended g
"""


async def cancel(database: Database, record_id: UUID, user_id: UUID | None = None) -> bool:
    """End a record that is still waiting or worked on, at once; with `user_id` only if it is theirs.

    False: there is no such record, or it has ended. What was sent is followed to its end without touching the record:
    the provider knows no cancel, and its picture may be paid for.
    """
    return bool(await database.fetch(_CANCEL, record_id, user_id))


_PURGE_KEYS = "DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(secs => $1)"


async def purge_keys(database: Database, *, after: float) -> None:
    """Forget idempotency keys older than `after` seconds."""
    await database.fetch(_PURGE_KEYS, after)
