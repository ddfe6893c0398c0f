"""Why sockets are closed: each close code of the contract, and what stays open."""

import asyncio
import json
import socket as sockets
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from websockets.typing import Origin

from local.postgres import Postgres
from tests.flow.pushing import (
    PATIENCE,
    SUBPROTOCOL,
    Builder,
    House,
    StoppedClock,
    house,
    settings_for,
    subprotocol_of,
    token_for,
)

pytestmark = [pytest.mark.flow, pytest.mark.connected]


async def test_the_handshake_echoes_our_subprotocol_and_never_the_token(built: Builder, user: UUID) -> None:
    async with built() as here:
        async with here.client(user) as client:
            assert client.socket.subprotocol == SUBPROTOCOL
        async with here.socket(token_for(user), protocols=[]) as client:
            assert client.socket.subprotocol is None
            assert (await client.next())["type"] == "welcome"


async def test_a_token_may_come_in_a_frame(built: Builder, user: UUID) -> None:
    async with built() as here, here.socket(None) as client:
        token = token_for(user, expires_in=600)
        await client.send(type="auth", token=token)
        welcome = await client.next()
        assert welcome["type"] == "welcome"
        assert welcome["ping_interval_ms"] == 15_000
        assert welcome["expires_at"].endswith("+00:00")
        await client.send(type="auth", token=token_for(user, expires_in=900))
        again = await client.next()
        assert again["expires_at"] > welcome["expires_at"]
        assert (await client.watch(mine=True))["images"] == []


async def test_4401_a_bad_token_is_accepted_then_closed(built: Builder) -> None:
    async with built() as here:
        for protocol in (
            subprotocol_of("no.token.at-all"),
            subprotocol_of(token_for("not-a-uuid")),
            subprotocol_of(token_for(uuid4(), expires_in=-31)),
            "base64url.bearer.scenewire.A",
            "base64url.bearer.scenewire.",
        ):
            async with here.socket(None, protocols=[SUBPROTOCOL, protocol]) as client:
                assert client.socket.subprotocol == SUBPROTOCOL
                assert await client.closed() == (4401, []), protocol


async def test_4401_without_a_token_nothing_is_told(built: Builder, user: UUID) -> None:
    async with built() as here:
        async with here.socket(None) as client:
            await client.send(type="subscribe", id="s", mine=True)
            assert await client.closed() == (4401, [])
        async with here.socket(None) as client:
            await client.send(type="auth", token="x.y.z")
            assert await client.closed() == (4401, [])


async def test_4401_when_the_token_lapses(built: Builder, user: UUID) -> None:
    clock = StoppedClock()
    async with built({"clock": clock}) as here, here.socket(token_for(user, expires_in=-29.5, at=clock.now)) as client:
        code, frames = await client.closed()
        assert code == 4401
        assert [frame["type"] for frame in frames] == ["welcome"]


async def test_a_new_token_in_time_keeps_the_socket(built: Builder, user: UUID) -> None:
    # near enough its end for the timer to run
    async with built() as here, here.socket(token_for(user, expires_in=-10.0)) as client:
        await client.send(type="auth", token=token_for(user))
        connection = next(iter(here.notifier.connections))
        assert (await client.next())["type"] == "welcome"
        assert (await client.next())["type"] == "welcome"
        assert connection.caller is not None
        assert connection.lapses_in() > 60


async def test_4403_for_another_users_token(built: Builder, user: UUID) -> None:
    async with built() as here, here.client(user) as client:
        await client.send(type="auth", token=token_for(uuid4()))
        assert await client.closed() == (4403, [])


async def test_4403_for_a_page_of_another_origin(built: Builder, user: UUID) -> None:
    async with built(allowed_origins="https://our.page") as here:
        for origin in ("https://their.page", "null"):
            async with here.socket(token_for(user), origin=Origin(origin)) as client:
                assert await client.closed() == (4403, [])
        async with here.client(user, origin=Origin("https://our.page")):
            pass
        async with here.client(user):
            pass


async def test_4408_without_a_token_in_time(built: Builder) -> None:
    async with built(auth_timeout=0.05) as here, here.socket(None) as client:
        assert await client.closed() == (4408, [])


NO_FRAMES: tuple[str | bytes, ...] = (
    "",
    "nonsense",
    "[]",
    '"ping"',
    "{}",
    '{"type":"shout"}',
    '{"type":"ping","extra":1}',
    '{"type":"subscribe","id":"s"}',
    '{"type":"subscribe","id":"","mine":true}',
    '{"type":"subscribe","id":"s","mine":false}',
    '{"type":"subscribe","id":"s","mine":true,"record_id":"0b0e5b1e-0000-4000-8000-000000000000"}',
    '{"type":"subscribe","id":"s","chapter_id":"seven"}',
    '{"type":"subscribe","id":7,"mine":true}',
    '{"type":"unsubscribe"}',
    b'{"type":"ping"}',
)


