"""The one way to subscribe. Chosen against FastStream's defaults, each for a reason:

- `batch=True` and `AckPolicy.MANUAL` on the subscriber itself: the default commits before the handler has run; a policy
  on the broker, or `max_workers`, silently drops topics and loses commits at a stop.
- one topic and one group per subscriber: a commit covers all positions of its consumer, so nothing else may share it.
- `earliest`: the default skips what was published before the group first committed.
- our own parser: FastStream's decodes headers and drops, as if handled, an event whose headers are not UTF-8.
- `max_poll_interval_ms` of 24 h: a handler that waits for Postgres keeps its partitions.

An event can be delivered again (after a crash, a rebalance, a commit that failed): handlers must be idempotent.

A reader may go silent while Kafka answers (aio-libs/aiokafka#1037, #712), and a Kafka that lost its data comes back
without topics, groups and offsets. So each `kafka_stall` seconds Kafka itself is asked how the topics stand: what is
missing is made, and a reader that stands still, or reads a log that is no more, is made anew.
"""

import asyncio
import contextlib
import logging

import structlog
from faststream.kafka import KafkaBroker

from messaging.lookout import Lookout
from messaging.provision import KafkaAway, provide
from messaging.security import faststream_security
from messaging.settings import KafkaSettings
from messaging.subscription import Handler, Progress, Stopping, Subscription

__all__ = ["Handler", "Progress", "Stopping", "Subscriptions"]

log = structlog.get_logger()

_WATCH_SECONDS = 2.0
"""For a look that is under way to end at a stop."""


class Subscriptions:
    """A process's subscriptions. `start` returns at once; each connects when Kafka is there, and again after a loss."""

    def __init__(self, settings: KafkaSettings, *, group: str) -> None:
        self._settings = settings
        self._group = group
        self._stopping = asyncio.Event()
        self._subscriptions: list[Subscription] = []
        self._lookout = Lookout(settings)
        self._watching: asyncio.Task[None] | None = None
        self._broker = KafkaBroker(
            settings.kafka_servers.split(","),
            security=faststream_security(settings),
            client_id=group,
            # neither a producer nor an admin client: topics are provisioned, events go through the outbox
            consumer_only=True,
            allow_auto_create_topics=False,
            apply_types=False,
            graceful_timeout=None,
            logger=_logger(),
            log_level=logging.DEBUG,
        )

    def add(self, topic: str, handler: Handler) -> None:
        """Give each batch of `topic` (a logical name) to `handler`, one batch at a time.

        It returns: the batch is acknowledged. It raises `Stopping`: the batch is not, and no further batch follows.
        It raises anything else: logged, and called again with the same batch after a growing pause, for ever.
        """
        self._subscriptions.append(
            Subscription(self._settings, self._broker, self._group, topic, handler, self._stopping)
        )

    async def start(self) -> None:
        await self._broker.connect()
        for subscription in self._subscriptions:
            subscription.start()
        self._watching = asyncio.create_task(self._watch(), name="watch subscriptions")

    async def stop(self, timeout: float) -> None:
        """Take nothing more, let running handlers end within `timeout` seconds, then cancel what is left.

        Takes at most 5 s more than `timeout`, also with Kafka gone. What was not acknowledged is delivered again.
        """
        self._stopping.set()
        await asyncio.gather(self._stop_watching(), *(one.stop(timeout) for one in self._subscriptions))

    async def progress(self) -> list[Progress]:
        """One entry a topic; never waits for Kafka."""
        return [subscription.progress() for subscription in self._subscriptions]

    async def stuck(self) -> str | None:
        """Which topic is not worked off though Kafka answers, and why; None while all goes on."""
        told = [f"{one.topic}: {one.stuck}" for one in await self.progress() if one.stuck is not None]
        return "; ".join(told) or None

    async def _watch(self) -> None:
        topics = [subscription.topic for subscription in self._subscriptions]
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.kafka_stall):
                    await self._stopping.wait()
                    return
            try:
                await self._look(topics)
            except Exception:
                # a bug of ours must not end the watch
                log.exception("kafka_watch_failed")

    async def _look(self, topics: list[str]) -> None:
        try:
            logs = await self._lookout.logs(topics)
            if missing := [topic for topic in topics if topic not in logs]:
                log.warning("topics_missing", topics=missing)
                await provide(self._settings, missing)
                logs = await self._lookout.logs(topics)
            ends = await self._lookout.ends(topics, committed=True)
        except KafkaAway as error:
            log.info("kafka_not_asked", error=str(error))
            for subscription in self._subscriptions:
                subscription.excuse()
            return
        # side by side: each takes its time to leave its group
        await asyncio.gather(*(one.look(logs.get(one.topic), ends.get(one.topic, {})) for one in self._subscriptions))

    async def _stop_watching(self) -> None:
        watching = self._watching
        if watching is not None:
            # not ended at once: it may be making a reader anew, which would be left half open
            await asyncio.wait({watching}, timeout=_WATCH_SECONDS)
            watching.cancel()
            await asyncio.wait({watching}, timeout=_WATCH_SECONDS)
        await self._lookout.close()


def _logger() -> logging.Logger:
    """FastStream's own logger prints to stderr in a form of its own."""
    logger = logging.getLogger("messaging.faststream")
    logger.addFilter(_worth_saying)
    return logger


def _worth_saying(record: logging.LogRecord) -> bool:
    # said at each start: topics are provisioned here, and that is meant
    return not str(record.msg).startswith("Auto create topics is disabled") and record.levelno >= logging.WARNING
