"""Readers that go silent although Kafka answers are made anew; topics that are missing are made, and logs that took the
place of others are noticed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from local.kafka import Kafka
from messaging.deliveries import Delivery
from messaging.lookout import Lookout
from messaging.provision import KafkaAway, provision
from messaging.sender import Outgoing, Sender
from messaging.settings import KafkaSettings
from messaging.subscribe import Handler, Subscriptions
from messaging.tail import OtherLog, Tail
from schemas.topics import BY_NAME, STATUS
from telemetry import metrics
from tests.silent import silence

pytestmark = pytest.mark.connected

TOPIC = BY_NAME[STATUS]
WITHIN = 60.0


@pytest.fixture
async def settings(kafka_servers: str, namespace: str) -> KafkaSettings:
    settings = _settings(kafka_servers, namespace)
    await provision(settings, topics=[TOPIC])
    return settings


def _settings(servers: str, namespace: str) -> KafkaSettings:
    return KafkaSettings(
        kafka_servers=servers,
        namespace=namespace,
        kafka_session=6.0,
        kafka_backoff=0.5,
        kafka_send_timeout=4.0,
        kafka_watch=0.2,
        kafka_stall=0.5,
    )


@contextlib.asynccontextmanager
async def subscribed(settings: KafkaSettings, handler: Handler) -> AsyncIterator[Subscriptions]:
    subscriptions = Subscriptions(settings, group="workers")
    subscriptions.add(TOPIC.name, handler)
    await subscriptions.start()
    try:
        yield subscriptions
    finally:
        await subscriptions.stop(1.0)


class Follower:
    """A tail that is read in a task of its own, from the first event of whatever log is there."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.tail = Tail(settings, TOPIC.name)
        self.bodies: list[bytes] = []
        self.logs: list[bytes | None] = []

    async def follow(self) -> None:
        while True:
            await self.tail.start({})
            self.logs.append(self.tail.log)
            try:
                async for batch in self.tail.batches():
                    self.bodies += [event.value for event in batch]
                return
            except OtherLog:
                continue


@contextlib.asynccontextmanager
async def following(settings: KafkaSettings) -> AsyncIterator[Follower]:
    follower = Follower(settings)
    task = asyncio.create_task(follower.follow())
    try:
        yield follower
    finally:
        await follower.tail.stop()
        async with asyncio.timeout(10):
            await task


async def publish(settings: KafkaSettings, *bodies: bytes) -> None:
    """Once each, however long Kafka takes for it."""
    sender = Sender(settings.model_copy(update={"kafka_send_timeout": WITHIN}))
    try:
        await sender.send([Outgoing(TOPIC.name, f"key-{n}", body) for n, body in enumerate(bodies)])
    finally:
        await sender.discard()


async def until(condition: Callable[[], bool | Awaitable[bool]], within: float = WITHIN) -> None:
    async with asyncio.timeout(within):
        while True:
            met = condition()
            if await met if isinstance(met, Awaitable) else met:
                return
            await asyncio.sleep(0.01)


def _renewed(reason: str) -> float:
    return metrics.of_process().value("readers_renewed", reason=reason)


def _paused(consumer: Any) -> None:
    consumer.pause(*consumer.assignment())


def _fetches_no_more(consumer: Any) -> None:
    consumer._fetcher._fetch_task.cancel()


