"""The one way to subscribe. Chosen against FastStream's defaults, each for a reason:

- `batch=True` and `AckPolicy.MANUAL` on the subscriber itself: the default commits before the handler has run; a policy
  on the broker, or `max_workers`, silently drops topics and loses commits at a stop.
- one topic and one group per subscriber: a commit covers all positions of its consumer, so nothing else may share it.
- `earliest`: the default skips what was published before the group first committed.
- our own parser: FastStream's decodes headers and drops, as if handled, an event whose headers are not UTF-8.
- `max_poll_interval_ms` of 24 h: a handler that waits for Postgres keeps its partitions.

An event can be delivered again (after a crash, a rebalance, a commit that failed): handlers must be idempotent.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import structlog
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage, KafkaMessage

from messaging.closing import stop_client
from messaging.deliveries import Delivery, delivery
from messaging.names import real_group, real_topic
from messaging.security import faststream_security
from messaging.settings import KafkaSettings

log = structlog.get_logger()

Handler = Callable[[list[Delivery]], Awaitable[None]]

_MAX_RECORDS = 500
_DAY_MS = 24 * 60 * 60 * 1000
_FIRST_BACKOFF_SECONDS = 0.2
_CLOSE_SECONDS = 2.0


class Stopping(Exception):
    """Raised by a handler that will not finish: its events stay unacknowledged, whoever reads next gets them."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How one subscription stands. `lag` counts events not yet handed over, null before the first assignment."""

    topic: str
    connected: bool
    partitions: int
    lag: int | None
    polled_seconds_ago: float | None
    handling_seconds: float | None


class Subscriptions:
    """A process's subscriptions. `start` returns at once; each connects when Kafka is there, and again after a loss."""

    def __init__(self, settings: KafkaSettings, *, group: str) -> None:
        self._settings = settings
        self._group = group
        self._stopping = asyncio.Event()
        self._subscriptions: list[_Subscription] = []
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
            _Subscription(self._settings, self._broker, self._group, topic, handler, self._stopping)
        )

    async def start(self) -> None:
        await self._broker.connect()
        for subscription in self._subscriptions:
            subscription.start()

    async def stop(self, timeout: float) -> None:
        """Take nothing more, let running handlers end within `timeout` seconds, then cancel what is left.

        Takes at most 5 s more than `timeout`, also with Kafka gone. What was not acknowledged is delivered again.
        """
        self._stopping.set()
        await asyncio.gather(*(subscription.stop(timeout) for subscription in self._subscriptions))

    async def progress(self) -> list[Progress]:
        """One entry a topic; never waits for Kafka."""
        return [subscription.progress() for subscription in self._subscriptions]


