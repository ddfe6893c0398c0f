"""Snapshots of a storm: one statement for all who ask for the same, so many at a time, and a line that has an end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from uuid import UUID, uuid4

import pytest

from messaging.settings import KafkaSettings
from messaging.stretches import Stretches
from notifier.cursors import Cursors
from notifier.hub import Hub
from notifier.memory import Memory
from notifier.outlook import Outlook
from notifier.replays import Replays
from notifier.resumption import Resumption
from notifier.scopes import Key, chapter_key
from notifier.snapshots import Crowded, Snapshot, Snapshots
from storage.database import Unavailable
from storage.queueing import Queue
from storage.reading import Image, Reader

USER = uuid4()


class Table:
    """Postgres as far as chapters go: each statement takes what is there when it begins, and ends when it is let."""

    def __init__(self) -> None:
        self.version = 1
        self.running = 0
        self.most = 0
        self.statements: Counter[UUID] = Counter()
        self.may_end = asyncio.Event()
        self.away = False

    async def chapter(self, user_id: UUID, chapter_id: UUID) -> list[Image]:
        self.statements[chapter_id] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        version = self.version
        try:
            await self.may_end.wait()
        finally:
            self.running -= 1
        if self.away:
            raise Unavailable("Postgres: gone")
        return [Image(chapter_id, version, f"{chapter_id}/1", "pending", "queued", None, "{}")]


async def _nobody_waits() -> Queue:
    raise AssertionError("nothing is on its way")


@asynccontextmanager
async def reading(table: Table, *, at_once: int = 2, in_line: int = 100) -> AsyncIterator[Snapshots]:
    cursors, memory = Cursors([b"a secret"]), Memory(events=10, seconds=60.0)
    kafka = Stretches(KafkaSettings(kafka_servers="127.0.0.1:1"), "status")
    resumption = Resumption(cursors, memory, Replays(kafka, cursors, most=10, seconds=1.0))
    snapshots = Snapshots(
        cast(Reader, table), Hub(), resumption, Outlook(_nobody_waits), at_once=at_once, in_line=in_line
    )
    try:
        yield snapshots
    finally:
        await snapshots.close()


async def asked(snapshots: Snapshots, keys: list[Key]) -> list["asyncio.Task[Snapshot]"]:
    """All of them have asked, and what may begin has begun."""
    tasks = [asyncio.create_task(snapshots.take(key)) for key in keys]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


async def test_all_who_ask_for_one_scope_at_a_time_share_two_statements() -> None:
    table, chapter = Table(), uuid4()
    async with reading(table) as snapshots:
        early = await asked(snapshots, [chapter_key(USER, chapter)])
        # it runs already: what it sees may be older than the moment from which the others are told of changes
        table.version = 2
        late = await asked(snapshots, [chapter_key(USER, chapter)] * 500)
        assert table.statements[chapter] == 1
        table.may_end.set()
        answers = await asyncio.gather(*early, *late)
    assert table.statements[chapter] == 2
    assert [one.images[0].version for one in answers] == [1] + [2] * 500


async def test_only_so_many_scopes_are_read_at_a_time() -> None:
    table = Table()
    keys = [chapter_key(USER, uuid4()) for _ in range(50)]
    async with reading(table, at_once=3) as snapshots:
        tasks = await asked(snapshots, keys * 4)
        assert table.running == 3
        table.may_end.set()
        await asyncio.gather(*tasks)
    assert table.most == 3
    assert table.statements.total() == 50


async def test_a_line_that_is_too_long_is_told_to_come_back() -> None:
    table = Table()
    first, second, third = (chapter_key(USER, uuid4()) for _ in range(3))
    async with reading(table, at_once=1, in_line=2) as snapshots:
        tasks = await asked(snapshots, [first, second, second])
        with pytest.raises(Crowded):
            await snapshots.take(third)
        table.may_end.set()
        await asyncio.gather(*tasks)
        assert (await snapshots.take(third)).images


async def test_who_leaves_ends_it_for_nobody_and_a_fault_is_everybodys() -> None:
    table, chapter = Table(), uuid4()
    async with reading(table) as snapshots:
        leaving, staying = await asked(snapshots, [chapter_key(USER, chapter)] * 2)
        leaving.cancel()
        table.away = True
        table.may_end.set()
        with pytest.raises(Unavailable):
            await staying
        table.away = False
        assert (await snapshots.take(chapter_key(USER, chapter))).images
