"""The line as a whole, measured: how fast requests are accepted, how soon a browser knows, how much gets through.

    .venv/bin/python bench/line.py                  # all of it, three rounds, medians
    .venv/bin/python bench/line.py --only whole --rounds 1

It starts everything by `python -m local` on a folder of its own, with the simulator answering at once from pictures
drawn beforehand, and prints one table. For `accept` only Postgres and the producer run, as in the figures of the
design this replaces. Nothing here is a test: the machine's noise would fail it.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
import uuid
from datetime import datetime
from typing import Any

import asyncpg
import httpx
import uvloop
from driving import Http, completions, cpu_seconds, paused, service, somebody, until

AIMS = {
    "accept, 32 connections": (">= 2000 /s", "574 /s"),
    "accept, p99 at 50/s": ("<= 12 ms", "11.7 ms"),
    "POST to completed frame, 20/s, p50": ("<= 40 ms", "3012 ms"),
    "POST to completed frame, 20/s, p99": ("<= 120 ms", ""),
    "provider's answer to completed frame, p50": ("<= 15 ms", ""),
    "provider's answer to completed frame, p99": ("<= 60 ms", ""),
    "whole line": (">= 250 /s", "203 /s, neither stored nor pushed"),
}


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def body(marker: str) -> bytes:
    words = f"{marker} The March Hare and the Hatter were having tea at a table set out under a tree."
    return json.dumps({"scene_description": words, "style": "fantasy", "aspect_ratio": "widescreen"}).encode()


async def accept_rate(ready: dict[str, Any], seconds: float) -> float:
    """POSTs a second over 32 connections, each sending its next when it has its answer."""
    chapter = uuid.uuid4()
    counted = 0
    began = time.perf_counter()

    async def one(number: int) -> None:
        nonlocal counted
        http = Http(ready["api"])
        while time.perf_counter() - began < seconds:
            status = await http.post(f"/chapters/{chapter}/images/scenes/{number + 1}", body("accept"), ready["token"])
            assert status == 202, status
            counted += 1
        http.close()

    await asyncio.gather(*(one(number) for number in range(32)))
    return counted / (time.perf_counter() - began)


async def paced(ready: dict[str, Any], rate: float, seconds: float, marker: str) -> list[float]:
    """POSTs at a steady rate, whatever the answers take; gives each answer's seconds."""
    chapter = uuid.uuid4()
    idle = [Http(ready["api"]) for _ in range(8)]
    taken: list[float] = []

    async def one(number: int) -> None:
        http = idle.pop() if idle else Http(ready["api"])
        began = time.perf_counter()
        path = f"/chapters/{chapter}/images/scenes/{number + 1}"
        assert await http.post(path, body(f"{marker}{number}."), ready["token"]) == 202
        taken.append(time.perf_counter() - began)
        idle.append(http)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            group.create_task(one(number))
    return taken


async def sent_and_seen(ready: dict[str, Any], seconds: float) -> dict[str, float]:
    """20 requests a second: POST to completed frame, and provider's answer to completed frame."""
    chapter = uuid.uuid4()
    rate, marker = 20.0, uuid.uuid4().hex[:8]
    posted: dict[str, float] = {}
    async with completions(ready) as done, httpx.AsyncClient(base_url=ready["api"]) as client:
        headers = {"Authorization": f"Bearer {ready['token']}"}

        async def one(number: int) -> None:
            began = time.time()
            path = f"/chapters/{chapter}/images/scenes/{number + 1}"
            answer = await client.post(path, content=body(f"{marker}-{number}."), headers=headers)
            posted[answer.json()["record_id"]] = began

        started = time.perf_counter()
        count = int(rate * seconds)
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
                group.create_task(one(number))
        if not await until(lambda: posted.keys() <= done.keys(), 30):
            sys.exit(f"only {len(done)} of {len(posted)} completed")
    async with httpx.AsyncClient(base_url=ready["simulator"]) as client:
        calls = (await client.get("/simulator/calls", params={"kind": "submit", "limit": 100_000})).json()["calls"]
    answered = {call["track_id"]: call for call in calls if marker in (call.get("prompt") or "")}
    attempts = await _attempts(ready, list(posted))
    whole = [(done[record] - began) * 1000 for record, began in posted.items()]
    last = [
        (done[record] - _answered_at(answered[track])) * 1000 for record, track in attempts.items() if track in answered
    ]
    return {
        "POST to completed frame, 20/s, p50": percentile(whole, 0.5),
        "POST to completed frame, 20/s, p99": percentile(whole, 0.99),
        "provider's answer to completed frame, p50": percentile(last, 0.5),
        "provider's answer to completed frame, p99": percentile(last, 0.99),
    }


