"""The sending mark: the last word before a call that may cost money (PIPELINE S1, S2, S4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from storage.batching import Batcher
from storage.database import Database, Transaction
from storage.fragments import ANSWERED, DEADLINE, KEPT


class Mark(Enum):
    """What became of the wish to send."""

    SENT = "sent"
    # the claim has gone, or the record's picture lies ready: give the claim up, if it is there
    LOST = "lost"
    DEADLINE = "deadline"
    # another attempt of the record has an id: that one is to be followed, ours is closed
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Sending:
    """`again`: this very task has asked before and does not know whether it was marked then; it has sent nothing."""

    claim_token: UUID
    attempt_id: UUID
    again: bool = False


# the record is locked first and the attempts read by a second statement: one that waited for the lock must see what
# its holder wrote
_LOCK = f"""
SELECT g.claim_token, g.id AS record_id, {DEADLINE} > now() AS in_time FROM image_generations g
WHERE g.claim_token = ANY($1::uuid[]) AND g.status = 'in_progress' ORDER BY g.id FOR UPDATE
"""

# each attempt by its id: as a join each of those asked for would be held against all that are open
_MARK = f"""
WITH asked AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bool[]) AS s(record_id, attempt_id, again)),
rivals AS (
    SELECT asked.attempt_id FROM asked WHERE EXISTS (
        SELECT FROM generation_attempts o WHERE o.record_id = asked.record_id AND o.id <> asked.attempt_id
            AND {ANSWERED} AND (o.outcome IS NULL OR o.outcome = 'uncertain') OFFSET 0)
), made AS (
    SELECT asked.attempt_id FROM asked WHERE EXISTS (
        SELECT FROM generation_attempts k WHERE k.record_id = asked.record_id AND {KEPT} OFFSET 0)
), free AS (
    SELECT t.id FROM asked CROSS JOIN LATERAL (
        SELECT id FROM generation_attempts o WHERE o.id = asked.attempt_id AND o.outcome IS NULL
            AND (o.sent_at IS NULL OR asked.again AND o.provider_request_id IS NULL AND o.output_urls IS NULL)
        OFFSET 0 FOR UPDATE) t
    WHERE t.id NOT IN (SELECT attempt_id FROM rivals) AND t.id NOT IN (SELECT attempt_id FROM made)
), marked AS (
    UPDATE generation_attempts a SET sent_at = clock_timestamp(), breaker_epoch = (SELECT max(epoch) FROM breakers)
    FROM free WHERE a.id = free.id
    RETURNING a.id
)
SELECT asked.attempt_id, asked.attempt_id IN (SELECT id FROM marked) AS marked,
    asked.attempt_id IN (SELECT attempt_id FROM rivals) AS superseded
FROM asked
"""

_UNMARK = """
UPDATE generation_attempts a SET sent_at = NULL FROM image_generations g
WHERE a.id = $2 AND g.id = a.record_id AND g.claim_token = $1 AND g.status = 'in_progress' AND a.outcome IS NULL
RETURNING a.id
"""

# an attempt keeps the token of the claim under which it was marked: where that has changed it is somebody else's by now
NOT_SENT = """
WITH closed AS (
    UPDATE generation_attempts SET outcome = 'not_sent', counted = false, closed_at = now()
    WHERE claim_token = ANY($1::uuid[]) AND sent_at IS NOT NULL AND (outcome IS NULL OR outcome = 'uncertain')
        AND provider_request_id IS NULL AND output_urls IS NULL
    RETURNING id
)
UPDATE provider_slots s SET attempt_id = NULL FROM closed WHERE s.attempt_id = closed.id
"""


class SendingMarks:
    """Marks attempts as sending, many in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batch: Batcher[Sending, Mark] = Batcher(self._flush)

    async def mark(self, sending: Sending) -> Mark:
        """Set `sent_at` if the claim still holds; only `Mark.SENT` allows the call. Raises `Unavailable`."""
        return await self._batch(sending)

    async def _flush(self, asked: Sequence[Sending]) -> Sequence[Mark | Exception]:
        async def work(tx: Transaction) -> Sequence[Mark | Exception]:
            held = {row.claim_token: row for row in await tx.fetch(_LOCK, [s.claim_token for s in asked])}
            ready = [s for s in asked if s.claim_token in held and held[s.claim_token].in_time]
            marks: dict[UUID, Mark] = {}
            if ready:
                rows = await tx.fetch(
                    _MARK,
                    [held[s.claim_token].record_id for s in ready],
                    [s.attempt_id for s in ready],
                    [s.again for s in ready],
                )
                for row in rows:
                    marks[row.attempt_id] = (
                        Mark.SENT if row.marked else Mark.SUPERSEDED if row.superseded else Mark.LOST
                    )
            unmarked = {s.attempt_id: Mark.DEADLINE if s.claim_token in held else Mark.LOST for s in asked}
            return [marks.get(s.attempt_id, unmarked[s.attempt_id]) for s in asked]

        return await self._database.run(work)

    async def unmark(self, sending: Sending) -> bool:
        """Too late to send under this mark (S4): clear it while the claim is ours; else note that nothing was sent."""
        if await self._database.fetch(_UNMARK, sending.claim_token, sending.attempt_id):
            return True
        await self._database.fetch(NOT_SENT, [sending.claim_token])
        return False
