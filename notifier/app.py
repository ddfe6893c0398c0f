"""The composition root of the pushing process."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import httpx
import structlog
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from media.store import Media, MediaUnavailable
from messaging.stretches import Stretches
from messaging.tail import Tail
from notifier import studio
from notifier.connections import Connections
from notifier.cursors import Cursors
from notifier.departures import spread
from notifier.handlers import StatusEvents
from notifier.history import History
from notifier.hub import Hub
from notifier.memory import Memory
from notifier.operations import DESCRIPTION, OPERATIONS
from notifier.outlet import Outlets
from notifier.outlook import Outlook
from notifier.pictures import Pictures
from notifier.polls import Polls
from notifier.replays import Replays
from notifier.resumption import Resumption
from notifier.rounds import Rounds
from notifier.routes import Statuses
from notifier.settings import Settings
from notifier.shares import Sharing
from notifier.snapshots import Snapshots
from notifier.sockets import Sockets
from notifier.streams import Streams
from notifier.thumbnails import Thumbnails
from schemas import topics
from storage import queueing
from storage.database import Database, Unavailable
from storage.reading import Reader
from telemetry import metrics
from web.application import application
from web.auth import Verifier
from web.health import Health
from web.shares import Shares

log = structlog.get_logger()

TITLE = "Scenewire: statuses and pictures"
_MEASURE_EVERY = 1.0
_AFTER_A_BUG = 1.0
_LEAVING_SECONDS, _ALL_LEFT_SECONDS = 0.75, 2.5
"""For Kafka's clients to be left at a stop, twice at most, and for everything; what takes longer is cut off."""


class Notifier:
    """The ASGI application, what serves its sockets (past ASGI), and how to send everybody away at a stop."""

    def __init__(
        self,
        http: Starlette,
        sockets: Sockets,
        *,
        connections: Connections,
        polls: Polls,
        streams: Streams,
        health: Health,
        drain_window: float,
        events: StatusEvents,
        memory: Memory,
        replays: Replays,
    ) -> None:
        self._http = http
        self.sockets = sockets
        self.connections = connections
        self.polls = polls
        self.streams = streams
        self._health = health
        self._drain_window = drain_window
        self.events = events
        self.memory = memory
        self.replays = replays

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._http(scope, receive, send)

    async def drain(self) -> None:
        """Send the sockets and streams away and answer the held polls, one after another over the drain window; who
        comes from now on is sent away at once."""
        self._health.stopping()
        leaving: list[Callable[[], None]] = []
        for some in (self.connections, self.streams, self.polls):
            some.refuse_new()
            leaving += some.leaving()
        log.info("draining", clients=len(leaving))
        await spread(leaving, self._drain_window)


