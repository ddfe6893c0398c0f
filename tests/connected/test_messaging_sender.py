"""A batch is on record at Kafka, or there is an exception in time."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from local.kafka import Kafka
from messaging.provision import provision
from messaging.sender import MissingTopic, Outgoing, Refused, Sender, SendFailed
from messaging.settings import KafkaSettings
from schemas.topics import Topic

pytestmark = pytest.mark.connected

TOPIC = Topic(name="sent.v1", key="k", partitions=3, retention_ms=3_600_000, purpose="a test")


@pytest.fixture
async def settings(kafka_servers: str, namespace: str) -> KafkaSettings:
    """A Kafka that takes its time loses no batch: what was given up and sent again would be there twice."""
    return await _ready(kafka_servers, namespace, send_timeout=60.0)


async def _ready(servers: str, namespace: str, *, send_timeout: float = 1.0) -> KafkaSettings:
    settings = KafkaSettings(kafka_servers=servers, namespace=namespace, kafka_send_timeout=send_timeout)
    await provision(settings, topics=[TOPIC])
    return settings


def events(count: int, *, keys: int = 5, topic: str = TOPIC.name) -> list[Outgoing]:
    return [Outgoing(topic, f"key-{n % keys}", b"%d" % n, {"n": str(n)}) for n in range(count)]


async def on_record(settings: KafkaSettings, partitions: int = TOPIC.partitions) -> list[tuple[str, int]]:
    """(key, number) of all events, partition by partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        places = [TopicPartition(settings.namespace + TOPIC.name, p) for p in range(partitions)]
        ends = await consumer.end_offsets(places)
        consumer.assign(places)
        found: list[tuple[str, int]] = []
        while sum(ends.values()) > len(found):
            batches = await consumer.getmany(timeout_ms=1000)
            found += [
                (record.key.decode() if record.key else "", int(record.value))
                for records in batches.values()
                for record in records
            ]
        return found
    finally:
        await consumer.stop()


def order_holds(found: list[tuple[str, int]]) -> bool:
    by_key: dict[str, list[int]] = {}
    for key, number in found:
        by_key.setdefault(key, []).append(number)
    # an event may be there twice, but what is new comes in order
    return all(sorted(set(numbers)) == list(dict.fromkeys(numbers)) for numbers in by_key.values())


async def test_a_batch_is_sent_whole_and_in_order_per_key(settings: KafkaSettings) -> None:
    sender = Sender(settings)
    try:
        await sender.send(events(700))
        await sender.send([])
    finally:
        await sender.discard()
    found = await on_record(settings)
    assert sorted(number for _, number in found) == list(range(700))
    assert order_holds(found)


async def test_any_bytes_may_be_key_or_header_and_none_of_both(settings: KafkaSettings) -> None:
    headers = (("again", b"1"), ("again", b"\xff\x00"), ("nothing", None), ("n\x00me", b""))
    sender = Sender(settings)
    try:
        await sender.send(
            [Outgoing(TOPIC.name, b"\xff\xfe\x00", b"1", headers), Outgoing(TOPIC.name, None, b"\x00", ())]
        )
    finally:
        await sender.discard()
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_servers, auto_offset_reset="earliest")
    await consumer.start()
    found: list[tuple[object, ...]] = []
    try:
        consumer.assign([TopicPartition(settings.namespace + TOPIC.name, p) for p in range(TOPIC.partitions)])
        async with asyncio.timeout(20):
            while len(found) < 2:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    found += [(record.key, record.value, record.headers) for record in records]
    finally:
        await consumer.stop()
    assert {one[:2]: one[2] for one in found} == {(b"\xff\xfe\x00", b"1"): headers, (None, b"\x00"): ()}


async def test_what_one_batch_of_a_partition_does_not_hold_follows_in_the_next(settings: KafkaSettings) -> None:
    padding = b" " * 10_000
    sender = Sender(settings)
    try:
        # 1 MB for each of two keys, where a batch holds a quarter of that; and some without a key in between
        rows = [Outgoing(TOPIC.name, f"key-{n % 2}" if n % 10 else None, b"%d" % n + padding) for n in range(200)]
        await sender.send(rows)
    finally:
        await sender.discard()
    found = await on_record(settings)
    assert sorted(number for _, number in found) == list(range(200))
    assert order_holds([one for one in found if one[0]])


