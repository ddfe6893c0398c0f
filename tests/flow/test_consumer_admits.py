"""Events in (PIPELINE B): acknowledged when Postgres remembers them; one that cannot be stored stops nobody."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from schemas import topics
from schemas.errors import ErrorClass
from schemas.words import Lane
from tests.flow.wire import Wire, wire_to
from tests.flow.working import Line, line_of, settings_of

pytestmark = [pytest.mark.flow, pytest.mark.connected]

STANDARD = topics.requested(Lane.STANDARD)


@pytest.fixture
async def line(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Line]:
    async with line_of(settings_of(database_url, kafka_servers, namespace, tmp_path / "media")) as line:
        yield line


@pytest.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    async with wire_to(database_url) as wire:
        yield wire


def _event(scene: int) -> tuple[UUID, bytes]:
    record_id = uuid4()
    data = {
        "record_id": str(record_id),
        "user_id": str(uuid4()),
        "chapter_id": str(uuid4()),
        "scene_number": scene,
        "scene_description": "The Hatter at tea",
    }
    event: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/chapters", "type": "t", "data": data}
    return record_id, json.dumps(event).encode()


async def _publish(line: Line, *scenes: int) -> list[UUID]:
    events = [_event(scene) for scene in scenes]
    for record_id, body in events:
        await line.publish(STANDARD, body, str(record_id))
    return [record_id for record_id, _ in events]


async def _known(line: Line, records: list[UUID]) -> None:
    async def known() -> bool:
        rows = await line.steps.sql("SELECT id FROM image_generations WHERE id = ANY($1::uuid[])", records)
        return len(rows) == len(records)

    await line.until(known)


async def _subscribed(line: Line) -> None:
    """The first event of all has been read, and nothing is under way any more."""
    (record_id,) = await _publish(line, 1)
    await _known(line, [record_id])
    await line.ended(record_id)


async def test_events_wait_for_postgres_in_kafka(line: Line, wire: Wire) -> None:
    line.start(database_url=wire.url)
    await _subscribed(line)
    await wire.cut()
    records = await _publish(line, 2, 3, 4)
    await wire.mend()
    await _known(line, records)
    for record_id in records:
        await line.ended(record_id)
    assert len(line.provider.submits) == 4


async def test_at_a_stop_without_postgres_events_are_left_to_the_next(line: Line, wire: Wire) -> None:
    first = line.start(database_url=wire.url)
    await _subscribed(line)
    await wire.cut()
    records = await _publish(line, 2, 3, 4)

    async def holds_some() -> bool:
        progress = await first.consumer.subscriptions.progress()
        return any(one.handling_seconds for one in progress)

    await line.until(holds_some)
    await first.stopped(within=20)
    line.start()
    for record_id in records:
        await _known(line, [record_id])
        await line.ended(record_id)


async def test_an_event_that_postgres_refuses_is_poison_and_the_others_go_on(line: Line) -> None:
    await line.steps.sql("ALTER TABLE image_generations ADD CHECK (scene_number < 1000)")
    records = await _publish(line, 1, 5000, 2)
    line.start()
    await _known(line, [records[0], records[2]])
    (letter,) = await line.events(topics.dead(ErrorClass.POISON), 1)
    assert letter["headers"]["error-code"] == "not_storable"
    assert letter["data"]["scene_number"] == 5000
    for record_id in (records[0], records[2]):
        await line.ended(record_id)


async def test_a_retry_is_dispatched_the_moment_it_is_due(line: Line) -> None:
    """Not a sweep later: the retry event wakes dispatch."""
    line.start(sweep=60.0, retry_delays=(0.3,))
    line.provider.scripted(ConnectionError("an error that is no answer"))
    (record_id,) = await _publish(line, 1)
    await _known(line, [record_id])
    ended = await line.ended(record_id, within=20)
    assert ended.retry_count == 1
