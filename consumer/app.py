"""The composition root of a consumer."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable

import httpx
import structlog
from aiohttp.abc import AbstractResolver

from consumer.breaker import Breaker, rules_of
from consumer.destinations import Destinations
from consumer.dispatch import Dispatch
from consumer.drafts import Drafts
from consumer.generation import Generation
from consumer.handlers import Handlers
from consumer.lines import Lines
from consumer.liveness import Undispatched
from consumer.models import Catalogue
from consumer.modelslab import ModelsLab
from consumer.patience import rest
from consumer.settings import ConsumerSettings
from consumer.settlement import Settlement
from consumer.storing import Storing
from consumer.sweep import Sweep
from consumer.work import boot_clock
from consumer.worker import Worker
from media.store import Media, MediaUnavailable
from messaging.lookout import Lookout
from messaging.subscribe import Subscriptions
from schemas import topics
from schemas.words import Lane
from storage import measuring
from storage.database import Database, Unavailable, reachable
from storage.dispatching import Dispatcher
from storage.measuring import Measures
from storage.workers import provide_slots
from telemetry import metrics
from web.health import Health, Pulse

log = structlog.get_logger(__name__)

GROUP = "scene-images"
_LAST_SECONDS = 1.0
"""For what was cancelled at a stop to end."""


class Consumer:
    """One consumer process: `run` until its event is set, then drain."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        provider_transport: httpx.AsyncBaseTransport | None = None,
        picture_transport: httpx.AsyncBaseTransport | None = None,
        picture_resolver: AbstractResolver | None = None,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self.health = Health(patience=settings.health_patience)
        self._lookout = Lookout(settings)
        self.health.witness("postgres", lambda: reachable(settings))
        self.health.witness("kafka", self._kafka_answers, close=self._lookout.close)
        catalogue = Catalogue.load(settings.models_file)
        self._database = Database(settings, application="scenewire-consumer")
        self._media = Media(settings)
        self._provider = ModelsLab(
            base_url=settings.modelslab_base_url,
            api_key=settings.modelslab_api_key,
            submit_timeout=settings.submit_timeout,
            fetch_timeout=settings.fetch_timeout,
            transport=provider_transport,
        )
        self._pictures = httpx.AsyncClient(
            transport=picture_transport
            or Lines(destinations=Destinations(settings.modelslab_base_url, resolver=picture_resolver)),
            timeout=httpx.Timeout(settings.download_timeout, connect=5.0),
        )
        drafts = Drafts(catalogue, webhooks=settings.public_url is not None)
        dispatcher = Dispatcher(
            self._database,
            drafts.next,
            run_deadline=settings.run_deadline,
            bulk_deadline=settings.bulk_deadline,
            models=drafts.models,
            rules=rules_of(settings),
        )
        breaker = Breaker(settings, database=self._database)
        self._worker = Worker(
            settings,
            name=f"{socket.gethostname()}:{os.getpid()}",
            beat=settings.worker_beat,
            life=settings.worker_life,
            held=lambda: list(self._generation.held.values()),
            on_fenced=lambda: self._dispatch.drop_all(),
            on_said=self._pulse("worker").beat,
        )
        dispatching, sweeping = self._pulse("dispatch"), self._pulse("sweep")
        self._dispatch = Dispatch(
            database=self._database,
            dispatcher=dispatcher,
            worker_id=lambda: self._worker.id,
            period=settings.sweep,
            beat=dispatching.beat,
            missed=dispatching.missed,
        )
        settlement = Settlement(
            settings, database=self._database, drafts=drafts, breaker=breaker, slot_freed=self._dispatch.wake
        )
        self._generation = Generation(
            settings,
            database=self._database,
            provider=self._provider,
            settlement=settlement,
            storing=Storing(settings, media=self._media, client=self._pictures),
            slot_freed=self._dispatch.wake,
            clock=clock,
            longest=catalogue.longest,
        )
        self._dispatch.works_with(self._generation, settlement)
        self._sweep = Sweep(
            settings,
            database=self._database,
            worker=self._worker,
            dispatch=self._dispatch,
            settlement=settlement,
            breaker=breaker,
            beat=sweeping.beat,
            missed=sweeping.missed,
        )
        handlers = Handlers(
            database=self._database,
            stop=self._stop,
            deadline=settings.deadline,
            wake=self._dispatch.wake,
            wake_in=self._dispatch.wake_in,
        )
        self.subscriptions = Subscriptions(settings, group=GROUP)
        for lane in Lane:
            self.subscriptions.add(topics.requested(lane), handlers.on_requested(lane))
        for tier in topics.RETRY_TIERS:
            self.subscriptions.add(topics.retry(tier), handlers.on_retry)
        within = settings.health_stall
        self.health.stall("events", self.subscriptions.stuck, within=within, needs=["postgres", "kafka"])
        self.health.stall("records", Undispatched(self._database).stuck, within=within, needs=["postgres"])
        self.health.depends_on("postgres", self._database.ping)
        self.health.depends_on("kafka", self._kafka_is_read)
        self.health.depends_on("media", self._media.writable)

    def _pulse(self, name: str) -> Pulse:
        return self.health.watch(name, within=self._settings.health_stall, needs=["postgres"])

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; Postgres or Kafka being away only pauses it. Raises what it cannot work with."""
        await self._worker.start()
        working = asyncio.create_task(self._work(), name="work")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        looking = asyncio.create_task(self.health.run(self._stop, every=self._settings.health_look), name="health")
        # a process that has ceased to work must not look as if it did: it ends, and is started again
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        await self._drain(working)
        await asyncio.wait({looking}, timeout=_LAST_SECONDS)
        looking.cancel()
        if working.done() and not working.cancelled():
            working.result()

    async def _work(self) -> None:
        await self._worker.registered()
        await self._make_slots()
        await self.subscriptions.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep.run(self._stop), name="sweep")
            group.create_task(self._dispatch.run(self._stop), name="dispatch")
            group.create_task(self._measure(), name="measure")
            group.create_task(self._tidy(), name="tidy")

    async def _drain(self, working: asyncio.Task[None]) -> None:
        # the grace counts from the signal: on a busy machine the way to it takes seconds of its own
        until = time.monotonic() + self._settings.drain
        self.health.stopping()
        self._stop.set()
        found = self._dispatch.phases()
        # side by side: each may take its whole time, with Kafka and Postgres gone. Taking ends before what was taken is
        # handed back.
        await asyncio.gather(self.subscriptions.stop(1.0), asyncio.wait({working}, timeout=2.0))
        working.cancel()
        unanswered = await self._dispatch.drain(max(0.0, until - time.monotonic()))
        (log.warning if unanswered else log.info)("drained", uncertain=unanswered, at_the_signal=found)
        await asyncio.gather(
            self._worker.stop(3.0), *(_closed(one) for one in (self._provider.close(), self._pictures.aclose()))
        )
        # last: it cuts off who still writes
        await _closed(self._database.close(), within=1.0)
        await asyncio.wait({working}, timeout=_LAST_SECONDS)

    async def _make_slots(self) -> None:
        while not self._stop.is_set():
            try:
                await provide_slots(self._database, self._settings.provider_slots)
                return
            except Unavailable:
                await asyncio.sleep(self._settings.sweep)

    async def _kafka_answers(self) -> None:
        await self._lookout.logs(())

    async def _kafka_is_read(self) -> None:
        await self._kafka_answers()
        for one in await self.subscriptions.progress():
            if not one.connected:
                raise ConnectionError(f"{one.topic} is not subscribed yet")
            if one.stuck is not None:
                raise ConnectionError(f"{one.topic}: {one.stuck}")

    async def _tidy(self) -> None:
        while not self._stop.is_set():
            try:
                removed = await self._media.tidy(older_than=self._settings.tidy_after)
                if removed:
                    log.info("media_tidied", removed=removed)
            except MediaUnavailable as error:
                log.warning("media_not_tidied", error=str(error))
            except Exception:
                log.exception("tidying_failed")
            await rest(self._stop, self._settings.tidy)

    async def _measure(self) -> None:
        while not self._stop.is_set():
            for phase, count in self._dispatch.phases().items():
                metrics.gauge("running", count, stage=phase)
            try:
                _show(await measuring.measure(self._database))
            except Unavailable:
                # said by `dependency_up` already
                pass
            except Exception:
                log.exception("measuring_failed")
            await rest(self._stop, self._settings.measure)


async def _closed(closing: Awaitable[object], within: float = 2.0) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            await closing


def _show(line: Measures) -> None:
    metrics.gauge("workers_alive", line.workers_alive)
    for state, count in line.slots.items():
        metrics.gauge("slots", count, state=state)
    for lane, count in line.waiting.items():
        metrics.gauge("waiting", count, lane=lane)
        metrics.gauge("oldest_waiting_seconds", line.oldest_waiting[lane], lane=lane)


def build(
    settings: ConsumerSettings,
    *,
    provider_transport: httpx.AsyncBaseTransport | None = None,
    picture_transport: httpx.AsyncBaseTransport | None = None,
    picture_resolver: AbstractResolver | None = None,
    clock: Callable[[], float] = boot_clock,
) -> Consumer:
    """A consumer that has not connected to anything yet; what is not ours enters through the keyword arguments.

    `picture_transport` answers in place of the hosts that pictures lie on, `picture_resolver` in place of the system's
    resolver of their names. `clock` (seconds) judges how old a sending mark is.
    Raises `consumer.models.CatalogueError` for a models' file and ValueError for addresses that cannot be used.
    """
    return Consumer(
        settings,
        provider_transport=provider_transport,
        picture_transport=picture_transport,
        picture_resolver=picture_resolver,
        clock=clock,
    )
