"""`/ws` from outside: the contract's frames, on real Kafka and Postgres."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.flow.pushing import PATIENCE, House, house, settings_for

pytestmark = [pytest.mark.flow, pytest.mark.connected]


def versions(frames: list[dict[str, Any]]) -> list[int]:
    return [frame["image"]["version"] for frame in frames if frame["type"] == "status"]


async def test_a_subscriber_gets_snapshot_changes_and_end(here: House, user: UUID, chapter: UUID) -> None:
    async with here.client(user) as client:
        empty = await client.watch(chapter_id=chapter)
        assert empty["images"] == []
        assert empty["resumed"] is None
        record = await here.accept(user, chapter)
        first = await client.next()
        assert first["type"] == "status"
        assert first["image"]["record_id"] == str(record)
        assert (first["image"]["status"], first["image"]["version"]) == ("pending", 1)
        await here.change(record, status="in_progress", stage="generating", progress=30)
        assert (await client.next())["image"]["progress"] == 30
        await here.complete(record)
        last = await client.next()
        assert last["image"]["status"] == "completed"
        assert await client.next() == {"type": "end", "id": "s"}
        polled = await here.http.get(f"/images/{record}", headers=here.bearer(user))
        assert {**polled.json(), "cost_usd": None} == last["image"]
        again = await client.watch(id="t", chapter_id=chapter, cursor=last["cursor"])
        assert (again["resumed"], again["images"]) == ("memory", [])
        assert await client.next() == {"type": "end", "id": "t"}
        forged = await client.watch(id="u", chapter_id=chapter, cursor="forged")
        assert forged["resumed"] == "snapshot"
        assert forged["images"] == [{**last["image"], "cost_usd": 0}]
        assert await client.next() == {"type": "end", "id": "u"}


async def test_a_stranger_sees_nothing(here: House, user: UUID, chapter: UUID) -> None:
    stranger = uuid4()
    record = await here.accept(user, chapter)
    async with here.client(stranger) as client, here.client(user) as owner:
        assert (await client.watch(id="c", chapter_id=chapter))["images"] == []
        assert (await client.watch(id="m", mine=True))["images"] == []
        await client.send(type="subscribe", id="r", record_id=str(record))
        error = await client.next()
        assert (error["type"], error["id"], error["code"]) == ("error", "r", "not_found")
        await owner.watch(record_id=record)
        await here.change(record, progress=5)
        await owner.next("status")
        assert await client.pong() == []


async def test_each_scope_sees_its_own(here: House, user: UUID, chapter: UUID) -> None:
    record, other = await here.accept(user, chapter, 1), await here.accept(user, uuid4(), 1)
    async with here.client(user) as one, here.client(user) as all_of_it:
        snapshot = await one.watch(record_id=record)
        assert [image["record_id"] for image in snapshot["images"]] == [str(record)]
        snapshot = await all_of_it.watch(mine=True)
        assert {image["record_id"] for image in snapshot["images"]} == {str(record), str(other)}
        await here.change(other, progress=10)
        await here.change(record, progress=20)
        assert (await one.next("status"))["image"]["progress"] == 20
        seen = [await all_of_it.next("status") for _ in range(2)]
        assert {frame["image"]["record_id"] for frame in seen} == {str(record), str(other)}
        cursor = await all_of_it.next("cursor")
        assert cursor["id"] == "s"
        assert cursor["cursor"]


async def test_a_status_comes_once_whatever_the_number_of_subscriptions(here: House, user: UUID, chapter: UUID) -> None:
    record = await here.accept(user, chapter)
    async with here.client(user) as client:
        await client.watch(id="a", chapter_id=chapter)
        await client.watch(id="b", chapter_id=chapter)
        await client.watch(id="c", record_id=record)
        await client.watch(id="d", mine=True)
        await here.change(record, progress=1)
        await here.complete(record)
        frames = []
        while len([frame for frame in frames if frame["type"] == "end"]) < 4:
            frames.append(await client.next("status", "end"))
        assert versions(frames) == [2, 3]
        assert sorted(frame["id"] for frame in frames if frame["type"] == "end") == ["a", "b", "c", "d"]


async def test_nothing_more_comes_after_unsubscribe(here: House, user: UUID, chapter: UUID) -> None:
    record = await here.accept(user, chapter)
    async with here.client(user) as client, here.client(user) as watching:
        await client.watch(chapter_id=chapter)
        await watching.watch(chapter_id=chapter)
        await client.send(type="unsubscribe", id="s")
        await client.send(type="unsubscribe", id="never subscribed")
        assert await client.pong() == []
        await here.change(record, progress=1)
        await watching.next("status")
        assert await client.pong() == []


async def test_a_redelivered_or_older_event_is_not_sent_again(here: House, user: UUID, chapter: UUID) -> None:
    record = await here.accept(user, chapter)
    async with here.client(user) as client:
        await client.watch(chapter_id=chapter)
        await here.change(record, progress=1, relay=False)
        rows = await here.database.fetch("SELECT key, body FROM outbox")
        old = bytes(rows[0].body)
        await here.relay()
        await here.change(record, progress=2)
        await here.say(chapter, old)
        await here.change(record, progress=3)
        frames = [await client.next("status") for _ in range(3)]
        assert versions(frames) == [2, 3, 4]


async def test_poison_stops_nothing(here: House, user: UUID, chapter: UUID) -> None:
    record = await here.accept(user, chapter)
    async with here.client(user) as client:
        await client.watch(chapter_id=chapter)
        for body in (b"", b"\xff", b"{}", b"not json"):
            await here.say(chapter, body)
        await here.change(record, progress=7)
        assert (await client.next("status"))["image"]["progress"] == 7


async def test_a_regenerated_scene_keeps_its_current_image_in_the_snapshot(
    here: House, user: UUID, chapter: UUID
) -> None:
    done = await here.accept(user, chapter, 3)
    await here.complete(done)
    newer = await here.accept(user, chapter, 3)
    async with here.client(user) as client:
        snapshot = await client.watch(chapter_id=chapter)
        assert [image["record_id"] for image in snapshot["images"]] == [str(done), str(newer)]


async def test_a_cursor_that_is_of_no_use_is_a_snapshot(here: House, user: UUID, chapter: UUID) -> None:
    record = await here.accept(user, chapter)
    async with here.client(user) as client:
        good = (await client.watch(chapter_id=chapter))["cursor"]
        forged, damaged = "bm90IGEgY3Vyc29y", good[:-1]
        # longer than any that is written, and as long as a message may be
        for number, cursor in enumerate((forged, damaged, "ü", "A" * 1025, good * 20, "A" * 30_000)):
            snapshot = await client.watch(id=f"n{number}", chapter_id=chapter, cursor=cursor)
            assert [image["record_id"] for image in snapshot["images"]] == [str(record)], cursor[:80]
            assert snapshot["resumed"] == "snapshot", cursor[:80]


async def test_pings_are_answered_and_sent(
    database_url: str, kafka_servers: str, namespace: str, tmp_path: Path, user: UUID
) -> None:
    settings = settings_for(database_url, kafka_servers, namespace, tmp_path, ping_interval=0.1)
    async with house(settings) as here, here.socket(None) as client:
        # the server's turn may come first
        await client.send(type="ping")
        assert await client.next("pong") == {"type": "pong"}
        assert await client.next("ping") == {"type": "ping"}
        # answering one is allowed
        await client.send(type="pong")
        assert await client.next() == {"type": "ping"}


async def test_each_frame_is_of_the_schema(here: House, user: UUID, chapter: UUID) -> None:
    from pydantic import TypeAdapter

    from schemas.frames import ServerFrame

    frames: TypeAdapter[Any] = TypeAdapter(ServerFrame)
    record = await here.accept(user, chapter)
    async with here.client(user) as client:
        frames.validate_json(json.dumps(await client.watch(mine=True)))
        await here.complete(record)
        for _ in range(3):
            frames.validate_json(json.dumps(await client.next("status", "end", "cursor")))


async def test_subscriptions_are_counted_as_they_come_and_go(here: House, user: UUID, chapter: UUID) -> None:
    connections = here.notifier.connections
    async with here.client(user) as one:
        async with here.client(user) as other:
            await one.watch(id="a", chapter_id=chapter)
            await one.watch(id="b", mine=True)
            # the same id again takes the place of the first
            await one.watch(id="b", chapter_id=chapter)
            await other.watch(id="a", chapter_id=chapter)
            assert connections.subscriptions == 3
            await one.send(type="unsubscribe", id="a")
            await one.send(type="unsubscribe", id="never")
            await one.pong()
            assert connections.subscriptions == 2
        async with asyncio.timeout(PATIENCE):
            while len(connections) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert connections.subscriptions == 1
        # of a record that is not there nothing stays
        await one.send(type="subscribe", id="c", record_id=str(uuid4()))
        assert (await one.next("error"))["code"] == "not_found"
        assert connections.subscriptions == 1
