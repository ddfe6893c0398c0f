"""The loop that gives due records to free slots, and the tasks it started (PIPELINE D, X).

Woken by an admission, a freed slot, a due retry, and by itself each second.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable
from uuid import UUID

import structlog

from consumer.generation import Generation
from consumer.settlement import Settlement, claim_of
from consumer.work import Phase, Work
from storage import abandoned, kept, takeovers
from storage.database import Database, Unavailable
from storage.dispatching import Claimed, Dispatcher
from telemetry import metrics

log = structlog.get_logger(__name__)

_CLAIM_LIMIT = 200
_TICK = 0.02
"""Seconds: retries that fall due within so much of each other are one look."""


class Dispatch:
    """Claims for this worker and runs what it claimed. `worker_id` may change (a fenced worker takes a new one)."""

    def __init__(
        self,
        *,
        database: Database,
        dispatcher: Dispatcher,
        worker_id: Callable[[], UUID],
        period: float,
        beat: Callable[[], None] = lambda: None,
        missed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._worker_id = worker_id
        self._period = period
        self._beat, self._missed = beat, missed
        self._generation: Generation | None = None
        self._settlement: Settlement | None = None
        self._wanted = asyncio.Event()
        self._ticks: set[int] = set()
        self._works: dict[asyncio.Task[None], Work] = {}
        # between a claim's commit and its task: who asks what is claimed without a task waits for that
        self._claiming = asyncio.Lock()

    def works_with(self, generation: Generation, settlement: Settlement) -> None:
        """Tell who runs the claims and who ends them; before `run`. They in turn wake this loop."""
        self._generation = generation
        self._settlement = settlement

    def wake(self) -> None:
        """There may be something due for a free slot."""
        self._wanted.set()

    def wake_in(self, seconds: float) -> None:
        """The same after `seconds`, or a moment later: a retry is due then, and often others with it."""
        loop = asyncio.get_running_loop()
        tick = math.ceil((loop.time() + seconds) / _TICK)
        if tick not in self._ticks:
            self._ticks.add(tick)
            loop.call_at(tick * _TICK, self._strike, tick)

    def _strike(self, tick: int) -> None:
        self._ticks.discard(tick)
        self._wanted.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Dispatch until `stop` is set; Postgres being away only pauses it."""
        while not stop.is_set():
            self._wanted.clear()
            claims = 0
            try:
                async with self._claiming:
                    claims = self._take(await self._dispatcher.claim(self._worker_id(), limit=_CLAIM_LIMIT))
                self._beat()
            except Unavailable as error:
                self._missed(error)
                log.warning("dispatch_waits_for_postgres", error=str(error))
            except Exception as error:
                self._missed(error)
                log.exception("dispatch_failed")
            if claims < _CLAIM_LIMIT:
                await self._wait(stop)

    async def take_over(self, *, judge: bool) -> list[Claimed]:
        """Go on with what lies about or died with its worker (`judge`), and with claims of ours that have no task.

        Gives those of ours that were sent and have nobody who waits for the answer. Raises `Unavailable`.
        """
        async with self._claiming:
            taken = await takeovers.take_over(self._database, self._worker_id(), judge=judge)
            self._take(taken.resumed)
            tokens = [work.claimed.claim_token for work in self._works.values()]
            forgotten = await takeovers.forgotten(self._database, self._worker_id(), tokens)
            lost = [one for one in forgotten if one.sent and one.provider_request_id is None and not one.output_urls]
            self._take(one for one in forgotten if one not in lost)
        if forgotten:
            log.warning("claims_found_again", records=len(forgotten), unanswered=len(lost))
        if taken.resumed or taken.released:
            metrics.count("takeovers", len(taken.resumed) + taken.released)
            log.info("taken_over", resumed=len(taken.resumed), released=taken.released)
        if taken.released:
            self.wake()
        return lost

    async def adopt(self, *, keep_trying: float) -> None:
        """Follow attempts of ended records that nobody follows; see `abandoned.adopt_orphans`. Raises `Unavailable`."""
        async with self._claiming:
            tokens = [work.claimed.claim_token for work in self._works.values()]
            orphans = await abandoned.adopt_orphans(self._database, self._worker_id(), tokens, keep_trying=keep_trying)
            self.follow(orphans)

    def _take(self, claims: Iterable[Claimed]) -> int:
        count = 0
        for claimed in claims:
            count += 1
            metrics.count("dispatched", lane=claimed.lane)
            work = Work(claimed)
            self._track(asyncio.create_task(self._run(work), name=f"generation {claimed.record_id}"), work)
        return count

    def follow(self, claims: Iterable[Claimed]) -> None:
        """Start following attempts whose records have ended."""
        assert self._generation is not None
        for claimed in claims:
            work = Work(claimed, Phase.POLLING)
            self._track(asyncio.create_task(self._generation.late.follow_ended(claimed)), work)

    def drop_all(self) -> None:
        """Others took us for dead: end every task but open submits, whose answers only we can learn (F4), and what
        settles: without its claim it writes nothing."""
        self._cancel(lambda work: work.phase not in (Phase.SUBMITTING, Phase.SETTLING))

    async def drain(self, grace: float) -> int:
        """Stop as PIPELINE X1; gives the number of submits that were left without an answer.

        What is not sent or can be resumed is handed back at once; open submits and storing get `grace` seconds.
        """
        self._cancel(lambda work: work.phase in (Phase.STARTING, Phase.POLLING))
        pending = {task for task, work in self._works.items() if work.phase not in (Phase.STARTING, Phase.POLLING)}
        deadline = asyncio.get_running_loop().time() + grace
        while pending and (left := deadline - asyncio.get_running_loop().time()) > 0:
            # a submit that got its id goes on to poll: that can be handed back as well
            _, pending = await asyncio.wait(pending, timeout=min(left, 0.1))
            self._cancel(lambda work: work.phase is Phase.POLLING)
        unanswered = [work for work in self._works.values() if work.unanswered]
        self._cancel(lambda work: True)
        if self._works:
            await asyncio.wait(list(self._works), timeout=1.0)
        assert self._settlement is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await asyncio.gather(
                    *(self._settlement.give_up_unanswered(work.claimed) for work in unanswered),
                    return_exceptions=True,
                )
        return len(unanswered)

    def phases(self) -> dict[str, int]:
        """How many tasks are at what."""
        counts = {phase.value: 0 for phase in Phase}
        for work in self._works.values():
            counts[work.phase.value] += 1
        return counts

    def _track(self, task: asyncio.Task[None], work: Work) -> None:
        self._works[task] = work
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._works.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("generation_task_failed", exc_info=task.exception())
        self._wanted.set()

    async def _run(self, work: Work) -> None:
        assert self._generation is not None
        try:
            await self._generation.run(work)
        except BaseException:
            # of an open submit only we may learn the answer
            if not work.unanswered:
                # a claim lives only while its task lives (W1)
                await self._hand_back(work)
            raise

    async def _hand_back(self, work: Work) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2.0):
                await takeovers.hand_back(
                    self._database, [work.claimed.claim_token], nothing_sent=work.phase is Phase.STARTING
                )
                # of a record that has ended meanwhile the attempt alone is held: a stop is no death (W5)
                await kept.let_go(self._database, claim_of(work.claimed))

    def _cancel(self, which: Callable[[Work], bool]) -> None:
        for task, work in list(self._works.items()):
            if which(work):
                task.cancel()

    async def _wait(self, stop: asyncio.Event) -> None:
        stopped = asyncio.ensure_future(stop.wait())
        wanted = asyncio.ensure_future(self._wanted.wait())
        try:
            await asyncio.wait({stopped, wanted}, timeout=self._period, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            wanted.cancel()