async def test_a_partition_that_came_later_is_used(settings: KafkaSettings) -> None:
    sender = Sender(settings)
    try:
        await sender.send(events(10))
        grown = TOPIC.model_copy(update={"partitions": 9})
        await provision(settings, topics=[grown])
        assert sender._producer is not None
        await sender._producer.client.force_metadata_update()
        await sender.send(events(200, keys=200))
    finally:
        await sender.discard()
    assert len(await on_record(settings, partitions=9)) == 210
    assert {number for _, number in await on_record(settings, partitions=3)} < set(range(200))


async def test_a_missing_topic_is_told_at_once_and_nothing_is_sent(settings: KafkaSettings) -> None:
    sender = Sender(settings)
    try:
        # aiokafka alone waits for a topic as long as for a batch
        started = time.monotonic()
        with pytest.raises(MissingTopic, match=r"python -m messaging\.provision") as caught:
            await sender.send([*events(1), *events(1, topic="not-there.v1")])
        assert time.monotonic() - started < settings.kafka_send_timeout / 2
        assert caught.value.topic == "not-there.v1"
        assert await on_record(settings) == []

        await provision(settings, topics=[TOPIC.model_copy(update={"name": "not-there.v1"})])
        await sender.send([*events(1), *events(1, topic="not-there.v1")])
    finally:
        await sender.discard()


@pytest.mark.parametrize("size", [2 * 1024 * 1024, 5 * 1024 * 1024], ids=["by the broker", "by the client"])
async def test_what_is_too_large_is_refused_and_the_next_batch_goes(settings: KafkaSettings, size: int) -> None:
    sender = Sender(settings)
    try:
        with pytest.raises(Refused):
            await sender.send([Outgoing(TOPIC.name, "large", b"0" * size)])
        await sender.send(events(3))
    finally:
        await sender.discard()
    assert sorted(await on_record(settings)) == [("key-0", 0), ("key-1", 1), ("key-2", 2)]


async def test_a_dead_letter_may_be_larger_than_what_it_came_from(settings: KafkaSettings) -> None:
    dead = TOPIC.model_copy(update={"name": "scene-images.dead-test.v1"})
    await provision(settings, topics=[dead])
    sender = Sender(settings)
    try:
        await sender.send([Outgoing(dead.name, "k", b"0" * 1_048_576, {"error-message": "m" * 1024})])
    finally:
        await sender.discard()


@pytest.mark.chaos
async def test_an_outage_is_an_exception_in_time_and_leaves_nothing_behind(
    private_kafka: Kafka, namespace: str
) -> None:
    settings = await _ready(private_kafka.servers, namespace)
    before = asyncio.all_tasks()
    sender = Sender(settings)
    await _sent(sender, events(100))
    await asyncio.to_thread(private_kafka.kill)
    for _ in range(3):
        async with asyncio.timeout(15):
            with pytest.raises(SendFailed):
                await sender.send(events(100))
    # a client that is only forgotten keeps trying for ever, and writes its old batch when Kafka is back
    async with asyncio.timeout(20):
        await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)
    await asyncio.to_thread(private_kafka.start)
    await _sent(sender, events(100))
    await sender.discard()
    found = await on_record(settings)
    assert {number for _, number in found} == set(range(100))


async def _sent(sender: Sender, batch: list[Outgoing]) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                return await sender.send(batch)
            except SendFailed:
                continue


@pytest.mark.chaos
async def test_a_kafka_that_hangs_is_given_up_in_time(private_kafka: Kafka, namespace: str) -> None:
    settings = await _ready(private_kafka.servers, namespace)
    sender = Sender(settings)
    await _sent(sender, events(10))
    await asyncio.to_thread(private_kafka.pause)
    try:
        async with asyncio.timeout(15):
            with pytest.raises(SendFailed):
                await sender.send(events(10))
    finally:
        await asyncio.to_thread(private_kafka.resume)
    await _sent(sender, events(10))
    await sender.discard()
