"""The outbox reaches Kafka: in order per key, by one relay at a time, whatever is away or wrong."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from local import ports
from local.kafka import Kafka
from local.postgres import Postgres
from messaging.provision import provision
from producer.relay import Away, Relay, build
from producer.relay_settings import RelaySettings
from schemas import topics
from schemas.errors import ErrorClass
from storage import deadletters
from storage.database import Database, Unavailable
from storage.deadletters import DeadEvent
from storage.originals import Original
from storage.outbox import OutboxReader
from storage.settings import DatabaseSettings
from telemetry import metrics

pytestmark = pytest.mark.connected

STATUS = topics.BY_NAME[topics.STATUS]
FAILED = topics.BY_NAME[topics.FAILED]
PATIENCE = 60.0


def _settings(servers: str, namespace: str, url: str) -> RelaySettings:
    return RelaySettings(
        kafka_servers=servers,
        namespace=namespace,
        database_url=url,
        database_timeout=2.0,
        kafka_send_timeout=2.0,
        relay_poll=0.2,
        relay_backoff=0.5,
    )


@pytest.fixture
async def settings(kafka_servers: str, namespace: str, database_url: str) -> RelaySettings:
    """A Kafka that takes its time is no outage: what was given up and sent again would be there twice."""
    patient = {"kafka_send_timeout": PATIENCE, "database_timeout": PATIENCE}
    settings = _settings(kafka_servers, namespace, database_url).model_copy(update=patient)
    await provision(settings, topics=[STATUS])
    return settings


class Writer:
    """Puts rows into the outbox as the other rooms do."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.connection = connection
        self.written = 0

    async def write(self, count: int, *, topic: str = STATUS.name, keys: int = 4, body: bytes | None = None) -> None:
        async with self.connection.transaction():
            for _ in range(count):
                await self.connection.execute(
                    "INSERT INTO outbox (topic, key, headers, body) VALUES ($1, $2, $3, $4)",
                    topic,
                    f"key-{self.written % keys}",
                    json.dumps({"n": str(self.written)}),
                    body or b"%d" % self.written,
                )
                self.written += 1
            await self.connection.execute("SELECT pg_notify('scenewire_outbox', '')")

    async def waiting(self) -> int:
        return int(await self.connection.fetchval("SELECT count(*) FROM outbox"))

    async def empty(self, within: float = PATIENCE) -> None:
        async with asyncio.timeout(within):
            while True:
                if not await self.waiting():
                    return
                await asyncio.sleep(0.01)


@pytest.fixture
async def writer(database_url: str) -> AsyncIterator[Writer]:
    connection = await asyncpg.connect(database_url)
    yield Writer(connection)
    await connection.close()


@contextlib.asynccontextmanager
async def relaying(settings: RelaySettings) -> AsyncIterator[Relay]:
    relay, _ = build(settings)
    stop = asyncio.Event()
    task = asyncio.create_task(relay.run(stop))
    try:
        yield relay
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await task


async def on_record(settings: RelaySettings, topic: topics.Topic = STATUS) -> list[tuple[str, int, dict[str, bytes]]]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(settings.namespace + topic.name, p) for p in range(topic.partitions)]
        ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        found: list[tuple[str, int, dict[str, bytes]]] = []
        while sum(ends.values()) > len(found):
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += [(record.key.decode(), int(record.value), dict(record.headers)) for record in records]
        return found
    finally:
        await consumer.stop()


def _ordered(found: list[tuple[str, int, dict[str, bytes]]]) -> bool:
    by_key: dict[str, list[int]] = {}
    for key, number, _ in found:
        by_key.setdefault(key, []).append(number)
    return all(list(dict.fromkeys(numbers)) == sorted(set(numbers)) for numbers in by_key.values())


async def test_rows_arrive_once_in_order_with_their_headers_and_are_deleted(
    settings: RelaySettings, writer: Writer
) -> None:
    await writer.write(1200)
    async with relaying(settings):
        await writer.empty()
        await writer.write(3)
        await writer.empty()
    found = await on_record(settings)
    assert sorted(number for _, number, _ in found) == list(range(1203))
    assert _ordered(found)
    _, number, headers = found[0]
    assert headers == {"content-type": b"application/cloudevents+json", "n": b"%d" % number}


