"""A shared chapter, watched by somebody else: what a share token shows, and all that it does not."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from notifier import operations as notifier
from notifier.routes import CHAPTER_IMAGES, RECORD, SCENE_STATUS
from notifier.streams import CHAPTER_EVENTS
from producer import admin, routes, usage
from tests.flow.accepting import BODY, client_of, problem_of, settings_of
from tests.flow.asking import problem, status_path
from tests.flow.pushing import PATIENCE, House, house, settings_for, token_for

pytestmark = [pytest.mark.flow, pytest.mark.connected]


class Shared:
    """A chapter of a user's with one image, another with another, and a token for the first."""

    def __init__(self, here: House, user: UUID, chapter: UUID, record: UUID, other: UUID, hidden: UUID) -> None:
        self.here, self.user, self.chapter, self.record = here, user, chapter, record
        self.other, self.hidden = other, hidden
        self.token = ""

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.here.http.get(path, headers={**self.bearer, **headers})


@pytest.fixture
async def shared(here: House) -> Shared:
    user, chapter, other = uuid4(), uuid4(), uuid4()
    made = Shared(here, user, chapter, await here.accept(user, chapter), other, await here.accept(user, other))
    answer = await here.http.post(f"/chapters/{chapter}/share", headers=here.bearer(user))
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert sorted(told) == ["expires_at", "token"]
    made.token = told["token"]
    return made


async def test_it_shows_the_chapter_over_http(here: House, shared: Shared) -> None:
    scene = await shared.get(status_path(shared.chapter))
    assert (scene.status_code, scene.json()["record_id"]) == (200, str(shared.record))
    listed = await shared.get(f"/chapters/{shared.chapter}/images")
    assert [image["record_id"] for image in listed.json()["images"]] == [str(shared.record)]
    assert (await shared.get(f"/images/{shared.record}")).json()["user_id"] == str(shared.user)
    held = asyncio.create_task(
        shared.get(status_path(shared.chapter), **{"If-None-Match": scene.headers["etag"], "Prefer": "wait=10"})
    )
    async with asyncio.timeout(PATIENCE):
        while not len(here.notifier.polls):
            await here.http.get("/healthz")
    await here.complete(shared.record)
    assert (await held).json()["status"] == "completed"


async def test_it_shows_nothing_else_over_http(here: House, shared: Shared) -> None:
    other, hidden = shared.other, shared.hidden
    problem(await shared.get(status_path(other)), 403, "share_token_refused")
    problem(await shared.get(f"/chapters/{other}/images"), 403, "share_token_refused")
    problem(await shared.get(f"/images/{hidden}"), 404, "not_found")
    problem(await shared.get(f"/images/{uuid4()}"), 404, "not_found")
    problem(await shared.get(f"/images/{shared.record}/file"), 403, "share_token_refused")
    for chapter in (shared.chapter, other):
        answer = await here.http.post(f"/chapters/{chapter}/share", headers=shared.bearer)
        problem(answer, 403, "share_token_refused")


async def test_it_shows_the_chapter_as_a_stream(here: House, shared: Shared) -> None:
    path = f"/chapters/{shared.chapter}/events"
    async with here.http.stream("GET", path, headers=shared.bearer) as answer, asyncio.timeout(PATIENCE):
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        assert str(shared.record) in await _data(lines)
        await here.change(shared.hidden, progress=50)
        await here.complete(shared.record)
        told = await _data(lines)
        assert '"completed"' in told
        assert str(shared.hidden) not in told
    problem(await shared.get(f"/chapters/{shared.other}/events"), 403, "share_token_refused")


async def _data(lines: AsyncIterator[str]) -> str:
    async for line in lines:
        if line.startswith("data: "):
            return line
    raise AssertionError("the stream has ended")


OPEN = {SCENE_STATUS, CHAPTER_IMAGES, RECORD, CHAPTER_EVENTS}
"""What a share token opens; every other call that needs a token refuses it, those to come too."""


async def test_whatever_else_needs_a_token_refuses_it(here: House, shared: Shared) -> None:
    values = {"chapter_id": shared.chapter, "record_id": shared.record, "scene_number": 1}
    for operation in notifier.OPERATIONS:
        if not operation.bearer:
            continue
        path = operation.path.format(**values)
        # a stream is opened and left
        async with here.http.stream(operation.method, path, headers=shared.bearer) as answer:
            if operation.path in OPEN:
                assert answer.status_code == 200, operation.id
            else:
                await answer.aread()
                problem(answer, 403, "share_token_refused")


async def test_the_producer_refuses_it(database_url: str, shared: Shared) -> None:
    values = {"chapter_id": shared.chapter, "scene_number": 1, "letter_id": 1}
    async with client_of(settings_of(database_url)) as producer:
        for operation in (*routes.OPERATIONS, *usage.OPERATIONS, *admin.OPERATIONS):
            path = operation.path.format(**values)
            answer = await producer.request(operation.method, path, headers=shared.bearer, json=BODY)
            problem_of(answer, 403, "share_token_refused")
            assert answer.headers["www-authenticate"] == 'Bearer realm="scenewire", error="insufficient_scope"'