class Seen:
    """A handler that keeps what is new to it: what was not acknowledged in time may come again."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, batch: list[Delivery]) -> None:
        self.bodies += [event.value for event in batch if event.value not in self.bodies]


@pytest.mark.parametrize("wedge", [_paused, _fetches_no_more])
async def test_a_subscription_that_went_silent_goes_on(settings: KafkaSettings, wedge: Callable[[Any], None]) -> None:
    seen = Seen()
    async with subscribed(settings, seen) as subscriptions:
        await publish(settings, b"before")
        await until(lambda: seen.bodies == [b"before"])
        renewed = _renewed("silent")
        wedge(subscriptions._subscriptions[0]._subscriber.consumer)
        # a fetch that was under way may still bring the first
        for number, body in enumerate([b"one", b"two"], start=2):
            await publish(settings, body)
            await until(lambda number=number: len(seen.bodies) == number)  # type: ignore[misc]
        assert seen.bodies == [b"before", b"one", b"two"]
        assert _renewed("silent") > renewed
        await until(lambda: _goes_on(subscriptions))


async def _goes_on(subscriptions: Subscriptions) -> bool:
    return await subscriptions.stuck() is None


async def test_a_handler_that_does_not_return_is_told_and_left_alone(settings: KafkaSettings) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hang(batch: list[Delivery]) -> None:
        entered.set()
        await leave.wait()

    async with subscribed(settings, hang) as subscriptions:
        await publish(settings, b"x")
        await entered.wait()
        renewed = _renewed("silent")

        async def told() -> bool:
            return "handler has not come to an end" in (await subscriptions.stuck() or "")

        await until(told)
        leave.set()
        await until(lambda: _goes_on(subscriptions))
        assert _renewed("silent") == renewed


async def test_a_subscription_that_is_given_no_partitions_is_made_anew(settings: KafkaSettings) -> None:
    seen = Seen()
    impatient = settings.model_copy(update={"kafka_session": 1.0})
    async with subscribed(settings, seen) as subscriptions:
        await until(lambda: _has_partitions(subscriptions))
        subscription = subscriptions._subscriptions[0]
        subscription._settings = impatient
        # as in the middle of a rebalance that never ends
        subscription._subscriber.consumer._subscription.subscription._begin_reassignment()  # type: ignore[union-attr]
        subscription._subscriber.consumer._coordinator._coordination_task.cancel()  # type: ignore[union-attr]
        renewed = _renewed("left_out")
        await publish(settings, b"x")
        await until(lambda: seen.bodies == [b"x"])
        # a group that takes its time for the new one may leave that out as well
        assert _renewed("left_out") > renewed


async def _has_partitions(subscriptions: Subscriptions) -> bool:
    return (await subscriptions.progress())[0].partitions == TOPIC.partitions


async def test_a_tail_that_went_silent_goes_on_where_it_was(settings: KafkaSettings) -> None:
    async with following(settings) as follower:
        await publish(settings, b"before")
        await until(lambda: follower.bodies == [b"before"])
        renewed = _renewed("silent")
        await silence(follower.tail)
        for number, body in enumerate([b"one", b"two"], start=2):
            await publish(settings, body)
            await until(lambda number=number: len(follower.bodies) == number)  # type: ignore[misc]
        assert follower.bodies == [b"before", b"one", b"two"]
        assert _renewed("silent") > renewed
        assert len(follower.logs) == 1
        await until(lambda: follower.tail.stuck is None)


async def test_a_topic_that_is_missing_is_made(kafka_servers: str, namespace: str) -> None:
    settings = _settings(kafka_servers, namespace)
    seen = Seen()
    async with subscribed(settings, seen) as subscriptions:
        await until(lambda: _has_partitions(subscriptions))
        await publish(settings, b"x")
        await until(lambda: seen.bodies == [b"x"])


async def test_a_topic_that_was_made_anew_is_read_from_its_first_event(settings: KafkaSettings) -> None:
    seen = Seen()
    async with subscribed(settings, seen), following(settings) as follower:
        await publish(settings, *(b"old-%d" % n for n in range(40)))
        await until(lambda: len(seen.bodies) == len(follower.bodies) == 40)
        await _delete(settings)
        # as many as before, so that no offset is out of range: whoever went on from its position would miss them
        await provision(settings, topics=[TOPIC])
        new = [b"new-%d" % n for n in range(40)]
        await publish(settings, *new)
        await until(lambda: set(new) <= set(seen.bodies))
        await until(lambda: set(new) <= set(follower.bodies))
        assert len(set(follower.logs)) == 2


async def _delete(settings: KafkaSettings) -> None:
    lookout = Lookout(settings)
    deleted = (await lookout.logs([TOPIC.name]))[TOPIC.name].id
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_servers)
    await admin.start()
    try:
        await admin.delete_topics([settings.namespace + TOPIC.name])
    finally:
        await admin.close()

    async def gone() -> bool:
        # somebody who misses it may already have made it again
        found = (await lookout.logs([TOPIC.name])).get(TOPIC.name)
        return found is None or found.id != deleted

    await until(gone)
    await lookout.close()


async def test_a_lookout_tells_topics_ends_and_that_kafka_is_away(settings: KafkaSettings) -> None:
    lookout = Lookout(settings)
    await publish(settings, b"a", b"b", b"c")
    found = await lookout.logs([TOPIC.name, "nobody-made-this"])
    assert found.keys() == {TOPIC.name}
    assert found[TOPIC.name].whole
    assert found[TOPIC.name].id is not None
    assert found[TOPIC.name].leaders.keys() == set(range(TOPIC.partitions))
    ends = await lookout.ends([TOPIC.name, "nobody-made-this"], committed=True)
    assert sum(ends[TOPIC.name].values()) == 3
    await lookout.close()
    nowhere = Lookout(settings.model_copy(update={"kafka_servers": "127.0.0.1:1"}))
    with pytest.raises(KafkaAway):
        await nowhere.logs([])


@pytest.mark.chaos
async def test_a_lookout_outlives_a_kafka_that_stands_still(private_kafka: Kafka, namespace: str) -> None:
    settings = _settings(private_kafka.servers, namespace)
    lookout = Lookout(settings)
    assert await lookout.logs([TOPIC.name]) == {}
    private_kafka.pause()
    async with asyncio.timeout(2 * settings.kafka_send_timeout):
        with pytest.raises(KafkaAway):
            await lookout.logs([TOPIC.name])
    private_kafka.resume()
    await until(lambda: _answers(lookout))
    await lookout.close()


async def _answers(lookout: Lookout) -> bool:
    try:
        return await lookout.logs([]) == {}
    except KafkaAway:
        return False
