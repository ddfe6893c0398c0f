"""`python -m producer.relay` as it is run: it serves its health, works, and leaves in time with everything gone."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import httpx
import pytest

from local import ports
from messaging.provision import provision
from messaging.settings import KafkaSettings
from schemas import topics

pytestmark = pytest.mark.connected

NOWHERE = "127.0.0.1:1"


@dataclass
class Process:
    child: asyncio.subprocess.Process
    url: str

    async def ready(
        self, status: int, down: str | None = None, *, within: float = 60.0
    ) -> dict[str, dict[str, object]]:
        """What /readyz says, as soon as it answers with `status` and tells `down` to be down."""
        async with asyncio.timeout(within), httpx.AsyncClient() as client:
            while True:
                assert self.child.returncode is None, "the relay ended"
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.get(f"{self.url}/readyz")
                    if answer.status_code == status:
                        dependencies: dict[str, dict[str, object]] = answer.json()["dependencies"]
                        if down is None or dependencies[down]["status"] == "down":
                            return dependencies
                await asyncio.sleep(0.05)

    async def stop(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(9):
            return await self.child.wait()


@contextlib.asynccontextmanager
async def relay(kafka: str, database: str, namespace: str = "") -> AsyncIterator[Process]:
    (port,) = ports.free(1)
    environment = {
        "PATH": os.environ["PATH"],
        "SCENEWIRE_KAFKA_SERVERS": kafka,
        "SCENEWIRE_DATABASE_URL": database,
        "SCENEWIRE_NAMESPACE": namespace,
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "producer.relay", "--port", str(port), env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield Process(child, f"http://127.0.0.1:{port}")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def test_it_relays_and_stops_when_asked(kafka_servers: str, database_url: str, namespace: str) -> None:
    await provision(KafkaSettings(kafka_servers=kafka_servers, namespace=namespace))
    connection = await asyncpg.connect(database_url)
    try:
        async with relay(kafka_servers, database_url, namespace) as process:
            await process.ready(200)
            await connection.execute("INSERT INTO outbox (topic, key, body) VALUES ($1, 'k', '1')", topics.STATUS)
            async with asyncio.timeout(60), httpx.AsyncClient() as client:
                while True:
                    text = (await client.get(f"{process.url}/metrics")).text
                    if f'scenewire_outbox_sent_total{{topic="{topics.STATUS}"}} 1.0' in text:
                        break
                assert "scenewire_relay_active 1.0" in text
                assert (await client.get(f"{process.url}/healthz")).status_code == 200
            assert await process.stop() == 0
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 0
    finally:
        await connection.close()


async def test_without_postgres_it_says_so_and_stops_when_asked(kafka_servers: str) -> None:
    async with relay(kafka_servers, f"postgresql://nobody:secret@{NOWHERE}/nothing") as process:
        dependencies = await process.ready(503, down="postgres")
        assert "secret" not in str(dependencies)
        assert await process.stop() == 0


async def test_without_kafka_it_says_so_and_stops_when_asked(database_url: str) -> None:
    async with relay(NOWHERE, database_url) as process:
        dependencies = await process.ready(503, down="kafka")
        assert dependencies["postgres"]["status"] == "up"
        assert await process.stop() == 0