async def test_it_shows_the_chapter_on_a_socket(here: House, shared: Shared) -> None:
    async with here.socket(shared.token) as client:
        assert (await client.next())["type"] == "welcome"
        for scope in ({"chapter_id": shared.chapter}, {"record_id": shared.record}):
            snapshot = await client.watch(id=next(iter(scope)), **scope)
            assert [image["record_id"] for image in snapshot["images"]] == [str(shared.record)]
        await here.complete(shared.record)
        assert (await client.next("status"))["image"]["status"] == "completed"
        # somebody who is not there yet, and a token in a frame
        late = await here.accept(shared.user, shared.chapter, 2)
        assert (await client.next("status"))["image"]["record_id"] == str(late)
    async with here.socket(None) as client:
        await client.send(type="auth", token=shared.token)
        assert (await client.next())["type"] == "welcome"
        assert len((await client.watch(chapter_id=shared.chapter))["images"]) == 2


async def test_it_shows_nothing_else_on_a_socket(here: House, shared: Shared) -> None:
    async with here.client(shared.user) as owner, here.socket(shared.token) as client:
        # a position from which there would be nothing to show at first
        cursor = (await owner.watch(record_id=shared.hidden))["cursor"]
        assert (await client.next())["type"] == "welcome"
        refused: list[tuple[str, dict[str, Any]]] = [
            ("forbidden", {"mine": True}),
            ("forbidden", {"chapter_id": str(shared.other)}),
            ("forbidden", {"chapter_id": str(shared.other), "cursor": cursor}),
            ("not_found", {"record_id": str(shared.hidden)}),
            ("not_found", {"record_id": str(shared.hidden), "cursor": cursor}),
            ("not_found", {"record_id": str(uuid4())}),
        ]
        for number, (code, scope) in enumerate(refused):
            await client.send(type="subscribe", id=str(number), **scope)
            error = await client.next()
            assert (error["type"], error["id"], error["code"]) == ("error", str(number), code), scope
        await here.change(shared.hidden, progress=50)
        assert (await owner.next("status"))["image"]["progress"] == 50
        assert await client.pong() == []
        # it stays open for what it may show
        assert len((await client.watch(chapter_id=shared.chapter))["images"]) == 1


async def test_4403_for_a_token_of_another_reach(here: House, shared: Shared) -> None:
    async with here.socket(shared.token) as client:
        assert (await client.next())["type"] == "welcome"
        await client.send(type="auth", token=token_for(shared.user))
        assert await client.closed() == (4403, [])
    async with here.client(shared.user) as client:
        await client.send(type="auth", token=shared.token)
        assert await client.closed() == (4403, [])
    answer = await here.http.post(f"/chapters/{shared.chapter}/share", headers=here.bearer(shared.user))
    async with here.socket(shared.token) as client:
        assert (await client.next())["type"] == "welcome"
        await client.send(type="auth", token=answer.json()["token"])
        assert (await client.next())["type"] == "welcome"
        assert await client.pong() == []


async def test_4429_for_too_many_who_watch_and_the_owner_is_not_shut_out(
    database_url: str, kafka_servers: str, namespace: str, tmp_path: Path
) -> None:
    user, chapter = uuid4(), uuid4()
    settings = settings_for(database_url, kafka_servers, namespace, tmp_path, sockets_per_user=1)
    async with house(settings) as here:
        given = await here.http.post(f"/chapters/{chapter}/share", headers=here.bearer(user))
        token = given.json()["token"]
        async with here.socket(token) as first:
            assert (await first.next())["type"] == "welcome"
            async with here.socket(token) as second:
                assert await second.closed() == (4429, [])
            async with here.client(user) as owner:
                assert await owner.pong() == []
            assert await first.pong() == []


async def test_sharing_needs_a_token_and_a_chapter(here: House) -> None:
    user = uuid4()
    problem(await here.http.post(f"/chapters/{uuid4()}/share"), 401, "token_missing")
    problem(await here.http.post("/chapters/seven/share", headers=here.bearer(user)), 422, "invalid")
    problem(await here.http.get(f"/chapters/{uuid4()}/share", headers=here.bearer(user)), 405, "method_not_allowed")


async def test_it_is_good_for_a_quarter_of_an_hour(here: House, shared: Shared) -> None:
    answer = await here.http.post(f"/chapters/{shared.chapter}/share", headers=here.bearer(shared.user))
    told = answer.json()["expires_at"]
    async with here.socket(answer.json()["token"]) as client:
        welcome = await client.next()
    assert welcome["expires_at"].removesuffix("+00:00") == told.removesuffix("Z")
    left = datetime.fromisoformat(told) - datetime.now(UTC)
    assert 880 < left.total_seconds() <= 900


async def test_no_token_reaches_the_log(here: House, shared: Shared, capsys: pytest.CaptureFixture[str]) -> None:
    await shared.get(f"/images/{shared.hidden}")
    await here.http.post(f"/chapters/{shared.chapter}/share", headers=shared.bearer)
    async with here.socket(shared.token) as client:
        assert (await client.next())["type"] == "welcome"
        await client.send(type="auth", token=shared.token[:-4])
        assert (await client.closed())[0] == 4401
    said = "".join(capsys.readouterr())
    assert shared.token.rpartition(".")[2][:-4] not in said
    assert shared.token.split(".")[1] not in said