def _answered_at(call: dict[str, Any]) -> float:
    at = call["time"]
    began = at if isinstance(at, int | float) else datetime.fromisoformat(at).timestamp()
    return float(began) + float(call.get("seconds") or 0.0)


async def _attempts(ready: dict[str, Any], records: list[str]) -> dict[str, str]:
    connection = await asyncpg.connect(ready["database"])
    rows = await connection.fetch(
        "SELECT record_id, id FROM generation_attempts WHERE record_id = ANY($1::uuid[])", records
    )
    await connection.close()
    return {str(row["record_id"]): str(row["id"]) for row in rows}


async def whole_line(ready: dict[str, Any], count: int) -> tuple[float, dict[str, float]]:
    """Image generations a second, picture stored and frame received, and each process's CPU ms for one of them."""
    chapter = uuid.uuid4()
    before = cpu_seconds(ready)
    async with completions(ready) as done:
        began = time.perf_counter()
        numbers = iter(range(count))

        async def one() -> None:
            http = Http(ready["api"])
            for number in numbers:
                path = f"/chapters/{chapter}/images/scenes/{number + 1}"
                assert await http.post(path, body("whole"), ready["token"]) == 202
            http.close()

        await asyncio.gather(*(one() for _ in range(32)))
        if not await until(lambda: len(done) >= count, 120):
            sys.exit(f"only {len(done)} of {count} completed")
        took = time.perf_counter() - began
    after = cpu_seconds(ready)
    return count / took, {name: (after[name] - before[name]) * 1000 / count for name in after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are printed (default 3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each paced measurement (default 10)")
    parser.add_argument("--count", type=int, default=2000, help="generations for the whole line (default 2000)")
    parser.add_argument("--slots", type=int, default=128, help="provider slots (default 128)")
    parser.add_argument("--ports", type=int, default=21700, help="first port (default 21700)")
    parser.add_argument("--only", choices=["accept", "latency", "whole"], help="one of the three measurements")
    arguments = parser.parse_args()
    results: dict[str, list[float]] = {name: [] for name in AIMS}
    costs: list[dict[str, float]] = []
    settings = {
        "SCENEWIRE_PROVIDER_SLOTS": str(arguments.slots),
        "SCENEWIRE_SIMULATOR_PROFILE": "instant",
        "SCENEWIRE_SIMULATOR_SLOTS": "100000",
        "SCENEWIRE_SIMULATOR_PRERENDER": "16",
        "SCENEWIRE_SIMULATOR_JOURNAL": "",
        "SCENEWIRE_LOG_LEVEL": "warning",
    }
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {arguments}", flush=True)
    with service(settings, arguments.ports) as ready:
        # caches, pools and Kafka's just-in-time compiler: what is asked is how it runs, not how it starts
        uvloop.run(whole_line(somebody(ready), 500))
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", flush=True)
            if arguments.only in (None, "latency"):
                for name, value in uvloop.run(sent_and_seen(somebody(ready), arguments.seconds)).items():
                    results[name].append(value)
            if arguments.only in (None, "whole"):
                rate, cost = uvloop.run(whole_line(somebody(ready), arguments.count))
                results["whole line"].append(rate)
                costs.append(cost)
            if arguments.only in (None, "accept"):
                with paused(ready, ("relay", "consumer", "notifier", "kafka", "simulator")):
                    results["accept, 32 connections"].append(
                        uvloop.run(accept_rate(somebody(ready), arguments.seconds / 2))
                    )
                    taken = uvloop.run(paced(somebody(ready), 50, arguments.seconds, "paced"))
                    results["accept, p99 at 50/s"].append(percentile(taken, 0.99) * 1000)
                if number + 1 < arguments.rounds:
                    # what was accepted meanwhile is worked off before the next round
                    uvloop.run(_drained(ready))
    print(f"\n{'':44} {'median':>9} {'min':>9} {'max':>9}  {'aim':12} before")
    for name, values in results.items():
        if values:
            aim, before = AIMS[name]
            print(
                f"{name:44} {statistics.median(values):9.1f} {min(values):9.1f} {max(values):9.1f}  {aim:12} {before}"
            )
    if costs:
        print("\nCPU ms for one generation of the whole line (median):")
        for name in costs[0]:
            print(f"  {name:14} {statistics.median(cost[name] for cost in costs):6.2f}")
        print(f"  {'all':14} {statistics.median(sum(cost.values()) for cost in costs):6.2f}")


async def _drained(ready: dict[str, Any]) -> None:
    connection = await asyncpg.connect(ready["database"])
    # other processes work it off: there is no event to wait for
    while await connection.fetchval("SELECT EXISTS (SELECT FROM image_generations WHERE status <> 'completed')"):  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    await connection.close()


if __name__ == "__main__":
    main()
