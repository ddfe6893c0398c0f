"""Reads the partitions of one topic through fetch sessions, one with each broker that leads some of them.

In place of aiokafka's own fetching, which costs a reader of many partitions most of its CPU and the broker more: it
lists all partitions in each request, and asks for more as soon as something was taken, so that whoever would rather
wait and get several events at once cannot. Here nothing is asked before `read` is called.
"""

import asyncio
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    FetchSessionIdNotFound,
    InvalidFetchSessionEpoch,
    KafkaError,
    KafkaStorageError,
    LeaderNotAvailableError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    ReplicaNotAvailableError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords

from messaging.deliveries import Delivery, delivery_of
from messaging.fetching import Answer, Fetch, Part
from telemetry import metrics

log = structlog.get_logger()

_MOVED = {
    one.errno
    for one in (
        UnknownTopicOrPartitionError,
        LeaderNotAvailableError,
        NotLeaderForPartitionError,
        ReplicaNotAvailableError,
        KafkaStorageError,
    )
} | {74, 75, 78}
"""Codes after which the partition is asked for again, once it is known who leads it; the last are FENCED_LEADER_EPOCH,
UNKNOWN_LEADER_EPOCH and OFFSET_NOT_AVAILABLE."""
_FIRST = -2
"""In a question for offsets: the first that there is."""
_LAST_EPOCH = 2**31 - 1


class Session:
    """What one broker knows of us: which partitions we read, and from where. `epoch` counts requests."""

    def __init__(self) -> None:
        self.id = self.epoch = 0
        self.told: dict[int, int] = {}

    def begin_anew(self, *, known: bool) -> None:
        """With a list of all partitions; `known`: the broker may still keep this session, and is to close it."""
        self.id = self.id if known else 0
        self.epoch = 0
        self.told = {}

    def answered(self, session: int) -> None:
        """A broker that keeps no more sessions says 0: then each request lists all."""
        self.id = session
        self.epoch = 0 if not session else 1 if self.epoch == _LAST_EPOCH else self.epoch + 1
        if not session:
            self.told = {}