async def test_bytes_that_were_no_event_are_not_called_one(settings: RelaySettings, writer: Writer) -> None:
    poison = topics.BY_NAME[topics.dead(ErrorClass.POISON)]
    await provision(settings, topics=[poison])
    database = Database(settings, application="test")
    read = DeadEvent(
        ErrorClass.POISON,
        "unreadable",
        "not JSON",
        topics.STATUS,
        0,
        3,
        "key-0",
        b"7",
        Original(b"key-0"),
        received_at=datetime.now(UTC),
    )
    try:
        # read again after a rebalance: told once
        assert [await deadletters.bury(database, [read]) for _ in range(2)] == [1, 0]
    finally:
        await database.close()
    async with relaying(settings):
        await writer.empty()
    ((key, number, headers),) = await on_record(settings, poison)
    assert (key, number) == ("key-0", 7)
    assert headers["content-type"] == b"application/octet-stream"
    assert (headers["origin-offset"], headers["error-code"]) == (b"3", b"unreadable")


async def test_a_committed_row_wakes_the_relay(settings: RelaySettings, writer: Writer) -> None:
    slow = settings.model_copy(update={"relay_poll": PATIENCE})
    async with relaying(slow) as relay:
        await _ready(relay)
        await writer.write(1)
        await writer.empty(within=slow.relay_poll / 2)


async def _ready(relay: Relay, within: float = PATIENCE) -> None:
    async with asyncio.timeout(within):
        while True:
            with contextlib.suppress(Away):
                await relay.check("postgres")
                await relay.check("kafka")
                if metrics.of_process().value("relay_active"):
                    return
            await asyncio.sleep(0.01)


async def test_a_row_that_commits_late_is_not_overlooked(
    settings: RelaySettings, writer: Writer, database_url: str
) -> None:
    other = await asyncpg.connect(database_url)
    try:
        async with relaying(settings):
            async with other.transaction():
                # takes the lower id and commits last
                await other.execute("INSERT INTO outbox (topic, key, body) VALUES ($1, 'key-0', '1000')", STATUS.name)
                await writer.write(5)
                await writer.empty()
            await writer.empty()
    finally:
        await other.close()
    assert {number for _, number, _ in await on_record(settings)} == {0, 1, 2, 3, 4, 1000}


async def test_one_relays_and_the_other_takes_over(settings: RelaySettings, writer: Writer) -> None:
    async with contextlib.AsyncExitStack() as first:
        await first.enter_async_context(relaying(settings))
        await writer.write(1)
        await writer.empty()
        async with relaying(settings):
            for _ in range(10):
                await writer.write(20)
            await first.aclose()
            for _ in range(10):
                await writer.write(20)
            await writer.empty()
    found = await on_record(settings)
    assert {number for _, number, _ in found} == set(range(401))
    assert _ordered(found)


async def test_a_relay_whose_connection_was_ended_comes_back(settings: RelaySettings, writer: Writer) -> None:
    async with relaying(settings):
        await writer.write(10)
        await writer.empty()
        ended = await writer.connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'scenewire-relay' AND datname = current_database()"
        )
        assert ended == 1
        await writer.write(10)
        await writer.empty()
    assert {number for _, number, _ in await on_record(settings)} == set(range(20))


async def test_a_standby_remembers_no_outage_that_is_anothers_business(database_url: str) -> None:
    (nobody,) = ports.free(1)
    settings = RelaySettings(
        database_url=database_url,
        kafka_servers=f"127.0.0.1:{nobody}",
        kafka_send_timeout=0.4,
        relay_poll=0.05,
        relay_backoff=0.05,
    )
    other = OutboxReader(settings)
    await other.open()
    try:
        async with relaying(settings) as relay, asyncio.timeout(PATIENCE):
            await _until(lambda: relay.check("kafka"), fails=True)
            await _holds(other)
            await _until(lambda: relay.check("kafka"), fails=False)
            await relay.check("postgres")
    finally:
        await other.close()


