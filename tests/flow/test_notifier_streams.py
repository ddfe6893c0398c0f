"""A chapter as server-sent events: the frames of a socket, on the same cursor."""

import asyncio
import json
import socket as sockets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.flow.asking import Caller, problem
from tests.flow.pushing import PATIENCE, Builder, House, StoppedClock, token_for

pytestmark = [pytest.mark.flow, pytest.mark.connected]


class Reading:
    """One stream, message by message."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()
        self.comments = 0
        self.id = ""

    async def next(self, *kinds: str, within: float = PATIENCE) -> dict[str, Any]:
        """The next frame; of these kinds, when any are named."""
        async with asyncio.timeout(within):
            while True:
                kind, frame = await self._message()
                assert frame["type"] == kind
                if not kinds or kind in kinds:
                    return frame

    async def rest(self) -> list[dict[str, Any]]:
        """All until its end."""
        frames = []
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    frames.append((await self._message())[1])
            except StopAsyncIteration:
                return frames

    async def comment(self) -> None:
        """Wait for one more."""
        before = self.comments
        async with asyncio.timeout(PATIENCE):
            while self.comments == before:
                await self._line()

    async def _message(self) -> tuple[str, dict[str, Any]]:
        fields: dict[str, str] = {}
        while line := await self._line():
            name, _, value = line.partition(": ")
            fields[name] = value
        if not fields:
            return await self._message()
        self.id = fields.get("id", self.id)
        return fields["event"], json.loads(fields["data"])

    async def _line(self) -> str:
        line = await anext(self._lines)
        if line.startswith(":"):
            self.comments += 1
            # it has an empty line of its own
            return await anext(self._lines)
        return line


@asynccontextmanager
async def stream(
    here: House, user: UUID, chapter: UUID, last: str | None = None, **claims: Any
) -> AsyncIterator[Reading]:
    headers = here.bearer(user, **claims) | ({"Last-Event-ID": last} if last else {})
    async with here.http.stream("GET", f"/chapters/{chapter}/events", headers=headers, timeout=30.0) as answer:
        if answer.status_code != 200:
            await answer.aread()
        yield Reading(answer)


async def test_a_stream_says_what_a_socket_says(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built() as here:
        first = await here.accept(user, chapter)
        async with here.client(user) as client, stream(here, user, chapter) as reading:
            assert reading.answer.headers["content-type"].startswith("text/event-stream")
            assert reading.answer.headers["cache-control"] == "no-store"
            told, read = await client.watch(id="x", chapter_id=chapter), await reading.next()
            assert told == {**read, "id": "x", "cursor": told["cursor"]}
            assert reading.id == read["cursor"]
            await here.change(first, status="in_progress", progress=30, error_message='a "quoted"\nline')
            told, read = await client.next("status"), await reading.next("status")
            assert told == read
            assert reading.id == read["cursor"]
            await here.accept(uuid4(), chapter)
            await here.accept(user, uuid4())
            await here.complete(first)
            assert await client.next("status") == await reading.next()
            assert await reading.next() == {"type": "end", "id": ""}


async def test_it_goes_on_where_another_transport_was(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built() as here, built() as other:
        record = await here.accept(user, chapter)
        await here.caught_up()
        async with stream(here, user, chapter) as reading:
            cursor = (await reading.next("snapshot"))["cursor"]
        await here.change(record, progress=5)
        for one in (here, other):
            await one.caught_up()
            async with stream(one, user, chapter, cursor) as reading:
                missed = await reading.next("snapshot")
                assert (missed["resumed"], [image["version"] for image in missed["images"]]) == ("memory", [2])
            listed = (await Caller(one, user).get(f"/chapters/{chapter}/images?cursor={cursor}")).json()
            assert (listed["resumed"], listed["images"]) == ("memory", missed["images"])
            async with one.client(user) as client:
                assert (await client.watch(chapter_id=chapter, cursor=cursor))["images"] == missed["images"]
            async with stream(one, user, chapter, missed["cursor"]) as reading:
                assert (await reading.next("snapshot"))["images"] == []
            async with stream(one, user, chapter, "forged") as reading:
                whole = await reading.next("snapshot")
                assert (whole["resumed"], len(whole["images"])) == ("snapshot", 1)


async def test_a_comment_comes_now_and_then_and_a_new_cursor(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built(stream_heartbeat=0.1, memory_seconds=3.0) as here, stream(here, user, chapter) as reading:
        first = (await reading.next("snapshot"))["cursor"]
        await reading.comment()
        await reading.comment()
        await here.accept(uuid4(), chapter)
        while (frame := await reading.next("cursor"))["cursor"] == first:
            pass
        assert reading.id == frame["cursor"]


async def test_refusals_are_problems(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built(streams=1) as here:
        path = f"/chapters/{chapter}/events"
        problem(await here.http.get(path), 401, "token_missing")
        problem(await here.http.get("/chapters/seven/events", headers=here.bearer(user)), 422, "invalid")
        async with stream(here, user, chapter) as reading:
            await reading.next("snapshot")
            refused = await here.http.get(path, headers=here.bearer(user))
            problem(refused, 503, "too_many_streams")
            assert "retry-after" in refused.headers
        # the reader has left
        async with asyncio.timeout(PATIENCE):
            while len(here.notifier.streams):
                await here.http.get("/healthz")
        async with stream(here, user, chapter) as reading:
            assert (await reading.next())["type"] == "snapshot"
        head = await here.http.head(path, headers=here.bearer(user))
        assert (head.status_code, head.content) == (200, b"")


async def test_it_ends_with_its_token(built: Builder, user: UUID, chapter: UUID) -> None:
    clock = StoppedClock()
    async with (
        built({"clock": clock}) as here,
        stream(here, user, chapter, expires_in=-29.5, at=clock.now) as reading,
    ):
        frames = await reading.rest()
        assert [frame["type"] for frame in frames] == ["snapshot", "bye"]
        assert frames[-1] == {"type": "bye", "code": 4401, "retry_after_ms": 0}


async def test_it_ends_at_a_stop_with_a_time_to_come_back(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built(drain_window=0.2) as here:
        async with stream(here, user, chapter) as reading:
            await reading.next("snapshot")
            await here.notifier.drain()
            (bye,) = await reading.rest()
            assert (bye["type"], bye["code"]) == ("bye", 1012)
            assert 0 < bye["retry_after_ms"] <= 200
        late = await here.http.get(f"/chapters/{chapter}/events", headers=here.bearer(user))
        problem(late, 503, "restarting")
        assert "retry-after" in late.headers


@asynccontextmanager
async def who_does_not_read(here: House, user: UUID, chapter: UUID) -> AsyncIterator[None]:
    """One who asks for a stream and takes nothing of it, though their kernel goes on answering."""
    loop = asyncio.get_running_loop()
    with sockets.socket() as stopped:
        stopped.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        stopped.setblocking(False)
        await loop.sock_connect(stopped, ("127.0.0.1", int(here.url.rpartition(":")[2])))
        ask = f"GET /chapters/{chapter}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_for(user)}\r\n\r\n"
        await loop.sock_sendall(stopped, ask.encode())
        yield


async def test_who_does_not_read_is_let_go_and_delays_nobody(built: Builder, user: UUID, chapter: UUID) -> None:
    async with built(stall_timeout=0.5) as here:
        record = await here.accept(user, chapter)
        async with who_does_not_read(here, user, chapter), stream(here, user, chapter) as reading:
            await reading.next("snapshot")
            async with asyncio.timeout(PATIENCE):
                while len(here.notifier.streams) < 2:
                    await here.http.get("/healthz")
            async with asyncio.timeout(3 * PATIENCE):
                while len(here.notifier.streams) == 2:
                    await here.change(record, error_message="x" * 900)
                    await reading.next("status")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told")
async def test_who_does_not_read_is_let_go_by_the_kernel_too(built: Builder, user: UUID, chapter: UUID) -> None:
    # bytes that the kernel took wait nowhere else
    async with built(ping_timeout=1.0, stall_timeout=20 * PATIENCE) as here:
        record = await here.accept(user, chapter)
        async with who_does_not_read(here, user, chapter):
            async with asyncio.timeout(PATIENCE):
                while not len(here.notifier.streams):
                    await here.http.get("/healthz")
            async with asyncio.timeout(PATIENCE):
                while len(here.notifier.streams):
                    await here.change(record, error_message="x" * 900)
