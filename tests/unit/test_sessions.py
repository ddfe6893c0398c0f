"""Fetch sessions with several brokers: what one of them cannot give keeps nothing else from coming."""

import asyncio
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.fetch import FetchRequest_v7
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from messaging.fetching import Answer, Fetch, Part
from messaging.sessions import Sessions

TOPIC = "status"
NOT_LEADER, OUT_OF_RANGE, UNAUTHORIZED, UNKNOWN_FAULT = 6, 1, 29, -1
Broker = Callable[["Asked"], Awaitable[Answer]]


def batch(offset: int, *values: bytes) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    for number, value in enumerate(values):
        builder.append(number, timestamp=1, key=None, value=value, headers=[])
    raw = bytearray(builder.build())
    # the first offset is not among what the checksum covers
    raw[:8] = offset.to_bytes(8, "big")
    return bytes(raw)


class Asked:
    """A fetch as a broker sees it. `offsets` are those that it names."""

    def __init__(self, node: int, request: Fetch) -> None:
        read = FetchRequest_v7.decode(BytesIO(request.prepare({1: (4, 11)}).encode()))
        self.node = node
        self.session, self.epoch = read.session_id, read.session_epoch
        self.offsets = {partition: offset for _, parts in read.topics for partition, offset, _, _ in parts}
        self.forgotten = {partition for _, partitions in read.forgotten_topics_data for partition in partitions}


class Cluster:
    """Stands where aiokafka's client does: `leaders` by partition, brokers by node."""

    def __init__(self, leaders: dict[int, int | None], brokers: dict[int, Broker]) -> None:
        self.leaders = leaders
        self.brokers = brokers
        self.asked: list[Asked] = []
        self.refreshed = self.looked_up = 0
        self.cluster = self

    def leader_for_partition(self, partition: TopicPartition) -> int | None:
        return self.leaders[partition.partition]

    def force_metadata_update(self) -> None:
        self.refreshed += 1

    async def send(self, node: int, request: Any) -> Any:
        if not isinstance(request, Fetch):
            self.looked_up += 1
            raise KafkaConnectionError("away")
        asked = Asked(node, request)
        self.asked.append(asked)
        return await self.brokers[node](asked)

    def sessions(self) -> Sessions:
        return Sessions(self, TOPIC, TOPIC, dict.fromkeys(self.leaders, 0), wait=0.2, retry=0.02)


async def silent(asked: Asked) -> Answer:
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


def answering(*parts: Part) -> Broker:
    """Each part once, then nothing."""
    left = list(parts)

    async def answer(asked: Asked) -> Answer:
        if not left:
            return await silent(asked)
        given = [left.pop(0)]
        return Answer(0, 7, given)

    return answer


async def values(sessions: Sessions, count: int) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found += [event.value for event in await sessions.read(0.5, 100)]
    return found


async def test_a_partition_that_moves_is_forgotten_where_it_was_and_read_where_it_is() -> None:
    moved = Part(1, NOT_LEADER, b"")
    cluster = Cluster(
        {0: 1, 1: 1},
        {1: answering(moved, Part(0, 0, batch(0, b"stays"))), 2: answering(Part(1, 0, batch(0, b"moves")))},
    )
    sessions = cluster.sessions()
    assert await sessions.read(0.5, 100) == []
    cluster.leaders[1] = 2
    assert sorted(await values(sessions, 2)) == [b"moves", b"stays"]
    await sessions.read(0.0, 100)
    await sessions.close()
    first, *later = (asked for asked in cluster.asked if asked.node == 1)
    assert (first.session, first.epoch, first.offsets) == (0, 0, {0: 0, 1: 0})
    # within the session: nothing but what has changed
    assert (later[0].session, later[0].epoch, later[0].offsets, later[0].forgotten) == (7, 1, {}, {1})
    assert [(asked.offsets, asked.forgotten) for asked in later[1:]] == [({0: 1}, set())]


async def test_a_partition_whose_offset_is_not_found_keeps_no_other_waiting() -> None:
    lost = [Part(0, OUT_OF_RANGE, b""), Part(1, OUT_OF_RANGE, b"")]
    cluster = Cluster({0: 1, 1: 1, 2: 2}, {1: answering(*lost), 2: answering(Part(2, 0, batch(0, b"a", b"b")))})
    sessions = cluster.sessions()
    assert await values(sessions, 2) == [b"a", b"b"]
    cluster.leaders[0] = None
    for _ in range(20):
        await sessions.read(0.01, 100)
    await sessions.close()
    # where the log begins was asked now and then, of the one that has a leader; and neither was fetched meanwhile
    assert 1 <= cluster.looked_up <= 20
    assert next(asked.offsets for asked in cluster.asked if asked.node == 1) == {0: 0, 1: 0}
    assert len([asked for asked in cluster.asked if asked.node == 1]) <= 3


@pytest.mark.parametrize("fault", [UNKNOWN_FAULT, NOT_LEADER, 2])
async def test_a_fault_of_one_partition_is_no_fault_of_the_others(fault: int) -> None:
    async def broker(asked: Asked) -> Answer:
        parts = [Part(0, fault, b"")]
        if asked.epoch < 3:
            parts.append(Part(1, 0, batch(asked.epoch, b"%d" % asked.epoch)))
        return Answer(0, 7, parts)

    cluster = Cluster({0: 1, 1: 1}, {1: broker})
    sessions = cluster.sessions()
    assert await values(sessions, 3) == [b"0", b"1", b"2"]
    await sessions.close()
    assert cluster.refreshed


async def test_what_stands_beside_a_damaged_batch_is_given_first() -> None:
    damaged = bytearray(batch(0, b"broken"))
    damaged[-1] ^= 1
    parts = [Part(0, 0, batch(0, b"one")), Part(1, 0, bytes(damaged)), Part(2, 0, batch(0, b"two"))]

    async def broker(asked: Asked) -> Answer:
        return Answer(0, 7, parts)

    sessions = Cluster(dict.fromkeys(range(3), 1), {1: broker}).sessions()
    assert await values(sessions, 2) == [b"one", b"two"]
    with pytest.raises(KafkaError, match="partition 1 of status"):
        await sessions.read(0.5, 100)
    assert sessions.offsets == {0: 1, 1: 0, 2: 1}


async def test_no_access_is_told() -> None:
    sessions = Cluster({0: 1}, {1: answering(Part(0, UNAUTHORIZED, b""))}).sessions()
    assert await sessions.read(0.5, 100) == []
    with pytest.raises(TopicAuthorizationFailedError):
        await sessions.read(0.5, 100)


async def test_who_was_away_for_a_moment_does_not_wait_for_the_others() -> None:
    failed = False

    async def flickers(asked: Asked) -> Answer:
        nonlocal failed
        if not failed:
            failed = True
            raise KafkaConnectionError("away")
        return Answer(0, 7, [Part(0, 0, batch(0, b"back"))])

    sessions = Cluster({0: 1, 1: 2}, {1: flickers, 2: silent}).sessions()
    # the other's answer never comes, and nobody waits for it
    async with asyncio.timeout(5):
        events = []
        while not events:
            events = await sessions.read(60.0, 100)
    await sessions.close()
    assert [event.value for event in events] == [b"back"]


async def test_nothing_is_asked_after_its_end() -> None:
    cluster = Cluster({0: 1}, {1: silent})
    sessions = cluster.sessions()
    await sessions.close()
    assert await sessions.read(0.0, 100) == []
    assert cluster.asked == []
