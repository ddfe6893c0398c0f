"""One consumer with thousands of image generations in flight: what each costs in memory and CPU."""

import asyncio
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ground import Figure, Ground, Site, connected, cpu_of, rss_kb, running, until, wait_for_dispatch

from local.python import PythonServer

FIGURES = {
    "burst, submits open at once": Figure(""),
    "burst, memory a generation in flight": Figure("KB", 40, others="130, 38 marginal (gevent under Celery)"),
    "burst, consumer's memory before it": Figure("MB"),
    "burst, seconds until all were open": Figure("s"),
    "burst, consumer's CPU until all were open": Figure("s"),
    "burst, consumer's CPU until all pictures were stored": Figure("s", others="33 (one httpx pool), 9 (pools of 100)"),
    "burst, consumer's memory at most, above that before": Figure("MB"),
    "burst, seconds until all pictures were stored": Figure("s"),
}
_WARM = 20
_ALL_DONE = "SELECT NOT EXISTS (SELECT FROM image_generations WHERE status NOT IN ('completed', 'failed'))"
_REST = "UPDATE provider_slots SET free_at = 'infinity'"
_GO = "UPDATE provider_slots SET free_at = now()"


@dataclass(frozen=True, slots=True)
class Sample:
    """The consumer at one moment: open submits, submits so far, memory in KB, CPU in seconds."""

    time: float
    open: int
    submits: int
    memory: float
    cpu: float


async def measure(ground: Ground, *, count: int, latency: float, tls: bool) -> dict[str, float]:
    """`count` records for as many slots; the provider answers each submit after `latency` seconds."""
    async with ground.site() as site:
        arguments, given = ["--latency", str(latency)], {"SCENEWIRE_PROVIDER_SLOTS": str(count)}
        if tls:
            given["SSL_CERT_FILE"] = str(_certificate(site.folder))
            arguments += ["--certificate", given["SSL_CERT_FILE"]]
        provider = site.process("provider", "bench.provider", arguments, "/stats")
        base = f"https://localhost:{provider.port + 1}" if tls else provider.http_url
        consumer = site.process("consumer", "consumer", MODELSLAB_BASE_URL=base, **given)
        with running(provider), running(consumer):
            return await _burst(site, provider, consumer, count, latency)


def _certificate(folder: Path) -> Path:
    """For localhost, key and certificate in one file."""
    key, file = folder / "key.pem", folder / "localhost.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(file)]
    subprocess.run(["openssl", *options.split(), *names], check=True, capture_output=True)
    file.write_text(key.read_text() + file.read_text())
    return file


async def _burst(
    site: Site, provider: PythonServer, consumer: PythonServer, count: int, latency: float
) -> dict[str, float]:
    async with (
        site.database() as database,
        connected(site) as connection,
        httpx.AsyncClient(base_url=provider.http_url) as client,
    ):
        await wait_for_dispatch(database, _WARM)
        await until(connection, _ALL_DONE, seconds=latency + 60)
        await connection.execute(_REST)
        await wait_for_dispatch(database, count)
        before = await _sample(client, consumer)
        await connection.execute(_GO)
        samples = [before]
        while samples[-1].submits < before.submits + count or samples[-1].open:
            await asyncio.sleep(0.1)
            samples.append(await _sample(client, consumer))
        while not await connection.fetchval(_ALL_DONE):
            await asyncio.sleep(0.1)
            samples.append(await _sample(client, consumer))
        failed = await connection.fetchval("SELECT count(*) FROM image_generations WHERE status = 'failed'")
        assert not failed, f"{failed} image generations failed"
    # the last moment at which the most were open: whatever opening took in passing has been given back
    full = max(samples, key=lambda sample: (sample.open, sample.time))
    opened = next(sample for sample in samples if sample.submits >= before.submits + count)
    end = samples[-1]
    return {
        "burst, submits open at once": full.open,
        "burst, memory a generation in flight": (full.memory - before.memory) / full.open,
        "burst, consumer's memory before it": before.memory / 1024,
        "burst, seconds until all were open": opened.time - before.time,
        "burst, consumer's CPU until all were open": opened.cpu - before.cpu,
        "burst, consumer's CPU until all pictures were stored": end.cpu - before.cpu,
        "burst, consumer's memory at most, above that before": (max(s.memory for s in samples) - before.memory) / 1024,
        "burst, seconds until all pictures were stored": end.time - before.time,
    }


async def _sample(client: httpx.AsyncClient, consumer: PythonServer) -> Sample:
    stats: dict[str, Any] = (await client.get("/stats")).json()
    now = asyncio.get_running_loop().time()
    return Sample(now, stats["open"], stats["submits"], rss_kb(consumer.pid), *cpu_of(consumer))
