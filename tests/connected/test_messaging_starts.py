"""A reader that is stopped while it starts: nothing of it is left behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from messaging.deliveries import Delivery
from messaging.provision import provision
from messaging.settings import KafkaSettings
from messaging.subscribe import Subscriptions
from schemas.topics import Topic

pytestmark = pytest.mark.connected

TOPIC = Topic(name="work.v1", key="k", partitions=1, retention_ms=3_600_000, purpose="a test")
PATIENCE = 10.0


class Slow:
    """The way to a Kafka whose second answer, to who asks for its cluster, is held back until `go` is set. `left`: the
    client has closed its line."""

    def __init__(self, servers: str) -> None:
        self._host, _, port = servers.rpartition(":")
        self._port = int(port)
        self.asked, self.go, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        try:
            for held in (False, True):
                far_writer.write(await reader.read(65536))
                answer = await far_reader.read(65536)
                if held:
                    self.asked.set()
                    await self.go.wait()
                writer.write(answer)
            await reader.read()
            self.left.set()
        finally:
            far_writer.close()
            writer.close()


async def _takes(batch: list[Delivery]) -> None:
    pass


async def test_a_stop_in_the_middle_of_a_start_leaves_no_line_open(kafka_servers: str, namespace: str) -> None:
    settings = KafkaSettings(kafka_servers=kafka_servers, namespace=namespace)
    await provision(settings, topics=[TOPIC])
    slow = Slow(settings.kafka_servers)
    async with slow.listening() as address:
        subscriptions = Subscriptions(settings.model_copy(update={"kafka_servers": address}), group="workers")
        subscriptions.add(TOPIC.name, _takes)
        await subscriptions.start()
        async with asyncio.timeout(PATIENCE):
            await slow.asked.wait()
            stopping = asyncio.create_task(subscriptions.stop(0.0))
            # as far as it gets without an answer
            for _ in range(10):
                await asyncio.sleep(0)
            slow.go.set()
            await stopping
            await slow.left.wait()
