"""The processes around one consumer under the provider's moods: simulator, producer for its webhooks, consumer, and a
collector of its spans.
"""

import asyncio
import json
import os
import sys
import zlib
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from consumer.settings import ConsumerSettings

CHECKOUT = Path(__file__).resolve().parents[2]
_START_WITHIN = 60.0


@asynccontextmanager
async def _process(*module: str, environment: Mapping[str, str], log: Path) -> AsyncIterator[None]:
    """`python -m ...`, what it says appended to `log`; it must not end by itself."""
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *module),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), **environment},
            stdin=DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield
        assert process.returncode is None, f"it ended by itself: see {log}"
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(30):
            await process.wait()


async def _listening(log: Path, since: int) -> str:
    """Where the process that has just been started listens."""
    async with asyncio.timeout(_START_WITHIN):
        while True:
            if (event := _first(log, since, "listening")) is not None:
                return f"http://{event['host']}:{event['port']}"
            await asyncio.sleep(0.02)


def _first(log: Path, since: int, name: str) -> dict[str, Any] | None:
    for line in log.read_bytes()[since:].splitlines():
        with suppress(ValueError):
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                return event
    return None


@asynccontextmanager
async def simulator(key: str) -> AsyncIterator[httpx.AsyncClient]:
    """Real sockets, really cut; with pictures from the shelf."""
    options = ("--port", "0", "--profile", "instant", "--slots", "1000", "--prerender", "4")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local.modelslab", *options),
        env={**os.environ, "SCENEWIRE_SIMULATOR_KEY": key},
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_START_WITHIN):
            said = (await process.stdout.readline()).decode()
        async with httpx.AsyncClient(base_url=said.split(" on ")[1].split(",")[0], timeout=30) as client:
            yield client
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class Collector:
    """Takes the spans that a process exports; `spans` are their bytes, as they came over the line."""

    def __init__(self) -> None:
        self.spans = b""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(int(length.partition(b":")[2]))
                self.spans += zlib.decompress(body, wbits=31) if b"content-encoding: gzip" in head else body
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()


class Consumers:
    """`python -m consumer` on a line's settings, with the periods of a test; all that they say is in `log`."""

    def __init__(self, settings: ConsumerSettings, *, key: str, provider: str, spans: str, log: Path) -> None:
        self.log = log
        log.touch()
        self._shared = {
            "SCENEWIRE_DATABASE_URL": settings.database_url,
            "SCENEWIRE_JWT_SECRET": "0123456789abcdef0123456789abcdef",
            "SCENEWIRE_LOG_LEVEL": "debug",
            "OTEL_EXPORTER_OTLP_ENDPOINT": spans,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        self._own = {
            "MODELSLAB_API_KEY": key,
            "MODELSLAB_BASE_URL": provider,
            "SCENEWIRE_KAFKA_SERVERS": settings.kafka_servers,
            "SCENEWIRE_NAMESPACE": settings.namespace,
            "SCENEWIRE_MEDIA_URL": settings.media_url,
            "SCENEWIRE_PROVIDER_SLOTS": "12",
            "SCENEWIRE_SUBMIT_TIMEOUT": "5",
            "SCENEWIRE_RETRY_DELAYS": "0.1,0.1,0.1",
            "SCENEWIRE_UNCERTAIN_GRACE": "6",
            "SCENEWIRE_POLL_INTERVAL": "0.2",
            "SCENEWIRE_SWEEP": "0.1",
            "SCENEWIRE_STORING_RETRY": "0.1",
            "SCENEWIRE_STORING_RETRY_LONGEST": "0.2",
            "SCENEWIRE_DOWNLOAD_FRESH_FOR": "1",
            "SCENEWIRE_DOWNLOAD_FRESH_RETRY": "0.2",
            "SCENEWIRE_DRAIN": "1",
            # each mode by itself: together they are more than any breaker bears
            "SCENEWIRE_BREAKER_DENIALS": "100000",
            "SCENEWIRE_BREAKER_OUTAGES": "100000",
        }

    def say(self, more: bytes) -> None:
        with self.log.open("ab") as log:
            log.write(more)

    @asynccontextmanager
    async def running(self, settings: Mapping[str, str], *, webhooks: bool = False) -> AsyncIterator[str]:
        """One consumer, and with `webhooks` a producer that takes them; gives the consumer's own address."""
        if webhooks:
            since = self.log.stat().st_size
            async with _process("producer", "--port", "0", environment=self._shared, log=self.log):
                public = {"SCENEWIRE_PUBLIC_URL": await _listening(self.log, since)}
                async with self.running({**settings, **public}) as url:
                    yield url
            return
        since = self.log.stat().st_size
        environment = self._shared | self._own | dict(settings)
        async with _process("consumer", "--port", "0", environment=environment, log=self.log):
            yield await _listening(self.log, since)
