"""Outbox to Kafka (PIPELINE R). Many may run, one is active: the one whose connection holds the lock.

A row is deleted after Kafka confirmed it, so an event can be sent twice and is never lost. Within a key the order of
the rows holds, except across a takeover, where the last batch may come again: receivers go by `sequence`.
A row that Kafka can never take (too large, a topic nobody lists) goes to `dead_letters`: it must not hold up the rest.

It is healthy as a standby and with Kafka or Postgres away; not when the lowest row stays the same although both answer.
"""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import structlog

from messaging.lookout import Lookout
from messaging.provision import PROVIDE_SECONDS, KafkaAway, provide
from messaging.sender import MissingTopic, Outgoing, Refused, Sender, SendFailed
from producer.relay_settings import RelaySettings
from schemas import topics
from schemas.events import CONTENT_TYPE
from storage.database import Unavailable, reachable
from storage.outbox import OutboxReader, OutboxRow
from telemetry import logs, metrics, traces
from telemetry.settings import load
from web import serving
from web.health import Health

log = structlog.get_logger()

CreateTopic = Callable[[topics.Topic], Awaitable[object]]

_FIRST_BACKOFF_SECONDS = 0.1
_NOT_ASKED = "not asked yet"
_COUNT_SECONDS = 5.0
"""Between two counts of a backlog."""


class Away(Exception):
    """A dependency of the relay does not answer."""