def build(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    can_open: Collection[str] | None = None,
    jwks: httpx.AsyncBaseTransport | None = None,
) -> Notifier:
    """The ASGI application; serve it with its `sockets` for `ws`. To be called in the event loop.

    Its lifespan follows the log of status events and closes what it opened. Kafka and Postgres may be away meanwhile.
    `clock` tells the time (seconds since 1970) that tokens are judged by; `can_open` (extensions) are the pictures that
    can be made smaller, by default those that Pillow has a decoder for; `jwks` takes the place of the network for the
    published keys.
    """
    database = Database(settings, application="scenewire-notifier")
    media = Media(settings)
    reader = Reader(database)
    verifier = Verifier(settings, clock=clock, jwks=jwks)
    cursors = Cursors(settings.signing_secrets)
    hub = Hub()
    memory = Memory(events=settings.memory_events, seconds=settings.memory_seconds)
    replays = Replays(
        Stretches(settings, topics.STATUS), cursors, most=settings.replay_events, seconds=settings.replay_timeout
    )
    outlook = Outlook(partial(queueing.queue, database, depth=settings.queue_depth))
    snapshots = Snapshots(
        reader,
        hub,
        Resumption(cursors, memory, replays),
        outlook,
        at_once=settings.snapshots_at_once,
        in_line=settings.snapshots_in_line,
    )
    polls = Polls(hub, limit=settings.long_polls)
    loop = asyncio.get_running_loop()
    outlets = Outlets(settings.stall_timeout, clock=time.monotonic, soon=loop.call_soon)
    rounds = Rounds(interval=settings.ping_interval, timeout=settings.ping_timeout, clock=loop.time)
    connections = Connections(
        hub=hub, snapshots=snapshots, verifier=verifier, outlets=outlets, settings=settings, clock=clock
    )
    streams = Streams(hub=hub, snapshots=snapshots, verifier=verifier, settings=settings, clock=clock)
    tail = Tail(settings, topics.STATUS)

    async def catch_up() -> None:
        polls.renew()
        streams.renew()
        await connections.renew()

    events = StatusEvents(
        tail,
        hub,
        memory,
        cursors,
        look_back=timedelta(seconds=settings.memory_seconds),
        most=settings.memory_events,
        catch_up=catch_up,
    )
    health = Health(patience=settings.health_patience)
    health.depends_on("postgres", database.ping)
    health.depends_on("kafka", events.healthy)
    health.depends_on("pictures", media.readable)
    verifier.report(health)
    health.stall("status events", events.stuck, within=settings.health_stall)
    sockets = health.watch("sockets", within=settings.health_stall)
    sharing = Sharing(Shares(settings.signing_secrets, clock=clock), verifier, life=settings.share_life)
    statuses = Statuses(
        reader=reader,
        outlook=outlook,
        snapshots=snapshots,
        polls=polls,
        verifier=verifier,
        clock=clock,
    )
    history = History(database=database, verifier=verifier)
    thumbnails = Thumbnails(
        media, pixels=settings.thumbnail_pixels, threads=settings.thumbnail_threads, can_open=can_open
    )
    pictures = Pictures(
        reader=reader,
        media=media,
        thumbnails=thumbnails,
        verifier=verifier,
        # as text, and as the consumer has them when it signs an address
        secrets=settings.picture_secrets,
        push_url=settings.push_url,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await database.open()
        following = asyncio.create_task(_follow(events), name="status events")
        tasks = [
            asyncio.create_task(outlets.run(sockets.beat), name="stalls"),
            asyncio.create_task(rounds.run(), name="rounds"),
            asyncio.create_task(_measure(connections, hub), name="measure"),
            asyncio.create_task(verifier.run(), name="jwks"),
            asyncio.create_task(health.run(asyncio.Event(), every=settings.health_look), name="health"),
        ]
        try:
            yield
        finally:
            health.stopping()
            for task in tasks:
                task.cancel()
            # side by side and under one limit: each may take its whole time, with Kafka and Postgres gone
            closing = (
                tail.stop(_LEAVING_SECONDS),
                replays.close(),
                snapshots.close(),
                outlook.close(),
                database.close(),
            )
            leaving = [asyncio.ensure_future(one) for one in closing]
            await asyncio.wait([*leaving, *tasks], timeout=_ALL_LEFT_SECONDS)
            following.cancel()
            await asyncio.wait({following}, timeout=_LEAVING_SECONDS)
            thumbnails.close()

    http = application(
        TITLE,
        settings=settings,
        health=health,
        routes=[
            *statuses.routes(),
            *streams.routes(),
            *history.routes(),
            *pictures.routes(),
            *sharing.routes(),
            *studio.routes(settings),
        ],
        operations=OPERATIONS,
        server_url=settings.push_url,
        description=DESCRIPTION,
        away=(Unavailable, MediaUnavailable),
        lifespan=lifespan,
    )
    return Notifier(
        http,
        Sockets(connections, rounds, settings),
        connections=connections,
        polls=polls,
        streams=streams,
        health=health,
        drain_window=settings.drain_window,
        events=events,
        memory=memory,
        replays=replays,
    )


async def _follow(events: StatusEvents) -> None:
    while True:
        try:
            await events.follow()
            return
        except Exception:
            # a bug of ours must not leave every socket silent
            log.exception("status_events_interrupted")
            await asyncio.sleep(_AFTER_A_BUG)


async def _measure(connections: Connections, hub: Hub) -> None:
    while True:
        hub.tell()
        metrics.gauge("subscriptions", connections.subscriptions)
        await asyncio.sleep(_MEASURE_EVERY)
