"""What died comes back: through consumer, relay, notifier and the operators' ways, on real Kafka and Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas import topics
from schemas.errors import ErrorClass
from schemas.words import Lane
from storage import replaying
from tests.connected.steps import request
from tests.flow.accepting import bearer
from tests.flow.accepting import client_of as producer_of
from tests.flow.accepting import settings_of as producer_settings_of
from tests.flow.pushing import Client, house, settings_for
from tests.flow.working import PATIENCE, Held, Line, error, line_of, processing, settings_of

pytestmark = [pytest.mark.flow, pytest.mark.connected]

ORIGIN = topics.requested(Lane.STANDARD)
REFUSED = error("Invalid API key", 401)
BINARY = (("content-type", b"application/x-thing"), ("again", b"\xff\xfe"), ("again", b"2"), ("nothing", None))


@pytest.fixture
async def line(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Line]:
    async with line_of(settings_of(database_url, kafka_servers, namespace, tmp_path / "media")) as line:
        yield line


@asynccontextmanager
async def _admin(line: Line) -> AsyncIterator[httpx.AsyncClient]:
    async with producer_of(producer_settings_of(line.settings.database_url)) as client:
        client.headers.update(bearer(uuid4(), scope="admin"))
        yield client


async def _until(client: Client, *statuses: str) -> list[dict[str, Any]]:
    """The frames up to the first of one of these statuses."""
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["status"] not in statuses:
        seen.append((await client.next("status"))["image"])
    return seen


async def test_who_waits_sees_a_record_die_wait_again_and_come_to_its_picture(line: Line, tmp_path: Path) -> None:
    settings = line.settings
    push = settings_for(settings.database_url, settings.kafka_servers, settings.namespace, tmp_path / "media")
    line.start()
    user, chapter = uuid4(), uuid4()
    async with house(push) as notifier, notifier.client(user) as client, _admin(line) as admin:
        await client.watch(chapter_id=chapter)
        line.provider.scripted(REFUSED)
        record_id = await line.ask(request(user, chapter=chapter))
        before = await _until(client, "failed")
        (event,) = await line.events(topics.dead(ErrorClass.AUTH), 1)
        assert (event["data"]["record_id"], event["headers"]["error-code"]) == (str(record_id), "api_key_refused")
        # one transaction decides, tells and keeps
        (letter,) = await line.steps.sql(
            "SELECT l.*, l.xmin = g.xmin AS together FROM dead_letters l JOIN image_generations g ON g.id = l.record_id"
        )
        assert (letter.error_class, letter.topic, letter.together) == ("auth", topics.dead(ErrorClass.AUTH), True)
        listed = (await admin.get("/admin/dead-letters", params={"user_id": str(user)})).json()["letters"]
        assert [one["id"] for one in listed] == [letter.id]
        outcome = (await admin.post("/admin/dead-letters/replay", json={"error_class": ["auth"]})).json()
        assert (outcome["replayed"], outcome["skipped"], outcome["left"]) == (1, 0, 0)
        after = await _until(client, "completed")
    seen = before + after
    assert {image["record_id"] for image in seen} == {str(record_id)}
    versions = [image["version"] for image in seen]
    assert versions == sorted(set(versions))
    waiting = after[0]
    assert (waiting["status"], waiting["stage"], waiting["attempt"]) == ("pending", "queued", 2)
    assert (waiting["error_class"], waiting["error_message"], waiting["completed_at"]) == (None, None, None)
    assert after[-1]["image_url"]
    row = await line.ended(record_id)
    assert (row.version, row.attempt, row.retry_count) == (versions[-1], 2, 0)
    assert len(line.provider.submits) == 2
    assert await line.outcomes(record_id) == ["failed", "success"]


async def test_a_replayed_record_has_all_its_retries_again(line: Line) -> None:
    line.start()
    line.provider.scripted(*[error("Service temporarily unavailable", 503)] * 8)
    record_id = await line.ask()
    for deaths in (1, 2):
        row = await line.ended(record_id, "failed")
        assert (row.error_class, row.retry_count, row.attempt) == ("exhausted", 3, 4 * deaths)
        letter = (await line.steps.letters(record_id))[-1]
        assert (letter.attempt, letter.replayed_at) == (4 * deaths, None)
        assert (await replaying.replay(line.steps.database, [letter.id], deadline=600)).done == [letter.id]
    row = await line.ended(record_id)
    assert (row.attempt, len(line.provider.submits)) == (9, 9)
    assert len(await line.steps.letters(record_id)) == 2


async def test_a_replay_wakes_a_dispatcher_at_once(line: Line) -> None:
    """Not a sweep later: its retry event does."""
    line.start(sweep=60.0)
    line.provider.scripted(REFUSED)
    record_id = await line.ask()
    await line.ended(record_id, "failed")
    (letter,) = await line.steps.letters(record_id)
    await replaying.replay(line.steps.database, [letter.id], deadline=600)
    await line.ended(record_id, within=20)


async def test_a_replay_while_the_job_is_still_followed_is_completed_by_that_job(line: Line) -> None:
    line.start(submit_timeout=0.2)
    # its worker is in the middle of a look until the end: the sweep ends the record, and the attempt stays open
    held = Held(processing("j1"))
    line.provider.scripted(processing("j1"), fetches=(held,))
    line.provider.otherwise = processing("j1")
    record_id = await line.ask()
    await held.asked.wait()
    await line.steps.sql("UPDATE image_generations SET deadline_at = now() - interval '1 s'")
    assert (await line.ended(record_id, "failed")).error_class == "deadline"
    (letter,) = await line.steps.letters(record_id)
    assert await line.outcomes(record_id) == [None]
    assert (await replaying.replay(line.steps.database, [letter.id], deadline=600)).done == [letter.id]
    await line.reaches(record_id, "generating")
    line.provider.otherwise = None
    row = await line.ended(record_id)
    assert (row.attempt, row.replay_attempt, len(line.provider.submits)) == (2, 2, 1)
    held.go.set()

    async def free() -> bool:
        return await line.steps.used() == 0

    await line.until(free)
    assert await line.outcomes(record_id) == ["success"]


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [(b"\xff\x00key", b"\xff{not json", BINARY), (None, b"{}", ())],
    ids=["any bytes", "without key and headers"],
)
async def test_a_poison_event_is_sent_again_byte_for_byte(
    line: Line, key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes | None], ...]
) -> None:
    await _publish(line, key, value, headers)
    line.start()
    first = await _letter(line, 1)
    assert (first.error_class, bytes(first.body)) == ("poison", value)
    async with _admin(line) as admin:
        shown = (await admin.get(f"/admin/dead-letters/{first.id}")).json()
        assert (shown["kind"], shown["event"]["exact"], shown["refusal"]) == ("event", True, None)
        outcome = (await admin.post("/admin/dead-letters/replay", json={"ids": [first.id]})).json()
        assert outcome["replayed"] == 1
    # it dies again, under a letter of its own
    second = await _letter(line, 2)
    assert (second.origin_topic, bytes(second.body), second.original) == (ORIGIN, value, first.original)
    assert (second.origin_partition, second.origin_offset) != (first.origin_partition, first.origin_offset)
    assert await _on_record(line, 2) == [(key, value, headers)] * 2


async def test_an_invalid_request_of_another_service_works_once_its_cause_is_mended(line: Line) -> None:
    """An event that Postgres refused is as good as any other when it no longer does."""
    await line.steps.sql("ALTER TABLE image_generations ADD CONSTRAINT few CHECK (scene_number < 1000)")
    record_id = uuid4()
    body = _request(record_id, 5_000)
    await _publish(line, str(record_id).encode(), body, ())
    line.start()
    letter = await _letter(line, 1)
    assert letter.error_code == "not_storable"
    await line.steps.sql("ALTER TABLE image_generations DROP CONSTRAINT few")
    assert (await replaying.replay(line.steps.database, [letter.id], deadline=600)).done == [letter.id]

    async def known() -> bool:
        return bool(await line.steps.sql("SELECT id FROM image_generations WHERE id = $1", record_id))

    await line.until(known)
    assert (await line.ended(record_id)).scene_number == 5_000


def _request(record_id: UUID, scene: int) -> bytes:
    data = (
        f'{{"record_id": "{record_id}", "user_id": "{uuid4()}", "chapter_id": "{uuid4()}", "scene_number": {scene},'
        ' "scene_description": "The Hatter at tea"}'
    )
    return f'{{"specversion": "1.0", "id": "1", "source": "/chapters", "type": "t", "data": {data}}}'.encode()


async def _letter(line: Line, count: int) -> Any:
    """The newest of so many letters, once they are there."""

    async def there() -> Any:
        rows = await line.steps.sql("SELECT * FROM dead_letters ORDER BY id")
        return rows[-1] if len(rows) == count else None

    return await line.until(there)


async def _publish(line: Line, key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes | None], ...]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=line.settings.kafka_servers)
    await producer.start()
    try:
        await producer.send_and_wait(line.settings.namespace + ORIGIN, value, key=key, headers=list(headers))
    finally:
        await producer.stop()


async def _on_record(line: Line, count: int) -> list[tuple[Any, ...]]:
    consumer = AIOKafkaConsumer(bootstrap_servers=line.settings.kafka_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        topic = topics.BY_NAME[ORIGIN]
        consumer.assign([TopicPartition(line.settings.namespace + ORIGIN, p) for p in range(topic.partitions)])
        found: list[tuple[Any, ...]] = []
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [(record.key, record.value, record.headers) for record in records]
        return found
    finally:
        await consumer.stop()
