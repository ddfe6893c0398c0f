"""Two hundred workers die at their work, at any step: slots stay exact, and every record ends (PIPELINE W, F2)."""

import random
from collections import Counter
from enum import IntEnum
from uuid import UUID, uuid4

import pytest

from schemas.errors import ErrorClass
from schemas.words import Lane
from storage import abandoned, deadlines, settling, takeovers, workers
from storage.answers import Answer, Stored
from storage.dispatching import Claimed
from storage.sending import Mark, Sending
from tests.connected.steps import BUSY, FACTS, SILENT, Steps, asked, claim_of, request, steps_of

pytestmark = pytest.mark.connected

SLOTS, RECORDS, WORKERS = 12, 150, 200


class At(IntEnum):
    """Where a worker leaves a claim."""

    CLAIMED = 0
    MARKED = 1
    NAMED = 2
    STORING = 3
    STORED = 4


class Line:
    """The storage rooms, and what a provider would see: which of our calls are open there."""

    def __init__(self, steps: Steps, chance: random.Random) -> None:
        self.steps = steps
        self.chance = chance
        self.open: set[UUID] = set()
        self.submits: Counter[UUID] = Counter()
        self.died_at: Counter[str] = Counter()

    async def sweep(self, worker: UUID) -> list[Claimed]:
        """What each consumer does every second, by storage; gives what is to be gone on with."""
        database = self.steps.database
        taken = await takeovers.take_over(database, worker, judge=True)
        await workers.fence_silent(database, after=20)
        for lost in await abandoned.unanswered(database, after=20):
            if lost.retry_count < 3:
                await settling.retry(database, claim_of(lost), SILENT, delay=0, uncertain=True)
            else:
                await settling.die(database, claim_of(lost), SILENT, dead_class=ErrorClass.EXHAUSTED, uncertain=True)
        for orphan in await abandoned.adopt_orphans(database, worker, keep_trying=3_600):
            await deadlines.close_after_the_end(database, orphan.attempt_id, succeeded=False)
        return taken.resumed

    async def work(self, claimed: Claimed, until: At) -> None:
        """Bring a claim so far, unless it fails before."""
        if claimed.provider_request_id is None and not claimed.output_urls:
            if until is At.CLAIMED or not await self._submitted(claimed):
                return
            if until is At.MARKED:
                return
            if self.chance.random() < 0.15:
                await self._fail(claimed)
                return
            said = f"job-{claimed.attempt_id}"
            await self.steps.answers.answered(Answer(claimed.claim_token, claimed.attempt_id, said))
        if until <= At.NAMED:
            return
        if not claimed.output_urls:
            # the provider is done with it
            self.open.discard(claimed.attempt_id)
            await self.steps.answers.answered(
                Answer(claimed.claim_token, claimed.attempt_id, None, output_urls=["https://pictures.test/1.png"])
            )
        if until is At.STORED:
            if claimed.takeovers >= takeovers.MOST_TAKEOVERS:
                await self._die(claimed)
            else:
                await self.steps.answers.stored(
                    Stored(claimed.claim_token, claimed.attempt_id, "aa/p.png", "https://push.test/p.png", FACTS)
                )

    async def _submitted(self, claimed: Claimed) -> bool:
        mark = await self.steps.marks.mark(Sending(claimed.claim_token, claimed.attempt_id))
        if mark is not Mark.SENT:
            return False
        self.open.add(claimed.attempt_id)
        self.submits[claimed.record_id] += 1
        return True

    async def _fail(self, claimed: Claimed) -> None:
        self.open.discard(claimed.attempt_id)
        if claimed.retry_count < 3:
            await settling.retry(self.steps.database, claim_of(claimed), BUSY, delay=0)
        else:
            await self._die(claimed)

    async def _die(self, claimed: Claimed) -> None:
        await settling.die(self.steps.database, claim_of(claimed), BUSY, dead_class=ErrorClass.EXHAUSTED)

    async def held(self) -> None:
        """Used slots are the attempts that are claimed or sent, without outcome or pictures, and never more calls are
        open at the provider than these (uncertain ones apart: nobody knows of them)."""
        await self.steps.check()
        rows = await self.steps.sql("SELECT id FROM generation_attempts WHERE outcome IS NOT NULL")
        self.open -= {row.id for row in rows}
        used = await self.steps.used()
        assert len(self.open) <= used <= SLOTS


async def test_two_hundred_abandoned_workers_cost_no_slot_and_lose_no_record(database_url: str) -> None:
    async with steps_of(database_url, slots=SLOTS) as steps:
        line = Line(steps, random.Random(200))
        chance = line.chance
        users = [uuid4() for _ in range(20)]
        for lane in Lane:
            await steps.admit(*(asked(request(chance.choice(users)), lane=lane) for _ in range(RECORDS // 3)))
        for _ in range(WORKERS):
            worker = await steps.worker()
            claims = await line.sweep(worker) if chance.random() < 0.6 else []
            claims += await steps.dispatcher.claim(worker, limit=chance.randint(1, 4))
            await line.held()
            for claimed in claims:
                until = chance.choice(list(At))
                line.died_at[until.name] += 1
                await line.work(claimed, until)
            await line.held()
            # some fell silent a moment ago, some so long ago that their calls are given up
            await steps.die(worker, ago=chance.choice([1.0, 30.0]))
        # each step was somebody's last
        assert all(line.died_at[at.name] > 10 for at in At), line.died_at
        await steps.sql("UPDATE workers SET alive_until = clock_timestamp() - interval '30 s'")
        survivors = [await steps.worker() for _ in range(2)]
        for turn in range(RECORDS):
            worker = survivors[turn % 2]
            claims = await line.sweep(worker) + await steps.dispatcher.claim(worker)
            for claimed in claims:
                await line.work(claimed, At.STORED)
            await line.held()
            rows = await steps.sql(
                "SELECT count(*) AS open FROM image_generations WHERE status NOT IN ('completed', 'failed')"
            )
            if not rows[0].open:
                break
        ended = Counter(row.status for row in await steps.sql("SELECT status FROM image_generations"))
        assert ended["completed"] + ended["failed"] == RECORDS
        assert ended["completed"] > RECORDS * 0.8
        assert await steps.used() == 0
        # what was paid for is on record: every call, and none beside another
        attempts = await steps.sql("SELECT record_id, sent_at, outcome FROM generation_attempts")
        assert Counter(row.record_id for row in attempts if row.sent_at is not None) == line.submits
        assert all(row.outcome is not None for row in attempts)