async def test_4400_for_what_is_no_frame(built: Builder, user: UUID) -> None:
    async with built() as here:
        for message in NO_FRAMES:
            async with here.client(user) as client:
                await client.socket.send(message)
                assert await client.closed() == (4400, []), message


async def test_1009_for_a_message_that_is_too_big(built: Builder, user: UUID) -> None:
    async with built(socket_message_bytes=2048) as here, here.client(user) as client:
        await client.socket.send(json.dumps({"type": "auth", "token": "x" * 4096}))
        assert (await client.closed())[0] == 1009


async def test_1007_for_what_is_not_utf8(built: Builder, user: UUID) -> None:
    async with built() as here, here.client(user) as client:
        await client.socket.send(b"\xff\xfe", text=True)
        assert (await client.closed())[0] == 1007


async def test_4429_for_too_many_messages(built: Builder, user: UUID) -> None:
    async with built(socket_message_burst=5, socket_message_rate=0.001) as here, here.client(user) as client:
        for _ in range(6):
            await client.send(type="ping")
        code, frames = await client.closed()
        assert code == 4429
        assert len(frames) <= 5


async def test_4429_for_too_many_subscriptions(built: Builder, user: UUID) -> None:
    async with built(socket_subscriptions=2) as here, here.client(user) as client:
        await client.watch(id="a", mine=True)
        await client.watch(id="b", mine=True)
        # an id used again takes the place of the first
        await client.watch(id="b", mine=True)
        await client.send(type="subscribe", id="c", mine=True)
        assert (await client.closed())[0] == 4429


async def test_4429_for_too_many_sockets_of_one_user(built: Builder, user: UUID) -> None:
    async with built(sockets_per_user=1) as here:
        async with here.client(user) as first:
            async with here.socket(token_for(user)) as second:
                assert await second.closed() == (4429, [])
            async with here.client(uuid4()):
                pass
            assert await first.pong() == []
        await _until_empty(here)
        async with here.client(user):
            pass


async def test_4503_while_the_database_is_away(
    private_postgres: Postgres, kafka_servers: str, namespace: str, tmp_path: Path, user: UUID
) -> None:
    settings = settings_for(private_postgres.url(), kafka_servers, namespace, tmp_path)
    async with house(settings) as here:
        async with here.client(user) as watching, here.client(user) as client:
            await watching.watch(mine=True)
            await asyncio.to_thread(private_postgres.kill)
            await client.send(type="subscribe", id="s", mine=True)
            code, frames = await client.closed()
            assert code == 4503
            assert [frame["type"] for frame in frames] == ["bye"]
            assert frames[0]["code"] == 4503
            assert frames[0]["retry_after_ms"] > 0
            # who has a snapshot needs no database
            assert await watching.pong() == []
        answer = await here.http.get(f"/images/{uuid4()}", headers=here.bearer(user))
        assert answer.status_code == 503
        assert "retry-after" in answer.headers


async def test_1012_with_a_time_to_come_back(built: Builder, user: UUID) -> None:
    async with built(drain_window=0.2) as here:
        async with here.client(user) as one, here.client(user) as two:
            await here.notifier.drain()
            for client in (one, two):
                code, frames = await client.closed()
                assert code == 1012
                assert [(frame["type"], frame["code"]) for frame in frames] == [("bye", 1012)]
                assert 0 < frames[0]["retry_after_ms"] <= 200
        async with here.socket(token_for(user)) as late:
            assert (await late.closed())[0] == 1012


async def test_4508_for_who_does_not_read_and_nothing_for_the_others(built: Builder, user: UUID) -> None:
    chapter = uuid4()
    async with built(stall_timeout=0.5) as here:
        record = await here.accept(user, chapter)
        stopped = sockets.socket()
        stopped.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        stopped.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stopped, ("127.0.0.1", int(here.url.rpartition(":")[2])))
        async with here.client(user) as fast, here.client(user, sock=stopped, max_queue=1) as slow:
            await fast.watch(chapter_id=chapter)
            await slow.watch(chapter_id=chapter)
            slow.socket.transport.pause_reading()
            connections = set(here.notifier.connections)
            assert len(connections) == 2
            text = "x" * 900
            seen = 0
            async with asyncio.timeout(2 * PATIENCE):
                while len(here.notifier.connections) == 2:
                    await here.change(record, error_message=text)
                    # each change, at once: the other one does not delay it
                    frame = await fast.next("status")
                    seen = frame["image"]["version"]
            assert seen > 2
            assert await fast.pong() == []
            slow.socket.transport.resume_reading()
            assert (await slow.closed())[0] in (4508, 1006)


async def _until_empty(here: House) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(here.notifier.connections):
            await here.http.get("/healthz")
