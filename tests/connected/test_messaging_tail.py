"""A whole topic, each event once, whatever happens to Kafka or its partitions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer

from local.kafka import Kafka
from messaging.deliveries import Delivery
from messaging.provision import provision
from messaging.sender import Outgoing, Sender, SendFailed
from messaging.settings import KafkaSettings
from messaging.tail import Start, Tail
from schemas.topics import Topic

pytestmark = pytest.mark.connected

TOPIC = Topic(name="status.v1", key="k", partitions=2, retention_ms=3_600_000, purpose="a test")
PATIENCE = 60.0


@pytest.fixture
async def settings(kafka_servers: str, namespace: str) -> KafkaSettings:
    return await _ready(kafka_servers, namespace)


async def _ready(servers: str, namespace: str) -> KafkaSettings:
    settings = KafkaSettings(
        kafka_servers=servers, namespace=namespace, kafka_watch=0.2, kafka_send_timeout=2.0, kafka_stall=2.0
    )
    await provision(settings, topics=[TOPIC])
    return settings


class Reader:
    """A tail read in a task of its own."""

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.events: list[Delivery] = []
        self.news = asyncio.Event()

    @property
    def bodies(self) -> list[bytes]:
        return [event.value for event in self.events]

    async def read(self) -> None:
        async for batch in self.tail.batches():
            self.events.extend(batch)
            self.news.set()

    async def until(self, condition: Callable[[], bool], within: float = PATIENCE) -> None:
        async with asyncio.timeout(within):
            while not condition():
                self.news.clear()
                await self.news.wait()


@contextlib.asynccontextmanager
async def reading(settings: KafkaSettings, at: Start = "end") -> AsyncIterator[Reader]:
    reader = Reader(Tail(settings, TOPIC.name))
    async with asyncio.timeout(PATIENCE):
        await reader.tail.start(at)
    task = asyncio.create_task(reader.read())
    try:
        yield reader
    finally:
        async with asyncio.timeout(4):
            await reader.tail.stop()
            await task


class Publisher:
    """Numbers, one after another, each sent until Kafka has it."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.sender = Sender(settings)
        self.sent = 0

    async def publish(self, count: int) -> None:
        for _ in range(count):
            number = b"%d" % self.sent
            while True:
                try:
                    await self.sender.send([Outgoing(TOPIC.name, f"key-{self.sent}", number)])
                    break
                except SendFailed:
                    continue
            self.sent += 1

    @property
    def numbers(self) -> list[bytes]:
        return [b"%d" % n for n in range(self.sent)]


@pytest.fixture
async def publisher(settings: KafkaSettings) -> AsyncIterator[Publisher]:
    """A Kafka that takes its time is no outage: what was given up and sent again would be there twice."""
    publisher = Publisher(settings.model_copy(update={"kafka_send_timeout": PATIENCE}))
    yield publisher
    await publisher.sender.discard()


async def test_from_the_end(settings: KafkaSettings, publisher: Publisher) -> None:
    await publisher.publish(5)
    async with reading(settings) as reader:
        assert sum(reader.tail.positions.values()) == 5
        await publisher.publish(5)
        await reader.until(lambda: len(reader.events) == 5)
        assert sorted(reader.bodies) == publisher.numbers[5:]
        assert sum(reader.tail.positions.values()) == 10
        assert {event.topic for event in reader.events} == {TOPIC.name}


async def test_from_a_time(settings: KafkaSettings) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_servers)
    await producer.start()
    try:
        for minute, body in ((0, b"old"), (10, b"wanted"), (20, b"newer")):
            at = round(datetime(2026, 1, 1, 0, minute, tzinfo=UTC).timestamp() * 1000)
            await producer.send_and_wait(settings.namespace + TOPIC.name, body, partition=0, timestamp_ms=at)
    finally:
        await producer.stop()
    async with reading(settings, datetime(2026, 1, 1, 0, 5, tzinfo=UTC)) as reader:
        await reader.until(lambda: len(reader.events) == 2)
        assert reader.bodies == [b"wanted", b"newer"]


async def test_from_positions(settings: KafkaSettings, publisher: Publisher) -> None:
    await publisher.publish(10)
    async with reading(settings, {}) as whole:
        await whole.until(lambda: len(whole.events) == 10)
    middle = {event.partition: event.offset for event in whole.events[:5]}
    async with reading(settings, middle) as rest:
        wanted = [e.value for e in whole.events if e.offset >= middle.get(e.partition, 0)]
        await rest.until(lambda: len(rest.events) == len(wanted))
        assert sorted(rest.bodies) == sorted(wanted)
    # a position of another log, or past its end
    async with reading(settings, {0: 1_000_000, 1: 1_000_000}) as ahead:
        await publisher.publish(1)
        await ahead.until(lambda: bool(ahead.events))
        assert ahead.bodies == publisher.numbers[-1:]


async def test_partitions_added_under_load_are_read_from_their_first_event(
    settings: KafkaSettings, publisher: Publisher
) -> None:
    async with reading(settings) as reader:
        await publisher.publish(50)
        load = asyncio.create_task(publisher.publish(400))
        await provision(settings, topics=[TOPIC.model_copy(update={"partitions": 5})])
        await load
        # a new producer knows the new partitions
        await publisher.sender.discard()
        await publisher.publish(100)
        await reader.until(lambda: len(reader.events) >= publisher.sent)
        assert sorted(reader.bodies) == sorted(publisher.numbers)
        assert reader.tail.positions.keys() == set(range(5))
        assert len({event.partition for event in reader.events}) == 5


async def test_a_tail_that_never_started_stops(kafka_servers: str, namespace: str) -> None:
    settings = KafkaSettings(kafka_servers=kafka_servers, namespace=namespace, kafka_send_timeout=0.5)
    tail = Tail(settings, TOPIC.name)
    # its topic does not exist
    starting = asyncio.create_task(tail.start())
    async with asyncio.timeout(4):
        await asyncio.sleep(0)
        await tail.stop()
        await starting


@pytest.mark.chaos
async def test_a_killed_kafka_costs_nothing(private_kafka: Kafka, namespace: str) -> None:
    settings = await _ready(private_kafka.servers, namespace)
    publisher = Publisher(settings)
    try:
        async with reading(settings) as reader:
            await publisher.publish(20)
            load = asyncio.create_task(publisher.publish(100))
            await asyncio.to_thread(private_kafka.kill)
            await asyncio.to_thread(private_kafka.start)
            await load
            # what was sent twice is there twice; what was read is exactly what is on record
            await reader.until(lambda: set(reader.bodies) == set(publisher.numbers))
            places = [(event.partition, event.offset) for event in reader.events]
            assert len(places) == len(set(places))
    finally:
        await publisher.sender.discard()


@pytest.mark.chaos
async def test_stopping_does_not_wait_for_kafka(private_kafka: Kafka, namespace: str) -> None:
    settings = await _ready(private_kafka.servers, namespace)
    async with reading(settings):
        await asyncio.to_thread(private_kafka.kill)
