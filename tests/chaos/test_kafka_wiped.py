"""Kafka comes back without its data, and nobody lends a hand: everything accepted ends, and whoever watches sees it."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from httpx import Response

from local.kafka import Kafka
from messaging.lookout import Lookout
from messaging.sender import SendFailed
from schemas import topics
from schemas.words import Lane
from telemetry import metrics
from tests.connected.steps import request
from tests.flow.pushing import Client, House, house, settings_for
from tests.flow.working import Held, Line, line_of, processing, settings_of
from tests.silent import silence

pytestmark = [pytest.mark.chaos, pytest.mark.connected]

GOLDEN = Path(__file__).parents[1] / "golden"
PATIENCE = 90.0
# a reader that is silent is not mended before Kafka is killed, and one that missed its topic looks soon
_PERIODS = {"kafka_watch": 0.3, "kafka_stall": 3.0, "kafka_send_timeout": 5.0, "kafka_session": 6.0}


@asynccontextmanager
async def _line(database_url: str, kafka: Kafka, namespace: str, folder: Path) -> AsyncIterator[tuple[Line, House]]:
    working = settings_of(database_url, kafka.servers, namespace, folder / "media", admit_after=5.0, **_PERIODS)
    pushing = settings_for(database_url, kafka.servers, namespace, folder / "media", **_PERIODS)
    async with line_of(working) as line, house(pushing) as here:
        yield line, here


async def _wipe(kafka: Kafka) -> None:
    await asyncio.to_thread(kafka.kill)
    shutil.rmtree(kafka.folder / "data")


async def test_everything_accepted_ends_and_nobody_who_watches_misses_it(
    database_url: str, private_kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    user, chapter = uuid4(), uuid4()
    async with _line(database_url, private_kafka, namespace, tmp_path) as (line, here):
        line.start()
        first = request(user=user, chapter=chapter, scene=1)
        await line.ask(first)
        await line.ended(first.record_id)
        renewed = metrics.of_process().value("readers_renewed", reason="other_log")
        async with here.client(user) as client:
            seen = await client.watch(chapter_id=chapter)
            assert [image["status"] for image in seen["images"]] == ["completed"]
            # its job is open while Kafka is away; the next request is accepted meanwhile
            job = Held(processing("j2", eta=0.05))
            line.provider.scripted(job)
            second, third = (request(user=user, chapter=chapter, scene=scene) for scene in (2, 3))
            await line.ask(second)
            await job.asked.wait()
            poll = asyncio.create_task(_poll(here, user, chapter, scene=2))
            # what the notifier has not read when its log is lost: confirmed by the old Kafka, and in no other
            await silence(here.notifier.events._tail)
            lost = request(user=user, chapter=chapter, scene=4)
            await line.ask(lost)
            await line.until(lambda: _outbox_is_empty(line))
            await _wipe(private_kafka)
            await line.ask(third)
            job.go.set()
            await asyncio.to_thread(private_kafka.start)

            for record in (second, third, lost):
                row = await line.ended(record.record_id, within=PATIENCE)
                assert (row.attempt, row.retry_count) == (1, 0)
            code, frames = await client.closed(within=PATIENCE)
            assert code == 4503
            assert frames[-1]["type"] == "bye"
            assert frames[-1]["retry_after_ms"] > 0
        assert len(line.provider.submits) == 4
        answered = await poll
        assert (answered.status_code, answered.json()["status"]) == (200, "completed")
        async with here.client(user) as client:
            seen = await client.watch(chapter_id=chapter)
            assert [image["status"] for image in seen["images"]] == ["completed"] * 4
            # each topic is made anew by who needs it, in its own time
            await line.until(lambda: _all_made(line), within=PATIENCE)
            # the new log is read, by the consumer and by the notifier
            stranger = uuid4()
            await line.until(lambda: _published(line, _event(stranger, user, chapter, scene=5)), within=PATIENCE)
            await line.ended(stranger, within=PATIENCE)
            statuses = await _statuses_of(client, stranger)
            assert statuses[-1] == "completed"
        assert metrics.of_process().value("readers_renewed", reason="other_log") > renewed
        await line.until(lambda: _outbox_is_empty(line))


async def _all_made(line: Line) -> bool:
    needed = {*(topics.requested(lane) for lane in Lane), *(topics.retry(tier) for tier in topics.RETRY_TIERS)}
    needed.add(topics.STATUS)
    lookout = Lookout(line.settings)
    try:
        return (await lookout.logs(sorted(needed))).keys() == needed
    finally:
        await lookout.close()


async def _published(line: Line, event: bytes) -> bool:
    """A Kafka that has only just made its topics may not take it at once; twice is once to who reads it."""
    try:
        await line.publish(topics.requested(Lane.STANDARD), event)
    except SendFailed:
        return False
    return True


async def _poll(here: House, user: UUID, chapter: UUID, scene: int) -> Response:
    """Held polls, one after another, until one is answered with the end."""
    headers = here.bearer(user) | {"Prefer": "wait=60"}
    while True:
        answer = await here.http.get(
            f"/chapters/{chapter}/images/scenes/{scene}/status", headers=headers, timeout=PATIENCE
        )
        if answer.status_code != 200 or answer.json()["status"] == "completed":
            return answer


async def _outbox_is_empty(line: Line) -> bool:
    (row,) = await line.steps.sql("SELECT count(*) AS waiting FROM outbox")
    return not row.waiting


async def _statuses_of(client: Client, record_id: UUID) -> list[str]:
    found: list[str] = []
    while not found or found[-1] != "completed":
        image = (await client.next("status", within=PATIENCE))["image"]
        if image["record_id"] == str(record_id):
            found.append(image["status"])
    return found


def _event(record_id: UUID, user: UUID, chapter: UUID, scene: int) -> bytes:
    """As another service publishes it."""
    event = json.loads((GOLDEN / "requested.v1.by-another-service.json").read_text())
    event |= {"id": str(uuid4()), "subject": str(record_id), "partitionkey": str(record_id)}
    event["data"] |= {"record_id": str(record_id), "user_id": str(user), "chapter_id": str(chapter)}
    event["data"]["scene_number"] = scene
    return json.dumps(event).encode()


@pytest.mark.lengthy
async def test_a_kafka_that_comes_back_with_its_data_closes_no_socket(
    database_url: str, private_kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    user, chapter = uuid4(), uuid4()
    async with _line(database_url, private_kafka, namespace, tmp_path) as (line, here):
        line.start()
        renewed = metrics.of_process().value("readers_renewed", reason="other_log")
        first, second = (request(user=user, chapter=chapter, scene=scene) for scene in (1, 2))
        await line.ask(first)
        await line.ended(first.record_id)
        async with here.client(user) as client:
            await client.watch(chapter_id=chapter)
            await asyncio.to_thread(private_kafka.kill)
            await line.ask(second)
            await asyncio.to_thread(private_kafka.start)
            await line.ended(second.record_id, within=PATIENCE)
            versions: list[int] = []
            while not versions or versions[-1] < (await line.steps.record(second.record_id)).version:
                image = (await client.next("status", within=PATIENCE))["image"]
                if image["record_id"] == str(second.record_id):
                    versions.append(image["version"])
            assert versions == sorted(set(versions))
        assert metrics.of_process().value("readers_renewed", reason="other_log") == renewed
