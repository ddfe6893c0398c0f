"""Relay and notifier are alive while they make progress, stand by, or wait for Kafka or Postgres."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from messaging.provision import provision
from messaging.sender import Outgoing, Sender, SendFailed
from producer.relay import Relay
from producer.relay import build as build_relay
from producer.relay_settings import RelaySettings
from schemas import topics
from storage.database import Database
from storage.settings import DatabaseSettings
from tests.flow.living import PERIODS, READERS, STALL, alive_for, down, hangs, moment, ready, stalled, until
from tests.flow.pushing import house, settings_for
from tests.flow.wire import Wire, wire_to
from tests.silent import silence
from web.health import Health

pytestmark = [pytest.mark.flow, pytest.mark.connected]

NOWHERE = "127.0.0.1:1"


@pytest.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    async with wire_to(database_url) as wire:
        yield wire


class Deaf(Sender):
    """As if the client hung: whatever is sent fails, though Kafka is there."""

    async def send(self, batch: Sequence[Outgoing]) -> None:
        raise SendFailed("Kafka did not take the batch: TimeoutError")


def _relay_settings(kafka_servers: str, namespace: str, database_url: str) -> RelaySettings:
    return RelaySettings(
        kafka_servers=kafka_servers,
        namespace=namespace,
        database_url=database_url,
        database_timeout=1.0,
        kafka_send_timeout=1.0,
        relay_poll=0.1,
        relay_backoff=0.2,
        **PERIODS,
    )


@contextlib.asynccontextmanager
async def _relaying(settings: RelaySettings, sender: Sender | None = None) -> AsyncIterator[tuple[Relay, Health]]:
    relay, health = build_relay(settings, sender=sender)
    stop = asyncio.Event()
    tasks = [
        asyncio.create_task(relay.run(stop)),
        asyncio.create_task(health.run(stop, every=settings.health_look)),
    ]
    try:
        yield relay, health
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def _outbox(database_url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Puts one status event into the outbox each time it is called."""
    database = Database(DatabaseSettings(database_url=database_url), application="test")

    async def tell() -> None:
        await database.fetch("INSERT INTO outbox (topic, key, body) VALUES ($1, 'k', '1')", topics.STATUS)

    try:
        yield tell
    finally:
        await database.close()


async def test_a_relay_whose_rows_do_not_go_and_the_one_that_stands_by(
    kafka_servers: str, namespace: str, database_url: str
) -> None:
    settings = _relay_settings(kafka_servers, namespace, database_url)
    await provision(settings, topics=[topics.BY_NAME[topics.STATUS]])
    async with _relaying(settings, Deaf(settings)) as (_, health), _outbox(database_url) as tell:
        await alive_for(health, 2 * STALL)
        await tell()
        why = await stalled(health, "outbox")
        assert "the lowest row of the outbox has not gone for" in why
        assert "Kafka did not take the batch" in why
        async with _relaying(settings) as (_, other):
            # it works, or waits for the lock of the one that fails: either is well
            await alive_for(other, STALL)


async def test_a_relay_that_hangs(kafka_servers: str, namespace: str, database_url: str) -> None:
    settings = _relay_settings(kafka_servers, namespace, database_url)
    relay, health = build_relay(settings)
    health._loops["relay"].within = STALL
    relay._step = hangs  # type: ignore[method-assign]
    stop = asyncio.Event()
    tasks = [asyncio.create_task(relay.run(stop)), asyncio.create_task(health.run(stop, every=0.2))]
    await stalled(health, "relay")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_relay_without_kafka_is_alive_and_not_ready(
    kafka_servers: str, namespace: str, database_url: str
) -> None:
    async with (
        _outbox(database_url) as tell,
        _relaying(_relay_settings(NOWHERE, namespace, database_url)) as (_, health),
    ):
        await tell()
        since = (await down(health, "kafka"))["since"]
        await alive_for(health, 3 * STALL)
        assert (await down(health, "kafka"))["since"] == since


async def test_a_relay_without_postgres_is_alive_and_not_ready(kafka_servers: str, namespace: str, wire: Wire) -> None:
    async with _relaying(_relay_settings(kafka_servers, namespace, wire.url)) as (_, health):
        await ready(health)
        await wire.cut()
        since = (await down(health, "postgres"))["since"]
        await alive_for(health, 3 * STALL)
        assert (await down(health, "postgres"))["since"] == since
        await wire.mend()
        await ready(health)


async def test_a_notifier_whose_reader_is_silent_however_often_it_is_made_anew(
    database_url: str, kafka_servers: str, namespace: str, tmp_path: Path
) -> None:
    settings = settings_for(database_url, kafka_servers, namespace, tmp_path, **PERIODS, **READERS)
    async with house(settings) as here:
        tail = here.notifier.events._tail
        user, chapter = uuid4(), uuid4()
        await here.accept(user, chapter)
        # mended once
        await silence(tail)
        record_id = await here.accept(user, chapter, scene=2)

        async def all_read() -> bool:
            return sum(tail.positions.values()) == 2

        await until(all_read)
        await _http_alive_for(here.http, 2 * STALL)
        # and never again
        await silence(tail, for_ever=True)
        await here.change(record_id, progress=1)

        async def is_stalled() -> bool:
            return (await here.http.get("/healthz")).status_code == 503

        await until(is_stalled)
        told = (await here.http.get("/healthz")).json()["loops"]["status events"]
        assert told["status"] == "stalled"
        assert "events wait and none comes" in told["detail"] or "the log cannot be read" in told["detail"]
        assert (await here.http.get("/readyz")).json()["dependencies"]["kafka"]["status"] == "down"


async def _http_alive_for(http: httpx.AsyncClient, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert (await http.get("/healthz")).status_code == 200
        await moment()
