"""One topic's reader within its group: connects, hands over, acknowledges, and is made anew where it went silent."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import structlog
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage, KafkaMessage

from messaging.backoff import Backoff
from messaging.closing import cut_off, stop_client
from messaging.deliveries import Delivery, deliveries
from messaging.lookout import Log
from messaging.names import real_group, real_topic
from messaging.settings import KafkaSettings
from messaging.stillness import Standing, Stillness
from telemetry import metrics

log = structlog.get_logger()

Handler = Callable[[list[Delivery]], Awaitable[None]]

_MAX_RECORDS = 2000
_DAY_MS = 24 * 60 * 60 * 1000
_CLOSE_SECONDS = 2.0


class Stopping(Exception):
    """Raised by a handler that will not finish: its events stay unacknowledged, whoever reads next gets them."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How one subscription stands. `lag` counts events not yet handed over, null before the first assignment.

    `stuck` says why events wait although Kafka answers, when they do.
    """

    topic: str
    connected: bool
    partitions: int
    lag: int | None
    polled_seconds_ago: float | None
    handling_seconds: float | None
    stuck: str | None


class Subscription:
    """`start` returns at once; `look` now and then, and not in a task that `stop` ends."""

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
        self._batches = self._batches_then = 0
        self._stillness = Stillness()
        self._log_id: bytes | None = None
        self._left_out_since: float | None = None
        self._stuck: str | None = None
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
            # a member hears of one that comes or goes in the answer to its heartbeat, and until then nothing is read
            heartbeat_interval_ms=round(settings.kafka_session * 1000 / 10),
            no_reply=True,
            parser=self._parse,
            decoder=_leave_alone,
        )
        # FastStream's own rests without polling after each empty poll, which costs latency, idle CPU and nothing else
        self._subscriber.get_msg = self._next_batch  # type: ignore[method-assign]
        self._subscriber(self._on_batch)

    @property
    def topic(self) -> str:
        """Its logical name."""
        return self._topic

    def start(self) -> None:
        self._starting = asyncio.create_task(self._connect(), name=f"connect {self._topic}")

    async def _connect(self) -> None:
        backoff = Backoff(self._settings.kafka_backoff)
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
        await self._end_starting()
        # a start that was let through has set it again
        self._subscriber.running = False
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            if self._handling_since is not None:
                log.warning("kafka_handler_cut_off", topic=self._topic)
        for task in self._subscriber.tasks:
            task.cancel()
        await self._close()

    async def _end_starting(self) -> None:
        if self._starting is not None:
            consumer: Any = self._subscriber.consumer
            client = None if consumer is None else consumer._client
            await cut_off(self._starting, client, seconds=_CLOSE_SECONDS)

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
        behind = [_lag(consumer, tp) for tp in assigned]
        return Progress(
            topic=self._topic,
            connected=self._connected,
            partitions=len(assigned),
            lag=sum(behind) if behind else None,
            polled_seconds_ago=max(0.0, time.time() - max(polls) / 1000) if polls else None,
            handling_seconds=None if self._handling_since is None else now - self._handling_since,
            stuck=self._stuck,
        )

    def excuse(self) -> None:
        """Kafka is away: nothing is known, and nobody is to blame."""
        self._stillness.forget()
        self._left_out_since = None
        self._stuck = None

    async def look(self, log_now: Log | None, ends: Mapping[int, int]) -> None:
        """Judge this reader by what Kafka says now (None: no such topic), and make it anew where that may help."""
        if log_now is None or self._stopping.is_set():
            self.excuse()
            return
        busy = 0.0 if self._handling_since is None else time.monotonic() - self._handling_since
        if busy:
            # nothing is gained by reading its batch once more beside it
            self._stillness.forget()
            long = busy >= self._settings.kafka_stall
            self._stuck = f"its handler has not come to an end with a batch for {busy:.0f} s" if long else None
            return
        known, self._log_id = self._log_id, log_now.id
        if known is not None and log_now.id is not None and known != log_now.id:
            # its offsets mean nothing in the new log; its group, if it is there, has none
            await self._renew("other_log")
            return
        self._tell_partitions(log_now)
        standing = self._standing()
        if standing is None:
            self._left_out_since = self._left_out_since or time.monotonic()
            seconds = time.monotonic() - self._left_out_since
            if seconds >= self._settings.kafka_stall + 2 * self._settings.kafka_session:
                self._stuck = f"it was not given its partitions for {seconds:.0f} s"
                await self._renew("left_out")
            return
        self._left_out_since = None
        if waiting := self._stillness.waiting(standing, ends):
            self._stuck = f"{waiting} events wait and none comes"
            self._batches_then = self._batches
            await self._renew("silent")
        elif self._batches != self._batches_then or not _behind(standing, ends):
            self._stuck = None

    def _tell_partitions(self, log_now: Log) -> None:
        """Let the client look when it knows other partitions than there are: by itself it does so every five minutes,
        and meanwhile reads nothing of a topic that it once found missing."""
        consumer: Any = self._subscriber.consumer
        known = None if consumer is None else consumer.partitions_for_topic(real_topic(self._settings, self._topic))
        if consumer is not None and (known or set()) != log_now.leaders.keys():
            consumer._client.force_metadata_update()

    def _standing(self) -> Standing | None:
        """None while it has not joined its group, or was not told its partitions."""
        consumer: Any = self._subscriber.consumer
        if consumer is None or not self._connected or consumer._subscription.reassignment_in_progress:
            return None
        assignment = consumer._subscription.subscription.assignment
        states = {tp.partition: assignment.state_value(tp) for tp in assignment.tps}
        positions = {p: state.position if state.has_valid_position else -1 for p, state in states.items()}
        return Standing(positions, self._batches)

    async def _renew(self, reason: Literal["silent", "left_out", "other_log"]) -> None:
        log.warning("kafka_reader_renewed", topic=self._topic, reason=reason, detail=self._stuck)
        metrics.count("readers_renewed", reason=reason)
        self._stillness.forget()
        self._left_out_since = None
        await self._end_starting()
        for task in self._subscriber.tasks:
            task.cancel()
        await self._close()
        if not self._stopping.is_set():
            self.start()

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
        self._batches += 1
        self._handling_since = time.monotonic()
        try:
            handled = await self._handle(deliveries(self._settings, records))
            self._handling_since = None
            if handled:
                await self._acknowledge(message)
        finally:
            self._handling_since = None
            self._idle.set()

    async def _handle(self, batch: list[Delivery]) -> bool:
        backoff = Backoff(self._settings.kafka_backoff)
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


async def _leave_alone(message: KafkaMessage) -> KafkaMessage:
    return message


def _behind(standing: Standing, ends: Mapping[int, int]) -> bool:
    return any(max(0, position) < ends.get(partition, 0) for partition, position in standing.positions.items())


def _lag(consumer: Any, partition: Any) -> int:
    """Events between our position and the end, as far as the last fetch told; 0 while either is unknown."""
    state = consumer._subscription.subscription.assignment.state_value(partition)
    highwater = consumer.highwater(partition)
    if highwater is None or not state.has_valid_position:
        return 0
    return max(0, int(highwater - state.position))
