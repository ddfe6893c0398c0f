"""Fetch sessions on a real Kafka: only what is new goes over the line, and a session that is lost costs nothing."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from messaging.deliveries import Delivery
from messaging.provision import provision
from messaging.sessions import EndLost, Sessions
from messaging.settings import KafkaSettings
from schemas.topics import Topic
from telemetry import metrics

pytestmark = pytest.mark.connected

TOPIC = Topic(name="fetched.v1", key="k", partitions=3, retention_ms=3_600_000, purpose="a test")
START = {0: 0, 1: 0, 2: 0}


class Log:
    """A topic, written and read."""

    def __init__(self, client: Any, producer: AIOKafkaProducer, topic: str) -> None:
        self.client = client
        self.producer = producer
        self.topic = topic
        self.sessions = self.reader()

    def reader(self, offsets: dict[int, int] = START) -> Sessions:
        return Sessions(self.client, self.topic, TOPIC.name, offsets, wait=0.2, retry=0.05)

    async def write(self, *values: bytes, partition: int = 0) -> None:
        for value in values:
            await self.producer.send_and_wait(self.topic, value, partition=partition)

    async def read(self, count: int) -> list[bytes]:
        """The next `count` events, and no more."""
        events: list[Delivery] = []
        async with asyncio.timeout(20):
            while len(events) < count:
                events += await self.sessions.read(1.0, 1000)
        return [event.value for event in events]

    @property
    def session(self) -> Any:
        (session,) = self.sessions._sessions.values()
        return session


@pytest.fixture
async def log(kafka_servers: str, namespace: str) -> AsyncIterator[Log]:
    settings = KafkaSettings(kafka_servers=kafka_servers, namespace=namespace)
    await provision(settings, topics=[TOPIC])
    client = AIOKafkaClient(bootstrap_servers=kafka_servers, request_timeout_ms=30_000)
    await client.bootstrap()
    producer = AIOKafkaProducer(bootstrap_servers=kafka_servers)
    await producer.start()
    await client.add_topic(namespace + TOPIC.name)
    log = Log(client, producer, namespace + TOPIC.name)
    try:
        yield log
    finally:
        await log.sessions.close()
        await producer.stop()
        await client.close()


async def test_events_come_once_and_in_order_within_one_session(log: Log) -> None:
    for number in range(5):
        await log.write(b"%d" % number, partition=number % 3)
        assert await log.read(1) == [b"%d" % number]
    assert log.session.id > 0
    assert log.session.epoch >= 5


async def test_a_session_that_the_broker_does_not_know_is_begun_anew(log: Log) -> None:
    await log.write(b"one")
    assert await log.read(1) == [b"one"]
    lost = log.session.id
    log.session.id = 12345
    await log.write(b"two", partition=1)
    assert await log.read(1) == [b"two"]
    assert log.session.id not in (lost, 12345)
    # and one whose count of requests is another one
    log.session.epoch += 7
    await log.write(b"three", partition=2)
    assert await log.read(1) == [b"three"]


async def test_a_connection_that_is_cut_costs_nothing(log: Log) -> None:
    await log.write(b"one")
    assert await log.read(1) == [b"one"]
    # one answer is owed
    await log.sessions.read(0.0, 1)
    for connection in list(log.client._conns.values()):
        connection.close()
    await log.write(b"two")
    assert await log.read(1) == [b"two"]


async def test_what_is_gone_from_the_log_is_passed_over(log: Log) -> None:
    await log.write(b"gone", b"gone too", b"there")
    await _forget(log, before=2)
    assert await log.read(1) == [b"there"]
    # who is ahead of the log has read another one, or what it has lost
    log.sessions = log.reader({**START, 0: 99})
    with pytest.raises(EndLost, match="ends before 99"):
        await log.read(1)


async def _forget(log: Log, *, before: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=log.producer.client._bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(log.topic, 0): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


async def test_no_more_than_asked_for_is_given_at_once(log: Log) -> None:
    await log.write(*(b"%d" % number for number in range(10)))
    found: list[bytes] = []
    async with asyncio.timeout(20):
        while len(found) < 10:
            some = await log.sessions.read(1.0, 4)
            assert len(some) <= 4
            found += [event.value for event in some]
    assert found == [b"%d" % number for number in range(10)]


async def test_ends_of_transactions_are_no_events(log: Log) -> None:
    servers = log.producer.client._bootstrap_servers
    async with _transactional(servers) as producer:
        for number in range(3):
            async with producer.transaction():
                await producer.send_and_wait(log.topic, b"%d" % number, partition=0)
    await log.write(b"after")
    assert await log.read(4) == [b"0", b"1", b"2", b"after"]
    # the last end is written some time after the producer was told so, and may stand behind what was written since
    async with asyncio.timeout(20):
        while log.sessions.offsets[0] < 7:
            assert await log.sessions.read(0.2, 1000) == []
    assert log.sessions.offsets[0] == 7


@contextlib.asynccontextmanager
async def _transactional(servers: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=servers, transactional_id="a test")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def test_a_header_whose_name_is_no_text_stops_nothing(log: Log) -> None:
    """aiokafka cannot read on in such a batch: what stands behind it in the log is read all the same."""
    poisoned = metrics.of_process().value("poison", topic=TOPIC.name)
    # sent until the topic has its leader
    await log.write(b"before")
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    builder.append(0, timestamp=1_700_000_000_000, key=None, value=b"odd", headers=[("name", b"value")])
    batch = bytearray(builder.build()).replace(b"name", b"\xff\xfe\xfd\xfc")
    # the checksum stands at 17 and covers all behind it
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
    leader = log.client.cluster.leader_for_partition(TopicPartition(log.topic, 0))
    answer = await log.client.send(
        leader,
        ProduceRequest(transactional_id=None, required_acks=1, timeout=9000, topics=[(log.topic, [(0, bytes(batch))])]),
    )
    assert answer.topics[0][1][0][1] == 0
    await log.write(b"after")
    assert await log.read(2) == [b"before", b"after"]
    assert metrics.of_process().value("poison", topic=TOPIC.name) == poisoned + 1
