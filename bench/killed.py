"""kill -9 of a consumer in mid-generation: how soon another looks after its jobs at the provider."""

import asyncio
import random
import statistics
import time
from datetime import datetime

import httpx
from ground import Figure, Ground, Site, connected, running, until, wait_for_dispatch

from storage.database import Database

FIGURES = {
    "kill -9 to the first resumed fetch, median": Figure("s", 4, others="33 (fully tuned), 110, or never"),
    "kill -9 to the first resumed fetch, longest": Figure("s", 4),
    "kill -9 until all of its jobs were looked at, longest": Figure("s"),
}
_LONG = 900.0
_JOBS = 20
_ON_ITS_WAY = 0.5
"""Seconds: what the victim had sent may reach the provider after its death; nobody takes over so soon."""
_SCRIPT = {"profile": "instant", "rules": [{"action": {"answer": "processing", "duration": _LONG, "eta": _LONG}}]}
_ALL_HAVE_IDS = "SELECT count(*) = $1 FROM generation_attempts WHERE provider_request_id IS NOT NULL"


async def measure(ground: Ground, *, kills: int) -> dict[str, float]:
    """`kills` times, at a random moment between two signs of life: the heir is the next victim."""
    async with ground.site() as site, site.database() as database:
        simulator = site.process("simulator", "local.modelslab", ["--slots", "1000", "--prerender", "1"], "/healthz")
        with running(simulator):
            async with httpx.AsyncClient(base_url=simulator.http_url) as client:
                (await client.put("/simulator/script", json=_SCRIPT)).raise_for_status()
                return await _one_after_another(site, database, client, kills)


async def _one_after_another(site: Site, database: Database, client: httpx.AsyncClient, kills: int) -> dict[str, float]:
    given = {"MODELSLAB_BASE_URL": str(client.base_url), "SCENEWIRE_PROVIDER_SLOTS": str(_JOBS)}
    first: list[float] = []
    last: list[float] = []
    victim = site.process("consumer-0", "consumer", **given)
    try:
        victim.start()
        await wait_for_dispatch(database, _JOBS)
        async with connected(site) as connection:
            await until(connection, _ALL_HAVE_IDS, _JOBS)
        for number in range(1, kills + 1):
            heir = site.process(f"consumer-{number}", "consumer", **given)
            heir.start()
            # longer than a life, so that the heir may judge
            await asyncio.sleep(4.0 + random.random())
            killed_at = time.time()
            victim.kill()
            victim = heir
            looks = await _looks(client, killed_at + _ON_ITS_WAY)
            first.append(min(looks) - killed_at)
            last.append(max(looks) - killed_at)
    finally:
        victim.kill()
    return {
        "kill -9 to the first resumed fetch, median": statistics.median(first),
        "kill -9 to the first resumed fetch, longest": max(first),
        "kill -9 until all of its jobs were looked at, longest": max(last),
    }


async def _looks(client: httpx.AsyncClient, after: float) -> list[float]:
    """When each job was first looked at after that moment; waits until all were."""
    seen: dict[int, float] = {}
    async with asyncio.timeout(120):
        while len(seen) < _JOBS:
            await asyncio.sleep(0.2)
            answer = await client.get("/simulator/calls", params={"kind": "fetch", "limit": 1_000})
            for call in answer.json()["calls"]:
                at = datetime.fromisoformat(call["time"]).timestamp()
                if at > after:
                    seen.setdefault(call["id"], at)
    return list(seen.values())
