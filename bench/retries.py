"""How punctual retries are, with the real 5, 10 and 20 seconds and many that wait in each tier at the same time.

    .venv/bin/python bench/retries.py                  # 200 a tier, about a minute and a half
    .venv/bin/python bench/retries.py --consumers 3

Three crowds of requests fail three times each, so timed that for some seconds one crowd waits in each tier; then they
succeed. Of each retry it is told how long after its `retry_at` it was dispatched, and marked as sending, by Postgres'
clock: before it would be a fault, which ends this with an error. Relay, consumers and simulator are processes of their
own, with production's settings but for the slots. Nothing here is a test: the machine's noise would fail it.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

# our rooms are run from their checkout, never installed
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ground import Ground, Site, connected, ground, new_request, percentile, running, until

from schemas import topics
from storage.accepting import Acceptor

TIERS = (5, 10, 20)
STARTS = (0.0, 16.0, 26.0)
"""Seconds. With jitter up to a quarter the first crowd waits for its third retry from 18.75 on, the second for its next
from 22.25 to 31, and the third for its first from 26 to 31."""
MEDIAN_AIM, WORST_AIM = 50.0, 1_000.0
# an answer that fits nothing: no breaker counts it
_SENSELESS = {"status": "success", "id": 1, "output": []}
_SCRIPT = {
    "profile": "instant",
    "rules": [{"first": len(TIERS), "per": "prompt", "action": {"answer": "error", "body": _SENSELESS}}],
}
_WAITING = """SELECT retry_count, count(*) AS records FROM image_generations WHERE stage = 'retry_wait'
    AND retry_at > now() GROUP BY retry_count"""


async def measure(servers: Ground, arguments: argparse.Namespace) -> dict[int, list[tuple[float, float]]]:
    """Of each tier (seconds) each retry's lateness in ms: until it was dispatched, and until it was to be sent."""
    async with servers.site() as site:
        simulator = site.process("simulator", "local.modelslab", ["--slots", "1000", "--prerender", "4"], "/healthz")
        given = {"MODELSLAB_BASE_URL": simulator.http_url, "SCENEWIRE_PROVIDER_SLOTS": str(arguments.slots)}
        processes = [
            site.process("relay", "producer.relay"),
            *(site.process(f"consumer-{number}", "consumer", **given) for number in range(arguments.consumers)),
        ]
        with running(simulator):
            async with httpx.AsyncClient(base_url=simulator.http_url) as client:
                (await client.put("/simulator/script", json=_SCRIPT)).raise_for_status()
            with running(*processes):
                await _crowds(site, arguments.count)
                return await _lateness(site, len(STARTS) * arguments.count)


async def _crowds(site: Site, count: int) -> None:
    async with site.database() as database, connected(site) as connection:
        acceptor = Acceptor(database, deadline=86_400.0)
        began = time.monotonic()
        most: dict[int, int] = {}
        for crowd, start in enumerate(STARTS):
            await asyncio.sleep(max(0.0, began + start - time.monotonic()))
            numbers = range(crowd * count, (crowd + 1) * count)
            await asyncio.gather(*(acceptor.accept(new_request(number)) for number in numbers))
        until_then = began + STARTS[-1] + TIERS[0]
        while time.monotonic() < until_then:
            now = {row["retry_count"]: row["records"] for row in await connection.fetch(_WAITING)}
            if min(now.get(tier, 0) for tier in (1, 2, 3)) > min((most.get(tier, 0) for tier in (1, 2, 3)), default=0):
                most = now
            await asyncio.sleep(0.1)
        told = {f"{TIERS[retry - 1]} s": most.get(retry, 0) for retry in (1, 2, 3)}
        print(f"waiting at the same time: {told}", flush=True)
        await until(connection, "SELECT count(*) = $1 FROM image_generations WHERE status = 'completed'", 3 * count)


async def _lateness(site: Site, records: int) -> dict[int, list[tuple[float, float]]]:
    due = await _retries(site, records * len(TIERS))
    async with connected(site) as connection:
        attempts = await connection.fetch("SELECT record_id, attempt, claimed_at, sent_at FROM generation_attempts")
    late: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in attempts:
        if row["attempt"] > 1:
            retry_at = due[row["record_id"], row["attempt"]]
            dispatched, sent = ((row[when] - retry_at).total_seconds() * 1000 for when in ("claimed_at", "sent_at"))
            late[TIERS[row["attempt"] - 2]].append((dispatched, sent))
    return late


async def _retries(site: Site, count: int) -> dict[tuple[UUID, int], datetime]:
    """(record, attempt) -> its `retry_at`, as the status events told it."""
    found: dict[tuple[UUID, int], datetime] = {}
    client = AIOKafkaConsumer(bootstrap_servers=site.kafka_servers, auto_offset_reset="earliest")
    await client.start()
    try:
        partitions = range(topics.BY_NAME[topics.STATUS].partitions)
        client.assign([TopicPartition(site.namespace + topics.STATUS, partition) for partition in partitions])
        async with asyncio.timeout(60):
            while len(found) < count:
                for events in (await client.getmany(timeout_ms=200)).values():
                    for event in events:
                        data: dict[str, Any] = json.loads(event.value)["data"]
                        if data["stage"] == "retry_wait":
                            found[UUID(data["record_id"]), data["attempt"]] = datetime.fromisoformat(data["retry_at"])
    finally:
        await client.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="how many wait in each tier (default 200)")
    parser.add_argument("--slots", type=int, default=128, help="provider slots (default 128)")
    parser.add_argument("--consumers", type=int, default=1, help="consumer processes (default 1)")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {arguments}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    with ground() as servers:
        late = uvloop.run(measure(servers, arguments))
    print(f"load {os.getloadavg()[0]:.1f}\n\nms after retry_at: {'earliest':>14} {'median':>8} {'p99':>8} {'worst':>8}")
    early = False
    for tier in TIERS:
        for what, values in (
            ("dispatched", [dispatched for dispatched, _ in late[tier]]),
            ("to be sent", [sent for _, sent in late[tier]]),
        ):
            early = early or min(values) < 0
            figures = (min(values), statistics.median(values), percentile(values, 0.99), max(values))
            print(f"{tier:3} s, {what:11} ({len(values)}) " + " ".join(f"{figure:8.1f}" for figure in figures))
    print(f"aims: never before, median < {MEDIAN_AIM:g}, worst < {WORST_AIM:g}")
    if early:
        sys.exit("a retry was dispatched before its time")


if __name__ == "__main__":
    main()