class Relay:
    """The service: `run` until its event is set; no failure of Postgres or Kafka ends it before."""

    def __init__(
        self,
        settings: RelaySettings,
        *,
        outbox: OutboxReader,
        sender: Sender,
        create_topic: CreateTopic,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._sender = sender
        self._create_topic = create_topic
        self._beat = beat
        self._stop = asyncio.Event()
        self._trouble = {"postgres": _NOT_ASKED}
        self._counted_at = 0.0
        self._lowest: int | None = None
        self._lowest_since = 0.0

    async def check(self, dependency: str) -> None:
        """Raise `Away` while `dependency` ("postgres" or "kafka") keeps the relay from its work."""
        if dependency in self._trouble:
            raise Away(self._trouble[dependency])

    async def stuck(self) -> str | None:
        """That the lowest row stays where it is, and why, as far as is known; None while rows go, or none is there."""
        since = time.monotonic() - self._lowest_since
        # a row that was only just read is no sign of anything
        if self._lowest is None or since < self._settings.relay_poll + self._settings.kafka_send_timeout:
            return None
        return f"the lowest row of the outbox has not gone for {since:.0f} s" + "".join(
            f"; {dependency}: {trouble}" for dependency, trouble in self._trouble.items()
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Stand by, take over, relay; after a failure from the beginning, with a new producer and a new connection."""
        self._stop = stop
        waking = asyncio.create_task(self._wake_at_stop(), name="wake at stop")
        try:
            await self._run()
        finally:
            waking.cancel()

    async def _wake_at_stop(self) -> None:
        await self._stop.wait()
        self._outbox.wake()

    async def _run(self) -> None:
        stop = self._stop
        backoff = _FIRST_BACKOFF_SECONDS
        while not stop.is_set():
            try:
                await self._outbox.open()
                await self._stand_by()
                while not stop.is_set():
                    await self._step()
                    backoff = _FIRST_BACKOFF_SECONDS
            except Unavailable as error:
                self._interrupted("postgres", error)
            except (SendFailed, KafkaAway) as error:
                metrics.count("outbox_send_failures")
                self._interrupted("kafka", error)
            finally:
                metrics.gauge("relay_active", 0)
                # in this order: nothing this producer still holds may be written once another relay has the lock
                await self._sender.discard()
                await self._outbox.close()
            await self._pause(backoff)
            backoff = min(backoff * 2, self._settings.relay_backoff)

    async def _stand_by(self) -> None:
        while not self._stop.is_set():
            self._beat()
            active = await self._outbox.acquire()
            self._trouble.pop("postgres", None)
            if active:
                metrics.gauge("relay_active", 1)
                self._trouble.setdefault("kafka", _NOT_ASKED)
                self._look_at(await self._outbox.lowest(1))
                # a relay that cannot reach Kafka gives the lock back: another may
                await self._sender.start()
                return
            # whoever holds the lock answers for the outbox, and for Kafka
            self._lowest = None
            self._trouble.pop("kafka", None)
            await self._pause(self._settings.relay_poll)

    async def _step(self) -> None:
        self._beat()
        rows = await self._outbox.lowest(self._settings.relay_batch)
        self._look_at(rows)
        await self._count(rows)
        if rows:
            await self._send(rows)
        # only now: one that connects and cannot send is not well
        if self._trouble.pop("kafka", None) is not None:
            log.info("relay_active")
        if not rows and not self._stop.is_set():
            await self._outbox.wait(self._settings.relay_poll)

    def _look_at(self, rows: Sequence[OutboxRow]) -> None:
        metrics.gauge("outbox_oldest_seconds", rows[0].age if rows else 0.0)
        lowest = rows[0].id if rows else None
        if lowest != self._lowest:
            self._lowest, self._lowest_since = lowest, time.monotonic()

    async def _send(self, rows: Sequence[OutboxRow]) -> None:
        started = time.monotonic()
        try:
            await self._sender.send([_outgoing(row) for row in rows])
        except MissingTopic as error:
            await self._provide(error.topic, rows)
        except Refused as error:
            # somebody in this batch can never be sent: who, shows when each goes alone
            if len(rows) > 1:
                for row in rows:
                    await self._send([row])
            else:
                await self._bury(rows[0], "not_sendable", str(error))
        else:
            await self._outbox.delete([row.id for row in rows])
            seconds = time.monotonic() - started
            for topic, count in Counter(row.topic for row in rows).items():
                metrics.count("outbox_sent", count, topic=topic)
            for row in rows:
                metrics.observe("outbox_seconds", row.age + seconds)

    async def _provide(self, name: str, rows: Sequence[OutboxRow]) -> None:
        """Make the topic that is missing; the rows are still there and come with the next step."""
        topic = topics.BY_NAME.get(name)
        if topic is not None:
            log.warning("topic_missing", topic=name)
            await self._create_topic(topic)
            return
        for row in rows:
            if row.topic == name:
                await self._bury(row, "unknown_topic", f"{name} is not a topic of schemas/topics.py")

    async def _bury(self, row: OutboxRow, code: str, message: str) -> None:
        log.error("outbox_row_buried", outbox_id=row.id, topic=row.topic, key=row.key, bytes=len(row.body), code=code)
        await self._outbox.bury(row.id, code, message)

    async def _count(self, rows: Sequence[OutboxRow]) -> None:
        if len(rows) < self._settings.relay_batch:
            metrics.gauge("outbox_rows", len(rows))
        elif time.monotonic() - self._counted_at > _COUNT_SECONDS:
            metrics.gauge("outbox_rows", await self._outbox.count())
            self._counted_at = time.monotonic()

    def _interrupted(self, dependency: str, error: Exception) -> None:
        if self._trouble.get(dependency, _NOT_ASKED) == _NOT_ASKED:
            log.warning("relay_interrupted", dependency=dependency, error=str(error))
        self._trouble[dependency] = str(error)

    async def _pause(self, seconds: float) -> None:
        self._beat()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()


def _outgoing(row: OutboxRow) -> Outgoing:
    if row.original is not None:
        # sent again byte for byte: what it is called is its first sender's business
        return Outgoing(row.topic, row.original.key, row.body, row.original.headers)
    return Outgoing(row.topic, row.key, row.body, {"content-type": CONTENT_TYPE, **row.headers})


def build(
    settings: RelaySettings, *, create_topic: CreateTopic | None = None, sender: Sender | None = None
) -> tuple[Relay, Health]:
    """The relay and the health it reports to; nothing is connected yet."""

    async def provided(topic: topics.Topic) -> None:
        await provide(settings, [topic.name])

    lookout = Lookout(settings)

    async def takes_events() -> None:
        # a partition without leader, or with too few replicas in sync, takes nothing: no fault of the relay
        for name, found in (await lookout.logs(topics.BY_NAME)).items():
            if not found.whole:
                raise KafkaAway(f"{name} is not whole")

    health = Health(patience=settings.health_patience)
    health.witness("postgres", lambda: reachable(settings))
    health.witness("kafka", takes_events, close=lookout.close)
    # the longest that a single wait of the loop may take, and as much again
    longest = 2 * (settings.kafka_send_timeout + settings.database_timeout + PROVIDE_SECONDS)
    pulse = health.watch("relay", within=max(longest, settings.health_stall), needs=["postgres", "kafka"])
    relay = Relay(
        settings,
        outbox=OutboxReader(settings, silence=longest),
        sender=sender or Sender(settings),
        create_topic=create_topic or provided,
        beat=pulse.beat,
    )
    health.stall("outbox", relay.stuck, within=settings.health_stall, needs=["postgres", "kafka"])
    health.depends_on("postgres", lambda: relay.check("postgres"))
    health.depends_on("kafka", lambda: relay.check("kafka"))
    return relay, health


async def relay_until(stop: asyncio.Event, relay: Relay, *, grace: float) -> None:
    """Run `relay` until `stop` is set, let it finish its step within `grace` seconds, then cut it off."""
    running = asyncio.create_task(relay.run(stop), name="relay")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({running}, timeout=grace)
    finally:
        stopped.cancel()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def main() -> int:
    arguments = serving.parser(
        "producer.relay", "Sends what is in the outbox to Kafka; serves its health.", port=8710
    ).parse_args()
    settings = load(RelaySettings)
    logs.configure(settings, service="relay")
    traces.configure("relay")

    async def relay_and_serve(stop: asyncio.Event) -> None:
        bound = serving.bind(arguments.host, arguments.port)
        relay, health = build(settings)
        async with asyncio.TaskGroup() as group:
            group.create_task(serving.serve(health.application(), bound, stop))
            group.create_task(relay_until(stop, relay, grace=settings.relay_grace))
            group.create_task(health.run(stop, every=settings.health_look))

    return serving.run(relay_and_serve, stop_within=settings.relay_stop_within)


if __name__ == "__main__":
    sys.exit(main())
