"""Events that come again, in another order, or that nobody can read."""

import json
import random
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from messaging.sender import Outgoing, Sender
from messaging.settings import KafkaSettings
from schemas import topics
from schemas.words import Lane
from storage.database import Database
from tests.chaos import books
from tests.chaos.people import PATIENCE, Person, person
from tests.chaos.scenes import AT_ONCE, HELD, JOB, comes_true, reaches
from tests.chaos.street import Street

pytestmark = [pytest.mark.chaos, pytest.mark.connected]

_READ = [*(topics.requested(lane) for lane in Lane), *(topics.retry(tier) for tier in topics.RETRY_TIERS)]
"""What consumers read; with the status topic, which notifiers read, all that can come twice to one of ours."""

_POISON = (
    b"",
    b"\xff\xfe\x00",
    b"[" * 10_000,
    b"null",
    b'{"specversion": "1.0", "id": "x", "source": "x", "type": "scene-images.status.v1", "data": {"version": "many"}}',
    json.dumps({"data": {"record_id": "no such id"}}).encode() * 2,
)


_MID_CALL = """
SELECT FROM generation_attempts a JOIN image_generations g ON g.id = a.record_id WHERE g.id = ANY($1::uuid[])
HAVING count(*) FILTER (WHERE a.outcome = 'failed') = 4 AND bool_or(g.stage = 'generating')
    AND NOT EXISTS (SELECT FROM outbox)
"""
"""Some jobs are followed, and all that was said so far is in Kafka: the retries of those that were refused, too."""


async def test_events_that_come_twice_and_in_another_order_change_nothing(street: Street, database: Database) -> None:
    job: dict[str, Any] = {"text": JOB, "action": {"answer": "processing", "duration": 0.5}}
    await street.script({"text": JOB, "first": 4, "action": {"answer": "error", "fault": "unavailable"}}, job, *HELD)
    chance = random.Random(3)
    async with person(street) as one, person(street, "premium") as other:
        records = [*await one.asks(JOB, 4), *await other.asks(JOB, 4)]
        await comes_true(database, _MID_CALL, records)
        # in mid-call, and again when all is over
        for _ in range(2):
            told = await _told(street, records)
            assert {outgoing.topic for outgoing in told} >= {
                topics.STATUS,
                topics.requested(Lane.STANDARD),
                topics.retry(5),
            }
            await _publish(street, chance.sample(told, len(told)) + told[::-1])
            await street.script(job)
            await reaches(database, records, "done")
        # behind them, in the same partitions
        await _still_works(one, other)
        balance = await books.close(street, database, one, other)
    assert balance.faults == []
    assert (balance.accepted, balance.completed) == (10, 10)
    # four were refused without a job, and asked again
    assert (balance.submits, balance.uncertain) == (14, 0)


async def test_poison_in_every_topic_stops_nobody(street: Street, database: Database) -> None:
    (before,) = await database.fetch("SELECT count(*) AS rows FROM dead_letters")
    await _publish(
        street,
        [Outgoing(topic.name, key, body) for topic in topics.TOPICS for body in _POISON for key in ("key", None)],
    )
    async with person(street) as one, person(street, "premium") as other:
        await _still_works(one, other)
        one.accepted[await _another_service_asks(street, one)] = AT_ONCE
        balance = await books.close(street, database, one, other)
        # each is a letter of its own, with the bytes that it was
        letters = len(_READ) * len(_POISON) * 2
        await comes_true(database, "SELECT FROM dead_letters HAVING count(*) = $1", before.rows + letters)
    assert balance.faults == []
    assert (balance.accepted, balance.completed) == (3, 3)
    kept = {
        bytes(row.body)
        for row in await database.fetch("SELECT DISTINCT body FROM dead_letters WHERE error_class = 'poison'")
    }
    assert set(_POISON) <= kept
    async with httpx.AsyncClient() as client:
        for kind in ("consumer", "notifier", "relay", "producer"):
            for url in street.urls(kind):
                assert (await client.get(f"{url}/healthz")).status_code == 200


async def _still_works(*people: Person) -> None:
    for one in people:
        (record_id,) = map(str, await one.asks(AT_ONCE))
        assert await one.watcher.until(lambda one=one, i=record_id: _is_shown(one, i), PATIENCE)  # type: ignore[misc]


def _is_shown(one: Person, record_id: str) -> bool:
    return bool(one.watcher.seen.get(record_id, {}).get("status") == "completed")


async def _another_service_asks(street: Street, one: Person) -> UUID:
    """A scene in the bulk lane, by an event."""
    record_id = uuid4()
    data = {
        "record_id": str(record_id),
        "user_id": str(one.user_id),
        "chapter_id": str(one.chapter),
        "scene_number": 500,
        "scene_description": AT_ONCE,
    }
    event = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/other",
        "type": "scene-images.requested.v1",
        "data": data,
    }
    await _publish(street, [Outgoing(topics.requested(Lane.BULK), str(record_id), json.dumps(event).encode())])
    return record_id


async def _publish(street: Street, outgoing: Sequence[Outgoing]) -> None:
    sender = Sender(KafkaSettings(kafka_servers=street.kafka.servers))
    try:
        await sender.send(outgoing)
    finally:
        await sender.discard()


async def _told(street: Street, records: Sequence[UUID]) -> list[Outgoing]:
    """Every event of these records that one of ours reads, in Kafka's order within its partition."""
    mine = {str(record_id).encode() for record_id in records}
    found: list[Outgoing] = []
    client = AIOKafkaConsumer(bootstrap_servers=street.kafka.servers, auto_offset_reset="earliest")
    await client.start()
    try:
        parts = [TopicPartition(t, n) for t in (*_READ, topics.STATUS) for n in range(topics.BY_NAME[t].partitions)]
        client.assign(parts)
        ends = await client.end_offsets(parts)
        for part in parts:
            while await client.position(part) < ends[part]:
                for event in (await client.getmany(part, timeout_ms=200)).get(part, []):
                    if any(record_id in event.value for record_id in mine):
                        found.append(_again(part.topic, event))
    finally:
        await client.stop()
    return found


def _again(topic: str, event: Any) -> Outgoing:
    headers = {name: value.decode() for name, value in event.headers}
    return Outgoing(topic, None if event.key is None else event.key.decode(), event.value, headers)