async def _holds(outbox: OutboxReader) -> None:
    """Until it has the lock."""
    while True:
        if await outbox.acquire():
            return
        await asyncio.sleep(0.01)


async def _until(check: Callable[[], Awaitable[None]], *, fails: bool) -> None:
    while True:
        try:
            await check()
            failed = False
        except Away:
            failed = True
        if failed is fails:
            return
        await asyncio.sleep(0.01)


async def test_one_that_stands_still_loses_the_lock(database_url: str) -> None:
    settings = DatabaseSettings(database_url=database_url)
    frozen, other = OutboxReader(settings, silence=0.3), OutboxReader(settings)
    try:
        async with asyncio.timeout(PATIENCE):
            while not await _opened_and_locked(frozen):
                pass
            await other.open()
            # its kernel goes on answering for it, so that no keepalive ends it
            await _holds(other)
        with pytest.raises(Unavailable):
            await frozen.lowest(1)
    finally:
        await frozen.close()
        await other.close()


async def _opened_and_locked(outbox: OutboxReader) -> bool:
    """Not, where the machine itself stood still between the two for as long as it may be silent."""
    try:
        await outbox.open()
        return await outbox.acquire()
    except Unavailable:
        await outbox.close()
        return False


async def test_a_missing_topic_is_made(settings: RelaySettings, writer: Writer) -> None:
    async with relaying(settings):
        await writer.write(3, topic=FAILED.name)
        await writer.empty()
    assert len(await on_record(settings, FAILED)) == 3


@pytest.mark.parametrize(
    ("topic", "body", "code"),
    [(STATUS.name, b"0" * 5_000_000, "not_sendable"), ("nobody-lists-this", b"1", "unknown_topic")],
    ids=["too large", "unknown topic"],
)
async def test_what_can_never_be_sent_holds_up_nobody(
    settings: RelaySettings, writer: Writer, topic: str, body: bytes, code: str
) -> None:
    await writer.write(5)
    await writer.write(1, topic=topic, body=body)
    await writer.write(5)
    async with relaying(settings):
        await writer.empty()
    assert {number for _, number, _ in await on_record(settings)} == {*range(5), *range(6, 11)}
    (buried,) = await writer.connection.fetch("SELECT * FROM dead_letters")
    assert (buried["error_code"], buried["topic"], buried["body"]) == (code, topic, body)
    assert json.loads(buried["headers"]) == {"n": "5", "key": "key-1"}


@pytest.mark.chaos
async def test_kafka_away_loses_nothing_and_is_told(
    private_kafka: Kafka, namespace: str, database_url: str, writer: Writer
) -> None:
    settings = _settings(private_kafka.servers, namespace, database_url)
    await provision(settings, topics=[STATUS])
    async with relaying(settings) as relay:
        await writer.write(10)
        await writer.empty()
        await asyncio.to_thread(private_kafka.kill)
        await writer.write(10)
        await _away(relay, "kafka")
        await relay.check("postgres")
        assert await writer.waiting() == 10
        await asyncio.to_thread(private_kafka.start)
        await writer.write(10)
        await writer.empty()
        await _ready(relay)
    found = await on_record(settings)
    assert {number for _, number, _ in found} == set(range(30))
    assert _ordered(found)


@pytest.mark.chaos
async def test_postgres_away_needs_no_hand(kafka_servers: str, namespace: str, private_postgres: Postgres) -> None:
    settings = _settings(kafka_servers, namespace, private_postgres.url())
    await provision(settings, topics=[STATUS])
    async with relaying(settings) as relay:
        await _ready(relay)
        await asyncio.to_thread(private_postgres.kill)
        await _away(relay, "postgres")
        await asyncio.to_thread(private_postgres.start)
        connection = await asyncpg.connect(private_postgres.url())
        try:
            writer = Writer(connection)
            await writer.write(10)
            await writer.empty()
        finally:
            await connection.close()
    assert {number for _, number, _ in await on_record(settings)} == set(range(10))


async def _away(relay: Relay, dependency: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await relay.check(dependency)
            except Away:
                return
            await asyncio.sleep(0.01)
