"""Reads one topic as a whole: every partition, without a group, each event once, in the order of its partition.

Not FastStream's subscriber without a group: when a partition is added that one starts all partitions anew at the end,
and events are lost (measured). Here the assignment is ours; a new partition is read from its first event, the others go
on where they were. Positions are kept here too, so that a consumer that went silent can be replaced.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Literal

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from messaging.closing import stop_client
from messaging.deliveries import Delivery, delivery
from messaging.names import client_options, real_topic
from messaging.settings import KafkaSettings

log = structlog.get_logger()

Start = Literal["end"] | datetime | Mapping[int, int]

_MAX_RECORDS = 1000
_LOOK_AGAIN_SECONDS = 0.05
_CLOSE_SECONDS = 2.0


class Tail:
    """One reader. `start`, then read `batches` in one task; `positions` and `stop` may be called from others."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._real = real_topic(settings, topic)
        self._consumer: AIOKafkaConsumer | None = None
        self._positions: dict[int, int] = {}
        self._stopping = asyncio.Event()
        # a consumer that is closed while it starts goes on to open connections that nobody closes
        self._opening = asyncio.Lock()
        self._heard_at: float | None = None

    @property
    def positions(self) -> dict[int, int]:
        """Partition -> offset of the next event that `batches` will give."""
        return dict(self._positions)

    @property
    def heard_seconds_ago(self) -> float | None:
        """Since Kafka last answered this reader; None before the start."""
        return None if self._heard_at is None else time.monotonic() - self._heard_at

    async def start(self, at: Start = "end") -> None:
        """Find where to read from: the end, the first event not before a time, or stated offsets.

        Offsets that Kafka no longer or not yet has are moved to the nearest it has; a partition that is not stated is
        read from its first event. Tries until Kafka and the topic are there: put a limit around it, or `stop`.
        """
        while not self._stopping.is_set():
            try:
                async with self._opening:
                    await self._open()
                    self._positions = await self._resolve(at)
                    self._assign()
                    return
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("kafka_tail_not_started", topic=self._topic, error=type(error).__name__)
                await self._close()
                await self._pause()

    async def batches(self) -> AsyncIterator[list[Delivery]]:
        """Events as they come, until `stop`. Outages of Kafka are waited for in here."""
        watched_at = fetched_at = time.monotonic()
        while not self._stopping.is_set():
            try:
                if self._consumer is None:
                    async with self._opening:
                        await self._open()
                        self._assign()
                    fetched_at = time.monotonic()
                consumer = self._consumer
                assert consumer is not None
                found = await consumer.getmany(
                    timeout_ms=round(self._settings.kafka_watch * 1000), max_records=_MAX_RECORDS
                )
            except (KafkaError, OSError, TimeoutError) as error:
                if self._stopping.is_set():
                    return
                log.warning("kafka_tail_interrupted", topic=self._topic, error=type(error).__name__)
                await self._close()
                await self._pause()
                continue
            except ConsumerStoppedError:
                return
            now = time.monotonic()
            batch = [delivery(self._settings, record) for records in found.values() for record in records]
            if batch:
                # before the yield: whoever asks for positions while handling this batch is past it
                for event in batch:
                    self._positions[event.partition] = event.offset + 1
                fetched_at = self._heard_at = now
                yield batch
            if now - watched_at >= self._settings.kafka_watch:
                watched_at = now
                self._watch()
            if now - fetched_at >= self._settings.kafka_stall:
                fetched_at = now
                if await self._silent():
                    log.warning("kafka_tail_silent", topic=self._topic)
                    await self._close()

    async def stop(self, timeout: float = _CLOSE_SECONDS) -> None:
        """End `start` and `batches` and leave within twice `timeout` seconds, with Kafka there or gone."""
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._opening:
                pass
        await self._close(timeout)

    async def _open(self) -> None:
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            group_id=None,
            enable_auto_commit=False,
            # what lies at our position is gone (retention, a new log): go on with the first event there is
            auto_offset_reset="earliest",
            # new partitions are seen when metadata are
            metadata_max_age_ms=max(100, round(self._settings.kafka_watch * 1000)),
            request_timeout_ms=round(self._settings.kafka_send_timeout * 1000),
        )
        self._consumer = consumer
        # connecting takes up to three requests: cut off in mid-connect, aiokafka leaves the socket open
        async with asyncio.timeout(4 * self._settings.kafka_send_timeout):
            await consumer.start()
            # names the topic, so that its metadata are fetched; the real assignment follows
            consumer.assign([TopicPartition(self._real, 0)])
            consumer.pause(TopicPartition(self._real, 0))
            # aiokafka tells nobody when metadata have come
            while not consumer.partitions_for_topic(self._real):
                if self._stopping.is_set():
                    raise TimeoutError
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def _resolve(self, at: Start) -> dict[int, int]:
        consumer = self._consumer
        assert consumer is not None
        topic_partitions = [TopicPartition(self._real, p) for p in sorted(consumer.partitions_for_topic(self._real))]
        async with asyncio.timeout(self._settings.kafka_send_timeout):
            ends: dict[TopicPartition, int] = await consumer.end_offsets(topic_partitions)
            if at == "end":
                return {tp.partition: end for tp, end in ends.items()}
            if isinstance(at, datetime):
                since = round(at.timestamp() * 1000)
                times = await consumer.offsets_for_times(dict.fromkeys(topic_partitions, since))
                return {tp.partition: times[tp].offset if times.get(tp) else ends[tp] for tp in topic_partitions}
            starts: dict[TopicPartition, int] = await consumer.beginning_offsets(topic_partitions)
            assert not isinstance(at, str)
            return {tp.partition: min(max(at.get(tp.partition, 0), starts[tp]), ends[tp]) for tp in topic_partitions}

    def _assign(self) -> None:
        """Read every known partition from our position. Not awaiting anything, nothing is fetched in between."""
        consumer = self._consumer
        assert consumer is not None
        for partition in consumer.partitions_for_topic(self._real) or ():
            self._positions.setdefault(partition, 0)
        topic_partitions = {p: TopicPartition(self._real, p) for p in self._positions}
        consumer.assign(list(topic_partitions.values()))
        for partition, tp in topic_partitions.items():
            consumer.seek(tp, self._positions[partition])
        self._heard_at = time.monotonic()

    def _watch(self) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        new = (consumer.partitions_for_topic(self._real) or set()) - self._positions.keys()
        if new:
            log.info("kafka_partitions_added", topic=self._topic, partitions=sorted(new))
            self._assign()

    async def _silent(self) -> bool:
        """Whether Kafka holds events that this consumer should have given (aio-libs/aiokafka#1037, #712)."""
        consumer = self._consumer
        if consumer is None:
            return False
        try:
            async with asyncio.timeout(self._settings.kafka_send_timeout):
                ends = await consumer.end_offsets([TopicPartition(self._real, p) for p in self._positions])
        except (KafkaError, OSError, TimeoutError):
            # Kafka is away: the client keeps trying by itself
            return False
        self._heard_at = time.monotonic()
        return any(end > self._positions[tp.partition] for tp, end in ends.items())

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(min(0.5, self._settings.kafka_backoff)):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _close(self, timeout: float = _CLOSE_SECONDS) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        await stop_client(consumer._client, consumer.stop(), seconds=timeout, what=self._topic)
