"""Each second: take over from the dead, name what is uncertain, end what is overdue, admit what lost its event.

Every consumer sweeps; each step locks what it changes, so several at once are harmless.
"""

import asyncio
import math
import time
from collections.abc import Callable

import structlog

from consumer.breaker import Breaker
from consumer.dispatch import Dispatch
from consumer.patience import rest
from consumer.settings import ConsumerSettings
from consumer.settlement import Settlement
from consumer.worker import Worker
from storage import abandoned, admitting, deadlines, kept, workers
from storage.database import Database, Unavailable
from telemetry import metrics

log = structlog.get_logger(__name__)

_HOUSEKEEPING_SECONDS = 60.0
_PAST_IT = 0.01
"""Seconds: to look when it is so, not just before."""
_KEYS_KEPT_SECONDS = 48 * 3600.0
_WORKERS_KEPT_SECONDS = 3600.0


class Sweep:
    """One step is `once`; `run` repeats it."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        database: Database,
        worker: Worker,
        dispatch: Dispatch,
        settlement: Settlement,
        breaker: Breaker,
        beat: Callable[[], None] = lambda: None,
        missed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._worker = worker
        self._dispatch = dispatch
        self._settlement = settlement
        self._breaker = breaker
        self._beat, self._missed = beat, missed
        self._kept_house_at: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until `stop` is set; Postgres being away only pauses it."""
        while not stop.is_set():
            pause = self._settings.sweep
            try:
                await self.once()
                self._beat()
                pause = min(pause, await self._until_somebody_is_silent())
                metrics.count("sweeps", outcome="done")
            except Unavailable as error:
                self._missed(error)
                metrics.count("sweeps", outcome="unavailable")
                log.warning("sweep_waits_for_postgres", error=str(error))
            except Exception as error:
                self._missed(error)
                metrics.count("sweeps", outcome="failed")
                log.exception("sweep_failed")
            await rest(stop, pause)

    async def once(self) -> None:
        """One sweep. Raises `Unavailable`."""
        settings = self._settings
        for completed in await kept.complete_replayed(self._database):
            metrics.count("completed", lane=completed.lane)
        # asked last: a Postgres that stood still for a while answers the question before and is caught by the other
        judge = await workers.postgres_older_than(self._database, settings.worker_life) and self._worker.may_judge
        for claimed in await self._dispatch.take_over(judge=judge):
            await self._settlement.give_up_unanswered(claimed)
        if judge:
            await self._name_the_uncertain()
            await self._dispatch.adopt(keep_trying=settings.late_storing)
        # before anybody is ended: at a close deadlines move first
        await self._breaker.sweep()
        ended = await deadlines.end_overdue(self._database, claimed_grace=settings.submit_timeout)
        overdue = await admitting.admit_overdue(self._database, after=settings.admit_after)
        if ended or overdue:
            self._dispatch.wake()
        await self._keep_house()

    async def _until_somebody_is_silent(self) -> float:
        """Whoever lives says so long before: this is short only for the dead, and saves them up to a whole period."""
        silence = await workers.next_silence(self._database)
        return math.inf if silence is None else silence + _PAST_IT

    async def _name_the_uncertain(self) -> None:
        after = self._settings.uncertain_after
        # first, so that none of them comes back while its work is called lost (W4)
        await workers.fence_silent(self._database, after=after)
        for claimed in await abandoned.unanswered(self._database, after=after + self._settings.webhook_grace):
            await self._settlement.give_up_unanswered(claimed)

    async def _keep_house(self) -> None:
        now = time.monotonic()
        if self._kept_house_at is not None and now - self._kept_house_at < _HOUSEKEEPING_SECONDS:
            return
        await workers.provide_slots(self._database, self._settings.provider_slots)
        await workers.forget_old(self._database, after=_WORKERS_KEPT_SECONDS)
        await deadlines.purge_keys(self._database, after=_KEYS_KEPT_SECONDS)
        self._kept_house_at = now