class Sessions:
    """`client` is a bootstrapped AIOKafkaClient that knows the topic; `offsets`: partition -> where to begin.

    `topic` is its name in Kafka, `logical` the one that deliveries bear. `wait` and `retry` are seconds: how long a
    broker may wait for something new, and until it is asked again after a failure. What is gone from the log
    (retention, a new log) is passed over: reading goes on with the first there is.
    """

    def __init__(
        self, client: Any, topic: str, logical: str, offsets: Mapping[int, int], *, wait: float, retry: float
    ) -> None:
        self._client = client
        self._topic = topic
        self._logical = logical
        self._offsets = dict(offsets)
        self._wait_ms = round(wait * 1000)
        self._retry = retry
        self._sessions: dict[int, Session] = {}
        self._asking: dict[int, asyncio.Task[Answer]] = {}
        self._resting: dict[int, float] = {}
        self._unread: Iterator[Delivery] = iter(())
        self._lost: set[int] = set()
        self._refresh_at = 0.0

    def add(self, offsets: Mapping[int, int]) -> None:
        """Read these partitions too."""
        self._offsets.update(offsets)

    async def read(self, within: float, most: int) -> list[Delivery]:
        """Up to `most` events; none when nothing came `within` seconds, and now and then earlier.

        Raises KafkaError for what asking again does not mend: no access to the topic, a batch that is damaged.
        """
        if events := list(islice(self._unread, most)):
            return events
        if self._lost:
            await self._find()
        self._ask()
        if not self._asking:
            # nobody leads anything, or whoever does has just failed
            await asyncio.sleep(min(within, self._retry))
            return []
        done, _ = await asyncio.wait(self._asking.values(), timeout=within, return_when=asyncio.FIRST_COMPLETED)
        parts: list[Part] = []
        for node in [node for node, asking in self._asking.items() if asking in done]:
            parts += self._take(node, self._asking.pop(node))
        self._unread = self._records(parts)
        return list(islice(self._unread, most))

    async def close(self) -> None:
        asking, self._asking = list(self._asking.values()), {}
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _ask(self) -> None:
        """Each broker that owes no answer, for the partitions that it leads."""
        now = asyncio.get_running_loop().time()
        led: dict[int, list[int]] = {}
        for partition in self._offsets:
            leader = self._client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
            if leader is None or leader < 0:
                self._refresh()
            else:
                led.setdefault(leader, []).append(partition)
        for node, partitions in led.items():
            if node not in self._asking and self._resting.get(node, 0.0) <= now:
                session = self._sessions.setdefault(node, Session())
                self._asking[node] = asyncio.ensure_future(self._client.send(node, self._request(session, partitions)))

    def _request(self, session: Session, partitions: list[int]) -> Fetch:
        told, offsets = session.told, self._offsets
        moved = {partition: offsets[partition] for partition in partitions if told.get(partition) != offsets[partition]}
        forgotten = told.keys() - set(partitions)
        for partition in forgotten:
            del told[partition]
        told.update(moved)
        return Fetch(self._topic, session.id, session.epoch, moved, forgotten, wait_ms=self._wait_ms)

    def _take(self, node: int, asked: "asyncio.Task[Answer]") -> list[Part]:
        session = self._sessions[node]
        try:
            answer = asked.result()
        except (KafkaError, OSError, TimeoutError) as error:
            log.info("kafka_fetch_failed", topic=self._topic, node=node, error=type(error).__name__)
            session.begin_anew(known=True)
            # it may be gone for good, and its partitions be led by others
            self._refresh()
            self._rest(node)
            return []
        if answer.error:
            session.begin_anew(known=answer.error == InvalidFetchSessionEpoch.errno)
            if answer.error not in (FetchSessionIdNotFound.errno, InvalidFetchSessionEpoch.errno):
                self._rest(node)
            return []
        session.answered(answer.session)
        return [part for part in answer.parts if self._is_whole(node, part)]

    def _is_whole(self, node: int, part: Part) -> bool:
        if not part.error:
            return bool(part.records)
        session = self._sessions[node]
        # else it would not be named again
        session.told.pop(part.partition, None)
        if part.error == OffsetOutOfRangeError.errno:
            self._lost.add(part.partition)
        elif part.error in _MOVED:
            self._refresh()
            self._rest(node)
        else:
            raise for_code(part.error)(f"partition {part.partition} of {self._topic}")
        return False

    def _refresh(self) -> None:
        """Ask who leads what, not more often than after each `retry`."""
        now = asyncio.get_running_loop().time()
        if self._refresh_at <= now:
            self._refresh_at = now + self._retry
            self._client.force_metadata_update()

    def _rest(self, node: int) -> None:
        self._resting[node] = asyncio.get_running_loop().time() + self._retry

    async def _find(self) -> None:
        """Where the log begins, of those partitions whose offset it does not have."""
        for partition in list(self._lost):
            leader = self._client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
            if leader is None or leader < 0:
                return
            try:
                answer = await self._client.send(leader, OffsetRequest(-1, 0, [(self._topic, [(partition, _FIRST)])]))
            except (KafkaError, OSError, TimeoutError):
                self._rest(leader)
                return
            ((_, ((_, error, _, offset),)),) = answer.topics
            if not error:
                self._offsets[partition] = offset
                self._lost.discard(partition)

    def _records(self, parts: list[Part]) -> Iterator[Delivery]:
        offsets, logical = self._offsets, self._logical
        for partition, _, records in parts:
            batches = MemoryRecords(records)
            while batches.has_next():
                batch = batches.next_batch()
                if not batch.validate_crc():
                    raise CorruptRecordException(f"a batch of partition {partition} of {self._topic}")
                try:
                    # control batches say where a transaction ended
                    for record in () if batch.is_control_batch else batch:
                        # a batch begins before the offset that was asked for, when that lies within it
                        if record.offset >= offsets[partition]:
                            offsets[partition] = record.offset + 1
                            yield delivery_of(logical, partition, record)
                except UnicodeDecodeError:
                    # a header's name that is no text: aiokafka cannot read on, and whoever waited for it would for ever
                    metrics.count("poison", topic=logical)
                    log.warning(
                        "kafka_batch_unreadable", topic=logical, partition=partition, after_offset=offsets[partition]
                    )
                # compaction may have removed the last records of a batch
                offsets[partition] = max(offsets[partition], batch.next_offset)
