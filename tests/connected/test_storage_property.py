"""Any order of steps, crashes included: versions rise, terminal is terminal, slots are exact, nobody pays twice, and
everything ends."""

import asyncio
import sys
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from schemas.errors import ErrorClass
from schemas.words import Tier
from storage import abandoned, admitting, deadlines, kept, settling, takeovers, workers
from storage.database import Database
from storage.dispatching import Claimed, Draft
from storage.sending import Mark, Sending
from storage.settings import DatabaseSettings
from tests.connected import perfect
from tests.connected.late_rules import LateRules
from tests.connected.perfect import LATE, Jobs
from tests.connected.steps import BUSY, SILENT, Steps, asked, claim_of, request

pytestmark = pytest.mark.connected

T = TypeVar("T")
NEXT = Draft("next-model", "p", "/path", {}, 0.1)
WORKERS = st.integers(0, 2)
PICK = st.integers(0, 5)


def machine_of(url: str) -> type[RuleBasedStateMachine]:
    class Line(LateRules):
        """Three workers and what each of them believes to hold; a crashed one goes on believing."""

        def __init__(self) -> None:
            super().__init__()
            self.loop = asyncio.new_event_loop()
            self.database = Database(DatabaseSettings(database_url=url), application="test")
            self.steps = Steps(self.database)

        def do(self, work: Coroutine[Any, Any, T], within: float = 30) -> T:
            return self.loop.run_until_complete(asyncio.wait_for(work, within))

        @initialize()
        def begin(self) -> None:
            self.do(self._begin())

        async def _begin(self) -> None:
            await self.steps.sql("TRUNCATE image_generations, idempotency_keys, outbox, dead_letters, workers CASCADE")
            await self.steps.sql("UPDATE lanes SET turn = 0, credit = 0")
            await workers.provide_slots(self.database, 3)
            self.workers = [await self.steps.worker() for _ in range(3)]
            # every claim that some task may still believe in, and those whose call may be open
            self.tasks: list[Claimed] = []
            self.asked: list[Claimed] = []
            # attempts of ended records that somebody follows, or followed
            self.orphans: list[Claimed] = []
            self.moved: dict[tuple[UUID, UUID], int] = {}
            self.jobs = Jobs()
            await self.steps.waiting(request(), request(tier=Tier.PREMIUM), request())
            await self._dispatch(0, 3)

        def pick(self, index: int, *, sent: bool) -> Claimed | None:
            some = self.asked if sent else self.tasks
            return some[-1 - index % len(some)] if some else None

        @rule(tier=st.sampled_from([Tier.FREE, Tier.PREMIUM]), admitted=st.booleans())
        def ask(self, tier: Tier, admitted: bool) -> None:
            new = request(tier=tier)
            self.do(self.steps.accept(new))
            if admitted:
                self.do(self.steps.admit(asked(new), asked(new)))

        @rule(worker=WORKERS, limit=st.integers(1, 3), send=st.integers(0, 3))
        def dispatch(self, worker: int, limit: int, send: int) -> None:
            for claimed in self.do(self._dispatch(worker, limit)):
                if send:
                    self._send(claimed, again=False)

        async def _dispatch(self, worker: int, limit: int) -> list[Claimed]:
            await admitting.admit_overdue(self.database, after=0)
            claims = await self.steps.dispatcher.claim(self.workers[worker], limit=limit)
            self.tasks += claims
            return claims

        @precondition(lambda self: self.tasks)
        @rule(index=PICK, again=st.booleans())
        def send(self, index: int, again: bool) -> None:
            claimed = self.pick(index, sent=False)
            assert claimed is not None
            self._send(claimed, again)

        def _send(self, claimed: Claimed, again: bool) -> None:
            if claimed.provider_request_id or claimed.output_urls:
                self.asked.append(claimed)
                return
            # `again` only by the task that has sent nothing under this claim
            again = again and claimed not in self.asked
            before = self.do(self.rivals(claimed))
            mark = self.do(self.steps.marks.mark(Sending(claimed.claim_token, claimed.attempt_id, again)))
            if mark is Mark.SENT:
                assert not before, "a submit beside an attempt that the provider had taken"
                assert claimed not in self.asked, "one attempt sent twice"
                self.asked.append(claimed)
            elif mark is Mark.SUPERSEDED:
                assert before
                other = self.do(settling.supersede(self.database, claim_of(claimed), SILENT))
                self.tasks += [other] if other is not None else []
            elif mark is Mark.DEADLINE:
                self.do(settling.die(self.database, claim_of(claimed), LATE, dead_class=ErrorClass.DEADLINE))

        async def rivals(self, claimed: Claimed) -> int:
            rows = await self.steps.sql(
                "SELECT id FROM generation_attempts WHERE record_id = $1 AND id <> $2 AND"
                " ((outcome IS NULL OR outcome = 'uncertain')"
                " AND (provider_request_id IS NOT NULL OR webhook_request_id IS NOT NULL)"
                " OR outcome = 'late_success' AND image_key IS NOT NULL)",
                claimed.record_id,
                claimed.attempt_id,
            )
            return len(rows)

        @precondition(lambda self: self.tasks)
        @rule(moves=st.lists(PICK, min_size=2, max_size=6))
        def go_on(self, moves: list[int]) -> None:
            """Each task's next step: sent, named, made, stored."""
            for index in moves:
                claimed = self.pick(index, sent=False)
                assert claimed is not None
                done = self.moved[claimed.claim_token, claimed.attempt_id] = (
                    self.moved.get((claimed.claim_token, claimed.attempt_id), 0) + 1
                )
                if claimed not in self.asked:
                    self._send(claimed, again=False)
                elif claimed.unconfirmed:
                    self._confirm(claimed)
                elif done == 2:
                    self.do(self.steps.answers.answered(self.jobs.said(claimed)))
                elif done == 3:
                    if not self.do(self.steps.generated(claimed)):
                        self.do(self.steps.made_late(claimed))
                elif not self.do(self.steps.stored(claimed)):
                    self.do(self.steps.kept(claimed))

        @precondition(lambda self: self.asked)
        @rule(index=PICK)
        def name(self, index: int) -> None:
            """Whatever became of the claim meanwhile."""
            claimed = self.pick(index, sent=True)
            assert claimed is not None
            self.do(self.steps.answers.answered(self.jobs.said(claimed)))

        @precondition(lambda self: self.asked)
        @rule(index=PICK, store=st.booleans())
        def make(self, index: int, store: bool) -> None:
            claimed = self.pick(index, sent=True)
            assert claimed is not None
            held = self.do(self.steps.generated(claimed))
            if held and store:
                assert self.do(self.steps.stored(claimed))

        @precondition(lambda self: self.asked)
        @rule(
            index=PICK, verdict=st.sampled_from(["retry", "uncertain", "defer", "next", "die", "die unknown", "back"])
        )
        def fail(self, index: int, verdict: str) -> None:
            claimed = self.pick(index, sent=True)
            assert claimed is not None
            claim = claim_of(claimed)
            held = True
            if verdict in ("retry", "uncertain"):
                held = self.do(settling.retry(self.database, claim, BUSY, delay=0, uncertain=verdict == "uncertain"))
            elif verdict == "defer":
                held = self.do(settling.defer(self.database, claim, BUSY, delay=0))
            elif verdict == "next":
                following = self.do(
                    settling.next_model(self.database, claim, BUSY, replace(NEXT, webhook_token=uuid4().hex))
                )
                if following is not None:
                    # the task that was answered so goes on with the other attempt
                    self.asked.remove(claimed)
                    self.tasks = [*(one for one in self.tasks if one is not claimed), following]
                held = following is not None
            elif verdict == "back":
                held = self.do(settling.back_to_retry(self.database, claim, BUSY))
            else:
                held = self.do(
                    settling.die(
                        self.database,
                        claim,
                        SILENT,
                        dead_class=ErrorClass.EXHAUSTED,
                        uncertain=verdict == "die unknown",
                    )
                )

            unknown = verdict in ("uncertain", "die unknown")
            if not held and not self.do(kept.close(self.database, claim, "uncertain" if unknown else "failed")):
                self.do(takeovers.hand_back(self.database, [claimed.claim_token]))

        @precondition(lambda self: self.asked)
        @rule(index=PICK, worker=WORKERS)
        def fall_silent_and_be_named_late(self, index: int, worker: int) -> None:
            """The next attempt is claimed before the first one's id is known, and sends nothing beside it."""
            claimed = self.pick(index, sent=True)
            assert claimed is not None
            self.do(settling.retry(self.database, claim_of(claimed), SILENT, delay=0, uncertain=True))
            claims = self.do(self._dispatch(worker, 3))
            self.do(self.steps.answers.answered(self.jobs.said(claimed)))
            for one in claims:
                self._send(one, again=False)

        @precondition(lambda self: self.tasks)
        @rule(index=PICK)
        def hand_back(self, index: int) -> None:
            claimed = self.pick(index, sent=False)
            assert claimed is not None
            nothing_sent = claimed not in self.asked
            self.do(takeovers.hand_back(self.database, [claimed.claim_token], nothing_sent=nothing_sent))

        @rule(worker=WORKERS)
        def crash(self, worker: int) -> None:
            self.do(self.steps.die(self.workers[worker], ago=30))
            self.workers[worker] = self.do(self.steps.worker())

        @rule(worker=WORKERS)
        def sweep(self, worker: int) -> None:
            self.do(self._sweep(self.workers[worker]))

        async def _sweep(self, worker: UUID) -> None:
            await kept.complete_replayed(self.database)
            taken = await takeovers.take_over(self.database, worker, judge=True)
            self.tasks += taken.resumed
            self.asked += taken.resumed
            await workers.fence_silent(self.database, after=20)
            for lost in await abandoned.unanswered(self.database, after=20):
                await settling.retry(self.database, claim_of(lost), SILENT, delay=0, uncertain=True)
            self.orphans += await self.steps.adopt(worker, *self.tasks, *self.orphans)

        @rule(index=st.integers(0, 2), grace=st.sampled_from([0.0, 1e6]), chance=st.integers(0, 3))
        def deadline(self, index: int, grace: float, chance: int) -> None:
            if chance:
                return
            rows = self.do(self.steps.sql("SELECT id FROM image_generations ORDER BY id OFFSET $1 LIMIT 1", index))
            for row in rows:
                self.do(self._overdue(row.id))
            self.do(deadlines.end_overdue(self.database, claimed_grace=grace))

        @invariant()
        def holds(self) -> None:
            if hasattr(self, "tasks"):
                self.do(self.steps.check())

        def teardown(self) -> None:
            try:
                # what has failed already is not hidden by what follows from it
                if hasattr(self, "tasks") and sys.exc_info()[0] is None:
                    self.do(self._everything_ends(), within=300)
            finally:
                self.do(self.database.close())
                self.loop.close()

        async def _everything_ends(self) -> None:
            for worker in self.workers:
                await self.steps.die(worker, ago=30)
            await perfect.everything_ends(self.steps, self.jobs)

    return Line


def test_any_order_of_steps_keeps_the_promises(database_url: str) -> None:
    run_state_machine_as_test(
        machine_of(database_url),
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            # to shrink a failure takes minutes: its steps are printed as they were
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
