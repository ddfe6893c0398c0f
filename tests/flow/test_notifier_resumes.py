"""A cursor, on any transport and notifier: what was missed comes from memory, else from the log, else as a snapshot."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from messaging.provision import provision
from schemas.topics import BY_NAME, STATUS
from telemetry import metrics
from tests.flow.pushing import PATIENCE, Builder, Client

pytestmark = [pytest.mark.flow, pytest.mark.connected]

COUNTED: dict[str, Any] = {"health_look": 600.0, "health_stall": 700.0}
"""Where statements are counted: what is asked now and then, whatever happens, is one as well."""


def versions(frame: dict[str, Any]) -> dict[str, int]:
    return {image["record_id"]: image["version"] for image in frame["images"]}


@contextmanager
def counted(**expected: int) -> Iterator[None]:
    """What `scenewire_snapshots_total` rises by meanwhile, by `resumed`."""

    def now() -> dict[str, float]:
        words = ("none", "memory", "log", "snapshot")
        return {word: metrics.of_process().value("snapshots", resumed=word) for word in words}

    before = now()
    yield
    assert {word: value - before[word] for word, value in now().items() if value > before[word]} == expected


async def last_status(client: Client, version: int) -> dict[str, Any]:
    while (frame := await client.next("status"))["image"]["version"] < version:
        pass
    return frame


async def test_each_scope_goes_on_from_memory_with_only_what_changed(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built(**COUNTED) as here:
        changed, quiet = await here.accept(user, chapter, 1), await here.accept(user, chapter, 2)
        elsewhere = await here.accept(user, uuid4(), 1)
        await here.caught_up()
        async with here.client(user) as client:
            snapshots = {
                "chapter": await client.watch(id="chapter", chapter_id=chapter),
                "mine": await client.watch(id="mine", mine=True),
                "record": await client.watch(id="record", record_id=changed),
            }
        assert versions(snapshots["mine"]) == {str(changed): 1, str(quiet): 1, str(elsewhere): 1}
        for progress in (10, 20, 30):
            await here.change(changed, progress=progress)
        await here.change(elsewhere, progress=5)
        await here.caught_up()
        scopes: dict[str, dict[str, Any]] = {
            "chapter": {"chapter_id": chapter},
            "mine": {"mine": True},
            "record": {"record_id": changed},
        }
        async with here.client(user) as client:
            before = await here.statements()
            with counted(memory=3):
                missed = {
                    name: await client.watch(id=name, cursor=snapshots[name]["cursor"], **scope)
                    for name, scope in scopes.items()
                }
            assert await here.statements() == before
        assert {name: frame["resumed"] for name, frame in missed.items()} == dict.fromkeys(missed, "memory")
        assert versions(missed["chapter"]) == {str(changed): 4}
        assert versions(missed["record"]) == {str(changed): 4}
        assert versions(missed["mine"]) == {str(changed): 4, str(elsewhere): 2}


async def test_a_status_frames_cursor_is_good_anywhere(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built() as one, built() as other:
        record = await one.accept(user, chapter)
        async with one.client(user) as client:
            await client.watch(chapter_id=chapter)
            await one.change(record, progress=1)
            cursor = (await last_status(client, 2))["cursor"]
        await one.change(record, progress=2)
        version = 3
        for here in (one, other):
            await here.caught_up()
            async with here.client(user) as client:
                missed = await client.watch(chapter_id=chapter, cursor=cursor)
                assert (missed["resumed"], versions(missed)) == ("memory", {str(record): version})
                # and from there live
                await one.change(record, progress=version)
                told = await client.next("status")
                assert (await client.watch(id="t", chapter_id=chapter, cursor=told["cursor"]))["images"] == []
            await one.change(record, progress=version)
            version += 2
            await here.caught_up()
            async with here.client(user) as client:
                assert versions(await client.watch(record_id=record, cursor=told["cursor"])) == {str(record): version}


async def test_a_new_notifier_has_in_memory_what_came_before_its_start(
    built: Builder, user: UUID, chapter: UUID
) -> None:
    async with built() as here:
        record = await here.accept(user, chapter)
        await here.caught_up()
        async with here.client(user) as client:
            cursors = [(await client.watch(mine=True))["cursor"]]
            await here.change(record, progress=1)
            await client.next("status")
            cursors.append((await client.next("cursor"))["cursor"])
    async with built() as here:
        await here.change(record, progress=2)
        await here.caught_up()
        for cursor in cursors:
            async with here.client(user) as client:
                missed = await client.watch(mine=True, cursor=cursor)
                assert (missed["resumed"], versions(missed)) == ("memory", {str(record): 3})


async def test_what_memory_has_forgotten_is_read_from_the_log_once_for_all(
    built: Builder, user: UUID, chapter: UUID
) -> None:
    async with built(memory_events=2, replay_timeout=PATIENCE, **COUNTED) as here:
        record = await here.accept(user, chapter)
        await here.caught_up()
        async with here.client(user) as client:
            mine = (await client.watch(id="m", mine=True))["cursor"]
            of_record = (await client.watch(id="r", record_id=record))["cursor"]
            cursor = (await client.watch(id="c", chapter_id=chapter))["cursor"]
            other = await here.accept(user, chapter, 2)
            for progress in range(1, 6):
                await here.change(record, progress=progress)
            await last_status(client, 6)
        before = await here.statements()
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(here.client(user)) for _ in range(8)]
            asked: list[dict[str, Any]] = [{"chapter_id": chapter, "cursor": cursor}] * 6
            asked += [{"mine": True, "cursor": mine}, {"record_id": record, "cursor": of_record}]
            with counted(log=8):
                answers = await asyncio.gather(
                    *(client.watch(**scope) for client, scope in zip(clients, asked, strict=True))
                )
            assert {answer["resumed"] for answer in answers} == {"log"}
            for answer in answers[:7]:
                assert versions(answer) == {str(other): 1, str(record): 6}
            assert versions(answers[7]) == {str(record): 6}
            # what came first is read alone, all others together
            assert here.notifier.replays.readings <= 2
            assert await here.statements() == before
            await here.change(record, progress=9)
            for client in clients:
                assert (await client.next("status"))["image"]["version"] == 7


async def test_where_there_is_too_much_between_there_is_a_snapshot(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built(memory_events=2, replay_events=4) as here:
        record = await here.accept(user, chapter)
        await here.caught_up()
        async with here.client(user) as client:
            cursor = (await client.watch(chapter_id=chapter))["cursor"]
            for progress in range(1, 7):
                await here.change(record, progress=progress)
            told = await last_status(client, 7)
        async with here.client(user) as client:
            with counted(snapshot=1):
                whole = await client.watch(chapter_id=chapter, cursor=cursor)
            assert (whole["resumed"], versions(whole)) == ("snapshot", {str(record): 7})
            with counted(none=1):
                assert (await client.watch(id="a", chapter_id=chapter))["resumed"] is None
            near = await client.watch(id="n", chapter_id=chapter, cursor=told["cursor"])
            assert (near["resumed"], near["images"]) == ("memory", [])


async def test_a_cursor_is_bound_to_no_user_and_opens_nothing(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built() as here:
        record = await here.accept(user, chapter)
        async with here.client(user) as client:
            cursor = (await client.watch(chapter_id=chapter))["cursor"]
            await here.change(record, progress=1)
            told = await client.next("status")
        async with here.client(uuid4()) as stranger:
            assert (await stranger.watch(id="c", chapter_id=chapter, cursor=cursor))["images"] == []
            assert (await stranger.watch(id="m", mine=True, cursor=told["cursor"]))["images"] == []
            for number, of in enumerate((cursor, told["cursor"])):
                await stranger.send(type="subscribe", id=f"r{number}", record_id=str(record), cursor=of)
                assert (await stranger.next())["code"] == "not_found"


async def test_a_cursor_of_another_chapter_is_no_excuse_to_leave_something_out(
    built: Builder, user: UUID, chapter: UUID
) -> None:
    async with built() as here:
        # of every partition some
        chapters = [uuid4() for _ in range(12)]
        records = {one: await here.accept(user, one) for one in chapters}
        cursors = []
        async with here.client(user) as client:
            await client.watch(mine=True)
            for record in records.values():
                await here.change(record, progress=1)
                cursors.append((await client.next("status"))["cursor"])
            for record in records.values():
                await here.change(record, progress=2)
                await client.next("status")
        async with here.client(user) as client:
            for number, (one, record) in enumerate(records.items()):
                for cursor in cursors:
                    await client.send(type="unsubscribe", id="s")
                    answer = await client.watch(chapter_id=one, cursor=cursor)
                    assert versions(answer) == {str(record): 3}, number


async def test_a_cursor_of_before_partitions_were_added_is_answered_by_a_snapshot(
    built: Builder, user: UUID, chapter: UUID
) -> None:
    async with built(kafka_watch=0.1) as here:
        record = await here.accept(user, chapter)
        async with here.client(user) as client:
            cursor = (await client.watch(chapter_id=chapter))["cursor"]
            mine = (await client.watch(id="m", mine=True))["cursor"]
            topic = BY_NAME[STATUS]
            await provision(here.settings, topics=[topic.model_copy(update={"partitions": 7})])
            await here.sender.discard()
            # wherever it goes now
            async with asyncio.timeout(2 * PATIENCE):
                while len(here.notifier.memory.partitions) < 7:
                    await here.change(record, progress=1)
                    await client.next("status")
            assert (await client.watch(id="c", chapter_id=chapter, cursor=cursor))["resumed"] == "snapshot"
            newer = await client.watch(id="n", mine=True, cursor=mine)
            assert newer["resumed"] == "snapshot"
            told_before = newer["cursor"]
            await here.change(record, progress=99)
            seen = await client.next("status")
            missed = await client.watch(id="o", mine=True, cursor=told_before)
            assert (missed["resumed"], versions(missed)) == ("memory", {str(record): seen["image"]["version"]})


async def test_the_end_comes_to_who_never_read_a_snapshot(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built() as one, built() as other:
        first, second = await one.accept(user, chapter, 1), await one.accept(user, chapter, 2)
        await one.caught_up()
        async with one.client(user) as client:
            cursor = (await client.watch(chapter_id=chapter))["cursor"]
        # while nobody looks
        await one.complete(first)
        await other.caught_up()
        async with other.client(user) as client:
            assert versions(await client.watch(chapter_id=chapter, cursor=cursor)) == {str(first): 2}
            await one.change(second, progress=5)
            assert (await client.next("status", "end"))["type"] == "status"
            await one.complete(second)
            assert (await client.next("status", "end"))["type"] == "status"
            assert await client.next() == {"type": "end", "id": "s"}
        async with other.client(user) as client:
            # both have ended meanwhile; whether these are all, memory alone cannot say
            await client.watch(chapter_id=chapter, cursor=cursor)
            assert await client.next() == {"type": "end", "id": "s"}


async def test_a_quiet_subscription_gets_a_new_cursor_in_time(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built(memory_seconds=0.6, ping_interval=0.1) as here:
        record = await here.accept(user, chapter)
        await here.caught_up()
        async with here.client(user) as client:
            old = (await client.watch(chapter_id=chapter))["cursor"]
            # something happens elsewhere in the log
            await here.accept(uuid4(), chapter)
            await here.caught_up()
            while (frame := await client.next("cursor"))["cursor"] == old:
                pass
            assert frame["id"] == "s"
            await here.change(record, progress=1)
            await client.next("status")
            missed = await client.watch(id="t", chapter_id=chapter, cursor=frame["cursor"])
            assert (missed["resumed"], versions(missed)) == ("memory", {str(record): 2})
