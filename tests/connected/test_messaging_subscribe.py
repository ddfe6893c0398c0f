"""An event is acknowledged when its handler returned, and never before."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiokafka import AIOKafkaProducer

from local.kafka import Kafka
from messaging.deliveries import Delivery
from messaging.provision import provision
from messaging.sender import Outgoing, Sender
from messaging.settings import KafkaSettings
from messaging.subscribe import Handler, Stopping, Subscriptions
from schemas.topics import Topic

pytestmark = pytest.mark.connected

TOPIC = Topic(name="work.v1", key="k", partitions=4, retention_ms=3_600_000, purpose="a test")
PATIENCE = 60.0
STOP_SECONDS = 5.0
"""More than it was given, a stop may take."""


@pytest.fixture
async def settings(kafka_servers: str, namespace: str) -> KafkaSettings:
    return await _ready(kafka_servers, namespace)


async def _ready(servers: str, namespace: str) -> KafkaSettings:
    settings = KafkaSettings(
        kafka_servers=servers, namespace=namespace, kafka_session=6.0, kafka_backoff=0.5, kafka_send_timeout=2.0
    )
    await provision(settings, topics=[TOPIC])
    return settings


@contextlib.asynccontextmanager
async def subscribed(settings: KafkaSettings, handler: Handler) -> AsyncIterator[Subscriptions]:
    subscriptions = Subscriptions(settings, group="workers")
    subscriptions.add(TOPIC.name, handler)
    await subscriptions.start()
    try:
        yield subscriptions
    finally:
        # what was handled is acknowledged: a commit may take its time
        await subscriptions.stop(PATIENCE)


async def publish(settings: KafkaSettings, bodies: list[bytes]) -> None:
    """Once each, however long Kafka takes for it."""
    sender = Sender(settings.model_copy(update={"kafka_send_timeout": PATIENCE}))
    try:
        await sender.send([Outgoing(TOPIC.name, f"key-{n}", body) for n, body in enumerate(bodies)])
    finally:
        await sender.discard()


async def until(condition: Callable[[], bool | Awaitable[bool]], within: float = PATIENCE) -> None:
    async with asyncio.timeout(within):
        while True:
            met = condition()
            if await met if isinstance(met, Awaitable) else met:
                return
            await asyncio.sleep(0.01)


class Seen:
    """A handler that keeps what it was given."""

    def __init__(self) -> None:
        self.events: list[Delivery] = []

    @property
    def bodies(self) -> list[bytes]:
        return [event.value for event in self.events]

    async def __call__(self, batch: list[Delivery]) -> None:
        self.events.extend(batch)


async def test_what_was_published_before_is_read_and_not_again_after_a_restart(settings: KafkaSettings) -> None:
    await publish(settings, [b"%d" % n for n in range(50)])
    first = Seen()
    async with subscribed(settings, first):
        await until(lambda: len(first.events) == 50)
    assert {event.topic for event in first.events} == {TOPIC.name}
    assert {event.key for event in first.events} == {f"key-{n}" for n in range(50)}

    await publish(settings, [b"new"])
    second = Seen()
    async with subscribed(settings, second):
        await until(lambda: bool(second.events))
    assert second.bodies == [b"new"]


async def test_stopping_leaves_the_batch_and_all_after_it(settings: KafkaSettings) -> None:
    gave_up = asyncio.Event()
    calls: list[int] = []

    async def leave(batch: list[Delivery]) -> None:
        calls.append(len(batch))
        gave_up.set()
        raise Stopping

    await publish(settings, [b"a", b"b"])
    async with subscribed(settings, leave) as subscriptions:
        await gave_up.wait()
        # another batch: its acknowledgement would cover the one that was left
        await publish(settings, [b"c"])
        assert (await subscriptions.progress())[0].handling_seconds is None
    assert len(calls) == 1

    seen = Seen()
    async with subscribed(settings, seen):
        await until(lambda: len(seen.events) == 3)
    assert sorted(seen.bodies) == [b"a", b"b", b"c"]


async def test_a_failing_handler_gets_the_same_batch_again(settings: KafkaSettings) -> None:
    batches: list[list[bytes]] = []
    called_at: list[float] = []
    done = asyncio.Event()

    async def fail_twice(batch: list[Delivery]) -> None:
        batches.append([event.value for event in batch])
        called_at.append(time.monotonic())
        if len(batches) < 3:
            raise RuntimeError("a bug")
        done.set()

    await publish(settings, [b"x"])
    async with subscribed(settings, fail_twice):
        async with asyncio.timeout(PATIENCE):
            await done.wait()
    assert batches == [[b"x"]] * 3
    assert called_at[1] - called_at[0] >= 0.2
    assert called_at[2] - called_at[1] >= 0.4


async def test_unreadable_events_reach_the_handler_as_they_are(settings: KafkaSettings) -> None:
    raw = AIOKafkaProducer(bootstrap_servers=settings.kafka_servers)
    await raw.start()
    try:
        topic = settings.namespace + TOPIC.name
        await raw.send_and_wait(
            topic, b"{ not json \xff\x00", key=b"\xfe", headers=[("content-type", b"application/json")], partition=0
        )
        await raw.send_and_wait(topic, b"binary header", headers=[("who", b"\xff\xfe")], partition=0)
        await raw.send_and_wait(topic, None, key=b"tombstone", partition=0)
    finally:
        await raw.stop()
    seen = Seen()
    async with subscribed(settings, seen):
        await until(lambda: len(seen.events) == 3)
    assert seen.bodies == [b"{ not json \xff\x00", b"binary header", b""]
    assert seen.events[0].key == "\ufffd"
    assert seen.events[1].original_headers == (("who", b"\xff\xfe"),)


async def test_a_second_member_loses_nothing(settings: KafkaSettings) -> None:
    first, second = Seen(), Seen()
    total = 300
    async with subscribed(settings, first) as a:
        await publish(settings, [b"%d" % n for n in range(100)])
        async with subscribed(settings, second) as b:
            await publish(settings, [b"%d" % n for n in range(100, 200)])
            await until(lambda: _shared(a, b))
            await publish(settings, [b"%d" % n for n in range(200, total)])
            await until(lambda: len({*first.bodies, *second.bodies}) == total)
            assert second.events
    third = Seen()
    await publish(settings, [b"last"])
    async with subscribed(settings, third):
        await until(lambda: b"last" in third.bodies)
    # everything before was acknowledged, by whoever had it
    assert third.bodies == [b"last"]


async def _shared(*members: Subscriptions) -> bool:
    counts = [(await member.progress())[0].partitions for member in members]
    return sum(counts) == TOPIC.partitions and all(counts)


async def test_progress_tells_lag_and_how_long_a_handler_runs(settings: KafkaSettings) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold(batch: list[Delivery]) -> None:
        entered.set()
        await leave.wait()

    async with subscribed(settings, hold) as subscriptions:
        await publish(settings, [b"x"])
        async with asyncio.timeout(PATIENCE):
            await entered.wait()
        (progress,) = await subscriptions.progress()
        assert progress.connected
        assert progress.partitions == TOPIC.partitions
        assert progress.handling_seconds is not None
        leave.set()
        await until(lambda: _idle(subscriptions))


async def _idle(subscriptions: Subscriptions) -> bool:
    (progress,) = await subscriptions.progress()
    return progress.handling_seconds is None and progress.lag == 0


async def test_a_handler_that_never_returns_does_not_hold_up_the_stop(settings: KafkaSettings) -> None:
    entered = asyncio.Event()

    async def hang(batch: list[Delivery]) -> None:
        entered.set()
        await asyncio.Event().wait()

    await publish(settings, [b"x"])
    subscriptions = Subscriptions(settings, group="workers")
    subscriptions.add(TOPIC.name, hang)
    await subscriptions.start()
    async with asyncio.timeout(PATIENCE):
        await entered.wait()
    async with asyncio.timeout(0.5 + STOP_SECONDS):
        await subscriptions.stop(0.5)
    seen = Seen()
    async with subscribed(settings, seen):
        await until(lambda: seen.bodies == [b"x"])


@pytest.mark.chaos
async def test_an_outage_of_kafka_needs_no_hand(private_kafka: Kafka, namespace: str) -> None:
    settings = await _ready(private_kafka.servers, namespace)
    seen = Seen()
    async with subscribed(settings, seen):
        await publish(settings, [b"before"])
        await until(lambda: b"before" in seen.bodies)
        await asyncio.to_thread(private_kafka.kill)
        await asyncio.to_thread(private_kafka.start)
        await publish(settings, [b"after"])
        await until(lambda: b"after" in seen.bodies)
    assert sorted(set(seen.bodies)) == [b"after", b"before"]


@pytest.mark.chaos
async def test_start_and_stop_do_not_wait_for_kafka(private_kafka: Kafka, namespace: str) -> None:
    settings = await _ready(private_kafka.servers, namespace)
    await publish(settings, [b"x"])
    await asyncio.to_thread(private_kafka.kill)
    seen = Seen()
    subscriptions = Subscriptions(settings, group="workers")
    subscriptions.add(TOPIC.name, seen)
    async with asyncio.timeout(10):
        await subscriptions.start()
    assert not (await subscriptions.progress())[0].connected
    await asyncio.to_thread(private_kafka.start)
    await until(lambda: seen.bodies == [b"x"])
    await asyncio.to_thread(private_kafka.kill)
    async with asyncio.timeout(1.0 + STOP_SECONDS):
        await subscriptions.stop(1.0)
