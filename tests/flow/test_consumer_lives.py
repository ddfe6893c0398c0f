"""A consumer is alive while it makes progress.

Loops are wedged for real, and Postgres is away for longer than any stall may last.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from schemas import topics
from schemas.words import Lane
from tests.flow.living import PERIODS, READERS, STALL, alive_for, asked, down, hangs, ready, stalled, until
from tests.flow.wire import Wire, wire_to
from tests.flow.working import Line, Running, line_of, settings_of

pytestmark = [pytest.mark.flow, pytest.mark.connected]


@pytest.fixture
async def line(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Line]:
    settings = settings_of(database_url, kafka_servers, namespace, tmp_path / "media", **PERIODS, **READERS)
    async with line_of(settings) as line:
        yield line


@pytest.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    async with wire_to(database_url) as wire:
        yield wire


async def _working(line: Line, **changes: Any) -> Running:
    running = line.start(**changes)
    await ready(running.consumer.health)
    return running


async def test_a_consumer_whose_handler_does_not_return(line: Line) -> None:
    running = await _working(line)
    (standard,) = [
        one for one in running.consumer.subscriptions._subscriptions if one.topic == topics.requested(Lane.STANDARD)
    ]
    standard._handler = hangs
    await line.ask()
    why = await stalled(running.consumer.health, "events")
    assert topics.requested(Lane.STANDARD) in why
    assert "handler has not come to an end" in why
    told = (await asked(running.consumer.health, "/readyz")).json()["dependencies"]["kafka"]
    assert told["status"] == "down"


async def test_a_consumer_whose_reader_is_silent_however_often_it_is_made_anew(line: Line) -> None:
    running = await _working(line)
    subscriptions = running.consumer.subscriptions._subscriptions
    asked_for = 0

    async def hang(_: object) -> Any:
        nonlocal asked_for
        asked_for += 1
        await hangs()

    for one in subscriptions:
        one._subscriber.get_msg = hang  # type: ignore[method-assign]

    async def all_hang() -> bool:
        return asked_for >= len(subscriptions)

    # a poll that was under way may still bring something
    await until(all_hang)
    await line.ask()
    assert "events wait and none comes" in await stalled(running.consumer.health, "events")


async def test_a_consumer_whose_reader_hangs_is_mended_before_anybody_notices(line: Line) -> None:
    # to join a group anew may take seconds on a machine that is busy: out of a minute, in production
    running = await _working(line, health_stall=4 * STALL)
    for one in running.consumer.subscriptions._subscriptions:
        consumer: Any = one._subscriber.consumer
        consumer.pause(*consumer.assignment())
    record_id = await line.ask()
    ending = asyncio.create_task(line.ended(record_id))
    while not ending.done():
        await alive_for(running.consumer.health, 0.1)
    await ending
    await alive_for(running.consumer.health, 2 * STALL)


async def _refuses(*_: object, **__: object) -> Any:
    raise RuntimeError("a bug of ours")


async def _takes_nothing(*_: object, **__: object) -> Any:
    return []


async def test_a_consumer_whose_dispatch_fails_each_time(line: Line) -> None:
    running = await _working(line)
    running.consumer._dispatch._dispatcher.claim = _refuses  # type: ignore[method-assign]
    assert await stalled(running.consumer.health, "dispatch") == "RuntimeError: a bug of ours"


async def test_a_consumer_whose_dispatch_turns_and_takes_nothing(line: Line) -> None:
    running = await _working(line)
    running.consumer._dispatch._dispatcher.claim = _takes_nothing  # type: ignore[method-assign]
    await alive_for(running.consumer.health, 2 * STALL)
    record_id = await line.ask()
    assert str(record_id) in await stalled(running.consumer.health, "records")


async def test_a_consumer_whose_dispatch_hangs(line: Line) -> None:
    running = await _working(line)
    running.consumer._dispatch._dispatcher.claim = hangs  # type: ignore[method-assign]
    await stalled(running.consumer.health, "dispatch")


async def test_a_consumer_whose_worker_thread_has_ended(line: Line) -> None:
    running = await _working(line)
    worker = running.consumer._worker
    assert worker._loops is not None
    assert worker._stop is not None
    worker._loops[1].call_soon_threadsafe(worker._stop.set)
    await stalled(running.consumer.health, "worker")


async def test_a_consumer_without_postgres_is_alive_and_not_ready(line: Line, wire: Wire) -> None:
    """Also one whose handler waits for Postgres with a batch in hand."""
    running = await _working(line, database_url=wire.url)
    health = running.consumer.health
    await wire.cut()
    record_id = await line.ask()

    async def waits_with_a_batch() -> bool:
        return any(one.handling_seconds is not None for one in await running.consumer.subscriptions.progress())

    await line.until(waits_with_a_batch)
    since = (await down(health, "postgres"))["since"]
    await alive_for(health, 3 * STALL)
    assert (await down(health, "postgres"))["since"] == since
    await wire.mend()
    await line.ended(record_id)
    await ready(health)
    await alive_for(health, 2 * STALL)
