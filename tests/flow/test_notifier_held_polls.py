"""Polls that wait for news: what answers them, for how long, and how many."""

import asyncio
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.flow.asking import Caller, problem, status_path
from tests.flow.pushing import PATIENCE, Builder, House, StoppedClock, house, settings_for

pytestmark = [pytest.mark.flow, pytest.mark.connected]


async def test_a_held_poll_is_answered_by_the_change(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    record = await here.accept(user, chapter)
    for path in (status_path(chapter), f"/images/{record}"):
        etag = (await caller.get(path)).headers["etag"]
        poll = await caller.held(path, Prefer="wait=30", If_None_Match=etag)
        await here.change(record, progress=5)
        answer = await poll
        assert (answer.status_code, answer.json()["progress"]) == (200, 5)
        assert answer.headers["preference-applied"] == "wait=30"
        assert answer.headers["etag"] != etag


async def test_polls_that_one_change_wakes_read_it_together(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    record = await here.accept(user, chapter)
    for path in (status_path(chapter), f"/images/{record}"):
        etag = (await caller.get(path)).headers["etag"]
        polls = [await caller.held(path, Prefer="wait=30", If_None_Match=etag) for _ in range(40)]
        before = await here.statements()
        await here.change(record, error_message=path)
        assert {(await poll).json()["error_message"] for poll in polls} == {path}
        # those of the change itself among them
        assert await here.statements() - before < 20


async def test_a_held_poll_without_a_tag_waits_for_the_end(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    record = await here.accept(user, chapter)
    poll = await caller.held(status_path(chapter), Prefer="respond-async, wait=600")
    await here.change(record, progress=5)
    await here.change(record, progress=50)
    await here.complete(record)
    answer = await poll
    assert answer.json()["status"] == "completed"
    assert answer.headers["preference-applied"] == "wait=60"
    again = await caller.get(status_path(chapter), Prefer="wait=30")
    assert again.json()["version"] == answer.json()["version"]


async def test_time_is_up(built: Builder, user: UUID, chapter: UUID) -> None:
    clock = StoppedClock()
    async with built({"clock": clock}) as here:
        caller = Caller(here, user)
        await here.accept(user, chapter)
        path = status_path(chapter)
        plain = await caller.get(path, Prefer="wait=0")
        assert plain.status_code == 200
        assert plain.headers["preference-applied"] == "wait=0"
        known = await caller.get(path, Prefer="wait=1", If_None_Match=plain.headers["etag"])
        assert known.status_code == 304
        assert known.headers["preference-applied"] == "wait=1"
        # a poll ends with its token
        lapsing = here.bearer(user, expires_in=-29.5, at=clock.now) | {"Prefer": "wait=60"}
        assert (await here.http.get(path, headers=lapsing)).status_code == 200


async def test_another_scenes_change_does_not_end_a_poll(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    one, two = await here.accept(user, chapter, 1), await here.accept(user, chapter, 2)
    etag = (await caller.get(status_path(chapter, 1))).headers["etag"]
    poll = await caller.held(status_path(chapter, 1), Prefer="wait=30", If_None_Match=etag)
    async with here.client(user) as client:
        await client.watch(chapter_id=chapter)
        await here.change(two, progress=9)
        await client.next("status")
        assert not poll.done()
        await here.change(one, progress=8)
    assert (await poll).json()["progress"] == 8


async def test_a_chapter_is_held_until_there_is_something_newer(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    record, elsewhere = await here.accept(user, chapter), await here.accept(user, uuid4())
    path = f"/chapters/{chapter}/images"
    async with here.client(user) as client:
        await client.watch(mine=True)
        await here.change(record, progress=1)
        told = await client.next("status")
        for known_from in ("list", "frame"):
            listed = (await caller.get(path)).json()["cursor"]
            known = listed if known_from == "list" else told["cursor"]
            poll = await caller.held(f"{path}?cursor={known}", Prefer="wait=30")
            await here.change(elsewhere, progress=3)
            await client.next("status")
            assert not poll.done()
            await here.change(record, progress=4)
            told = await client.next("status")
            answer = await poll
            assert answer.headers["preference-applied"] == "wait=30"
            assert (answer.json()["images"], answer.json()["resumed"]) == ([told["image"]], "memory")
        # what is behind already, or means nothing here, is answered at once
        for known in (listed, "forged"):
            assert (await caller.get(f"{path}?cursor={known}", Prefer="wait=60")).status_code == 200


async def test_polls_are_limited_and_answered_at_the_stop(
    database_url: str, kafka_servers: str, namespace: str, tmp_path: Path, user: UUID, chapter: UUID
) -> None:
    settings = settings_for(database_url, kafka_servers, namespace, tmp_path, long_polls=1)
    async with house(settings) as here:
        caller = Caller(here, user)
        await here.accept(user, chapter)
        poll = await caller.held(status_path(chapter), Prefer="wait=60")
        refused = await caller.get(status_path(chapter), Prefer="wait=60")
        problem(refused, 503, "too_many_polls")
        assert "retry-after" in refused.headers
        assert (await caller.get(status_path(chapter))).status_code == 200
        await here.notifier.drain()
        assert (await poll).status_code == 200
        assert (await caller.get(status_path(chapter), Prefer="wait=60")).status_code == 200


async def test_a_poll_whose_client_left_is_let_go(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    await here.accept(user, chapter)
    poll = await caller.held(status_path(chapter), Prefer="wait=60")
    poll.cancel()
    async with asyncio.timeout(PATIENCE):
        while len(here.notifier.polls):
            await here.http.get("/healthz")
