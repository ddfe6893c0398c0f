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
    TopicAuthorizationFailedError,
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
"""Codes that are to be expected while leaders change; the last are FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH and
OFFSET_NOT_AVAILABLE."""
_FIRST = -2
"""In a question for offsets: the first that there is."""
_LAST_EPOCH = 2**31 - 1


class EndLost(Exception):
    """The log ends before what was read of it: it is another one, or has lost its end."""


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
    broker may wait for something new, and until it is asked again after a failure. What retention has removed is passed
    over: reading goes on with the first there is.
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
        self._damaged: KafkaError | None = None
        self._refresh_at = 0.0
        self._closed = False

    def add(self, offsets: Mapping[int, int]) -> None:
        """Read these partitions too."""
        self._offsets.update(offsets)

    async def read(self, within: float, most: int) -> list[Delivery]:
        """Up to `most` events; none when nothing came `within` seconds, and now and then earlier.

        Raises KafkaError for what asking again does not mend (no access to the topic, a batch that is damaged), once
        all else has been given; `EndLost`.
        """
        if events := list(islice(self._unread, most)):
            return events
        if self._damaged is not None:
            raise self._damaged
        for partition in list(self._lost):
            await self._find(partition, within)
        # who is to be asked again soon is not to wait for others' answers
        patience = within if self._ask() else min(within, self._retry)
        if not self._asking:
            await asyncio.sleep(patience)
            return []
        done, _ = await asyncio.wait(self._asking.values(), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        parts: list[Part] = []
        for node in [node for node, asking in self._asking.items() if asking in done]:
            parts += self._take(node, self._asking.pop(node))
        self._unread = self._records(parts)
        return list(islice(self._unread, most))

    @property
    def offsets(self) -> dict[int, int]:
        """Partition -> offset after the last event that was given, or was passed over."""
        return self._offsets

    async def close(self) -> None:
        self._closed = True
        asking, self._asking = list(self._asking.values()), {}
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _ask(self) -> bool:
        """Each broker that owes no answer, for the partitions that it leads; whether all partitions are asked for."""
        if self._closed:
            return False
        led: dict[int, list[int]] = {}
        for partition in self._offsets.keys() - self._lost:
            leader = self._leader(partition)
            if leader is not None:
                led.setdefault(leader, []).append(partition)
        complete = sum(map(len, led.values())) == len(self._offsets)
        for node, partitions in led.items():
            if node in self._asking:
                continue
            if self._rests(node):
                complete = False
                continue
            session = self._sessions.setdefault(node, Session())
            self._asking[node] = asyncio.ensure_future(self._client.send(node, self._request(session, partitions)))
        return complete

    def _leader(self, partition: int) -> int | None:
        leader = self._client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
        if leader is None or leader < 0:
            self._refresh()
            return None
        return int(leader)

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
                log.warning("kafka_fetch_failed", topic=self._topic, node=node, error=for_code(answer.error).__name__)
                self._rest(node)
            return []
        session.answered(answer.session)
        return [part for part in answer.parts if self._is_whole(node, part)]

    def _is_whole(self, node: int, part: Part) -> bool:
        if not part.error:
            return bool(part.records)
        error = for_code(part.error)
        if error is OffsetOutOfRangeError:
            self._lost.add(part.partition)
        elif error is TopicAuthorizationFailedError:
            self._damaged = error(f"partition {part.partition} of {self._topic}")
        else:
            # mostly another one leads it now; the broker names it again by itself for as long as it has a fault
            if part.error not in _MOVED:
                log.warning("kafka_fetch_failed", topic=self._topic, partition=part.partition, error=error.__name__)
            self._refresh()
            self._rest(node)
        return False

    def _refresh(self) -> None:
        """Ask who leads what, not more often than after each `retry`."""
        now = asyncio.get_running_loop().time()
        if self._refresh_at <= now:
            self._refresh_at = now + self._retry
            self._client.force_metadata_update()

    def _rest(self, node: int) -> None:
        self._resting[node] = asyncio.get_running_loop().time() + self._retry

    def _rests(self, node: int) -> bool:
        return self._resting.get(node, 0.0) > asyncio.get_running_loop().time()

    async def _find(self, partition: int, within: float) -> None:
        """Where the log begins, of a partition whose offset it does not have."""
        leader = self._leader(partition)
        if leader is None or self._rests(leader) or self._closed:
            return
        try:
            async with asyncio.timeout(within):
                answer = await self._client.send(leader, OffsetRequest(-1, 0, [(self._topic, [(partition, _FIRST)])]))
        except (KafkaError, OSError, TimeoutError):
            self._rest(leader)
            return
        ((_, ((_, error, _, offset),)),) = answer.topics
        if error:
            self._refresh()
            self._rest(leader)
        elif offset < self._offsets[partition]:
            # it begins before us, and so it must end before us too
            raise EndLost(f"partition {partition} of {self._topic} ends before {self._offsets[partition]}")
        else:
            self._offsets[partition] = offset
            self._lost.discard(partition)

    def _records(self, parts: list[Part]) -> Iterator[Delivery]:
        offsets, logical = self._offsets, self._logical
        for partition, _, records in parts:
            batches = MemoryRecords(records)
            while batches.has_next():
                batch = batches.next_batch()
                if not batch.validate_crc():
                    self._damaged = CorruptRecordException(f"a batch of partition {partition} of {self._topic}")
                    break
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
