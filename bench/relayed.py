"""The relay: how fast a backlog of the outbox reaches Kafka, and how soon after its commit one event does."""

import asyncio
import json
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from ground import Figure, Ground, Site, accept, connected, cpu_of, percentile, running, until

from schemas import topics
from schemas.topics import BY_NAME
from schemas.words import Lane

FIGURES = {
    "relay, from a backlog": Figure("events/s", 15_000, most=False),
    "relay, its CPU an event": Figure("us"),
    "relay, Postgres' CPU an event": Figure("us"),
    "insert to consumer at 20/s, p50": Figure("ms", 5),
    "insert to consumer at 20/s, p99": Figure("ms"),
    "insert to consumer at 200/s, p50": Figure("ms", 5),
    "insert to consumer at 200/s, p99": Figure("ms"),
}

_REAL = (topics.requested(Lane.STANDARD), topics.STATUS)


async def measure(ground: Ground, *, events: int, seconds: float) -> dict[str, float]:
    """A backlog of `events`, half requests and half status events; then `seconds` at each pace."""
    found: dict[str, float] = {}
    async with ground.site() as site:
        found |= await _backlog(site, events)
    async with ground.site() as site:
        with running(site.process("relay", "producer.relay")):
            # its statements planned, its producer connected
            await _latencies(site, rate=50, seconds=1.0)
            for rate in (20, 200):
                taken = await _latencies(site, rate=rate, seconds=seconds)
                found[f"insert to consumer at {rate}/s, p50"] = percentile(taken, 0.5)
                found[f"insert to consumer at {rate}/s, p99"] = percentile(taken, 0.99)
    return found


async def _backlog(site: Site, events: int) -> dict[str, float]:
    async with site.database() as database:
        await accept(database, events // 2)
    relay = site.process("relay", "producer.relay")
    async with connected(site) as connection:
        with running(relay):
            left = await connection.fetchval("SELECT count(*) FROM outbox")
            before = cpu_of(relay, site.postgres)
            await until(connection, "SELECT NOT EXISTS (SELECT FROM outbox)")
            costs = [now - then for now, then in zip(cpu_of(relay, site.postgres), before, strict=True)]
    first, last, count = await _on_record(site)
    assert count == events // 2 * 2, f"{count} events are on record, not {events}"
    return {
        "relay, from a backlog": count / (last - first),
        "relay, its CPU an event": costs[0] / left * 1e6,
        "relay, Postgres' CPU an event": costs[1] / left * 1e6,
    }


async def _on_record(site: Site) -> tuple[float, float, int]:
    """When the first and the last event were handed to Kafka (the relay's clock, seconds), and how many there are."""
    consumer = _reader(site)
    await consumer.start()
    try:
        partitions = [
            TopicPartition(site.namespace + name, p) for name in _REAL for p in range(BY_NAME[name].partitions)
        ]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        times: list[int] = []
        for partition, end in ends.items():
            for offset in (0, end - 1):
                if end:
                    consumer.seek(partition, offset)
                    times.append((await consumer.getone(partition)).timestamp)
        return min(times) / 1000, max(times) / 1000, sum(ends.values())
    finally:
        await consumer.stop()


async def _latencies(site: Site, *, rate: float, seconds: float) -> list[float]:
    """Milliseconds from just before an INSERT with its NOTIFY to the event at a consumer."""
    topic = BY_NAME[topics.STATUS]
    taken: list[float] = []
    count = int(rate * seconds)
    consumer = _reader(site)
    await consumer.start()

    async def listen() -> None:
        while len(taken) < count:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                now = time.time()
                taken.extend((now - json.loads(record.value)["at"]) * 1000 for record in records)

    try:
        partitions = [TopicPartition(site.namespace + topic.name, p) for p in range(topic.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        async with connected(site) as connection, asyncio.timeout(seconds + 30), asyncio.TaskGroup() as group:
            group.create_task(listen())
            began = time.perf_counter()
            for number in range(count):
                await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
                await _insert(connection, topic.name, number)
    finally:
        await consumer.stop()
    return taken


async def _insert(connection: Any, topic: str, number: int) -> None:
    body = json.dumps({"at": time.time(), "padding": "x" * 800}).encode()
    await connection.execute(
        """WITH told AS (INSERT INTO outbox (topic, key, body) VALUES ($1, $2, $3)), woken AS MATERIALIZED (
               SELECT pg_notify('scenewire_outbox', ''))
           SELECT count(*) FROM woken""",
        topic,
        f"chapter-{number % 50}",
        body,
    )


def _reader(site: Site) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(bootstrap_servers=site.kafka_servers, auto_offset_reset="earliest")