class _Subscription:
    def __init__(
        self,
        settings: KafkaSettings,
        broker: KafkaBroker,
        group: str,
        topic: str,
        handler: Handler,
        stopping: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._handler = handler
        self._stopping = stopping
        self._starting: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._handling_since: float | None = None
        self._connected = False
        self._subscriber = broker.subscriber(
            real_topic(settings, topic),
            group_id=real_group(settings, group, topic),
            batch=True,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            # of other services' transactions only what they committed
            isolation_level="read_committed",
            max_poll_interval_ms=_DAY_MS,
            session_timeout_ms=round(settings.kafka_session * 1000),
            heartbeat_interval_ms=round(settings.kafka_session * 1000 / 3),
            no_reply=True,
            parser=self._parse,
            decoder=_leave_alone,
        )
        # FastStream's own rests without polling after each empty poll, which costs latency, idle CPU and nothing else
        self._subscriber.get_msg = self._next_batch  # type: ignore[method-assign]
        self._subscriber(self._on_batch)

    def start(self) -> None:
        self._starting = asyncio.create_task(self._connect(), name=f"connect {self._topic}")

    async def _connect(self) -> None:
        backoff = _Backoff(self._settings.kafka_backoff)
        while not self._stopping.is_set():
            try:
                await self._subscriber.start()
                self._connected = True
                log.info("kafka_subscribed", topic=self._topic)
                return
            except (KafkaError, OSError) as error:
                log.warning("kafka_subscribe_failed", topic=self._topic, error=type(error).__name__)
                await self._close()
            await backoff.pause(self._stopping)

    async def stop(self, timeout: float) -> None:
        # the consume loop looks at this before each poll and each batch
        self._subscriber.running = False
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting], timeout=_CLOSE_SECONDS)
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            if self._handling_since is not None:
                log.warning("kafka_handler_cut_off", topic=self._topic)
        for task in self._subscriber.tasks:
            task.cancel()
        await self._close()

    async def _close(self) -> None:
        self._connected = False
        consumer: Any = self._subscriber.consumer
        if consumer is not None:
            await stop_client(consumer._client, self._subscriber.stop(), seconds=_CLOSE_SECONDS, what=self._topic)
            self._subscriber.consumer = None

    def progress(self) -> Progress:
        consumer: Any = self._subscriber.consumer
        assigned = sorted(consumer.assignment()) if consumer is not None else []
        now = time.monotonic()
        polls = [at for tp in assigned if (at := consumer.last_poll_timestamp(tp)) is not None]
        behind = [_behind(consumer, tp) for tp in assigned]
        return Progress(
            topic=self._topic,
            connected=self._connected,
            partitions=len(assigned),
            lag=sum(behind) if behind else None,
            polled_seconds_ago=max(0.0, time.time() - max(polls) / 1000) if polls else None,
            handling_seconds=None if self._handling_since is None else now - self._handling_since,
        )

    async def _next_batch(self, consumer: Any) -> tuple[ConsumerRecord[bytes, bytes], ...]:
        """What has come, as soon as it comes; empty after `kafka_poll` seconds."""
        batches = await consumer.getmany(timeout_ms=round(self._settings.kafka_poll * 1000), max_records=_MAX_RECORDS)
        return tuple(chain.from_iterable(batches.values()))

    async def _parse(self, records: tuple[ConsumerRecord[bytes, bytes], ...]) -> KafkaMessage:
        assert self._subscriber.consumer is not None
        return KafkaAckableMessage(
            body=b"",
            raw_message=records,
            message_id=f"{records[0].partition}-{records[0].offset}",
            consumer=self._subscriber.consumer,
        )

    async def _on_batch(self, message: KafkaMessage) -> None:
        if self._stopping.is_set():
            return
        records = message.raw_message
        assert isinstance(records, tuple)
        self._idle.clear()
        self._handling_since = time.monotonic()
        try:
            handled = await self._handle([delivery(self._settings, record) for record in records])
            self._handling_since = None
            if handled:
                await self._acknowledge(message)
        finally:
            self._handling_since = None
            self._idle.set()

    async def _handle(self, batch: list[Delivery]) -> bool:
        backoff = _Backoff(self._settings.kafka_backoff)
        while True:
            try:
                await self._handler(batch)
                return True
            except Stopping:
                # a later commit would cover these events too: nothing more may be handled here
                self._subscriber.running = False
                return False
            except Exception:
                log.exception("kafka_handler_failed", topic=self._topic, events=len(batch))
            await backoff.pause(self._stopping)
            if self._stopping.is_set():
                self._subscriber.running = False
                return False

    async def _acknowledge(self, message: KafkaMessage) -> None:
        """A commit that fails does no harm: the next one covers it, or whoever gets the partition reads again."""
        try:
            async with asyncio.timeout(self._settings.kafka_session):
                await message.ack()
        except (KafkaError, OSError, TimeoutError) as error:
            log.info("kafka_commit_failed", topic=self._topic, error=type(error).__name__)


class _Backoff:
    """Pauses of 0.2 s, doubling up to `most` seconds, cut short by the stop."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._next = min(_FIRST_BACKOFF_SECONDS, most)

    async def pause(self, stopping: asyncio.Event) -> None:
        seconds, self._next = self._next, min(self._next * 2, self._most)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stopping.wait()


def _logger() -> logging.Logger:
    """FastStream's own logger prints to stderr in a form of its own."""
    logger = logging.getLogger("messaging.faststream")
    logger.addFilter(_worth_saying)
    return logger


def _worth_saying(record: logging.LogRecord) -> bool:
    # said at each start: topics are provisioned here, and that is meant
    return not str(record.msg).startswith("Auto create topics is disabled") and record.levelno >= logging.WARNING


async def _leave_alone(message: KafkaMessage) -> KafkaMessage:
    return message


def _behind(consumer: Any, partition: Any) -> int:
    """Events between our position and the end, as far as the last fetch told; 0 while either is unknown."""
    state = consumer._subscription.subscription.assignment.state_value(partition)
    highwater = consumer.highwater(partition)
    if highwater is None or not state.has_valid_position:
        return 0
    return max(0, int(highwater - state.position))
