"""Clients that stop reading: how soon they are gone, and what they cost until then."""

import array
import asyncio
import fcntl
import socket as sockets
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from notifier.connection import Connection
from notifier.protocol import PushProtocol
from schemas.frames import SUBPROTOCOL
from tests.flow.pushing import Client, House, house, settings_for, subprotocol_of, token_for

pytestmark = [pytest.mark.flow, pytest.mark.connected]

SLACK = 10.0
"""Seconds more than a client is given, for a machine that is busy."""
MOST_BYTES = 512 * 1024
"""Of kernel and process together, for one that does not read."""


class Stopped:
    """A socket whose owner was stopped once it had asked for its chapter."""

    def __init__(self, connection: Connection) -> None:
        assert isinstance(connection.outlet.line, PushProtocol)
        self.connection = connection
        self._transport = connection.outlet.line.transport
        self.most = 0

    def look(self) -> None:
        """What is kept for it now: in the kernel (SIOCOUTQ, which termios calls TIOCOUTQ), and here."""
        raw = self._transport.get_extra_info("socket")
        if self._transport.is_closing() or raw.fileno() < 0:
            return
        kernel = array.array("i", [0])
        fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, kernel)
        outlet = self.connection.outlet
        self.most = max(self.most, kernel[0] + outlet.bytes_in_line() + outlet.waiting_bytes)


@asynccontextmanager
async def stopped(here: House, user: UUID, chapter: UUID) -> AsyncIterator[Stopped]:
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", int(here.url.rpartition(":")[2])))
    before = set(here.notifier.connections)
    async with here.client(user, sock=raw, max_queue=1) as client:
        await client.watch(chapter_id=chapter)
        client.socket.transport.pause_reading()
        (connection,) = set(here.notifier.connections) - before
        yield Stopped(connection)
        client.socket.transport.abort()


async def test_a_stopped_client_costs_little_and_nobody_else_waits(
    database_url: str, kafka_servers: str, namespace: str, tmp_path: Path
) -> None:
    user, chapter = uuid4(), uuid4()
    settings = settings_for(database_url, kafka_servers, namespace, tmp_path)
    async with house(settings) as here:
        records = [await here.accept(user, chapter, scene) for scene in range(1, 21)]
        async with here.client(user) as one, here.client(user) as other:
            live = [one, other]
            for client in live:
                await client.watch(chapter_id=chapter)
            async with stopped(here, user, chapter) as victim:
                loop = asyncio.get_running_loop()
                began = loop.time()
                number = 0
                while victim.connection in set(here.notifier.connections):
                    # more than a line, its buffers and all that may wait beside them can hold
                    for record in records:
                        number += 1
                        await here.change(record, relay=False, error_message=f"{number} " + "x" * 3000)
                    await here.relay()
                    for client in live:
                        await _until_told(client, f"{number} ")
                    victim.look()
                    assert loop.time() - began < 2 * SLACK
                # from the first byte that waited, which came after `began`
                assert loop.time() - began < settings.stall_timeout + 2 * SLACK
                assert 64 * 1024 < victim.most <= MOST_BYTES
            for client in live:
                assert await client.pong() == []


async def test_a_peer_that_is_silent_is_gone_while_who_answers_stays(
    database_url: str, kafka_servers: str, namespace: str, tmp_path: Path
) -> None:
    user, chapter = uuid4(), uuid4()
    # a tenth of what they are in production
    settings = settings_for(database_url, kafka_servers, namespace, tmp_path, ping_interval=1.5, ping_timeout=0.8)
    async with house(settings) as here, here.client(user) as live:
        loop = asyncio.get_running_loop()
        async with stopped(here, user, chapter) as victim:
            began = loop.time()
            while victim.connection in set(here.notifier.connections):
                await live.next(within=SLACK)
            assert loop.time() - began < 2.5 + SLACK
        assert await live.pong() == []


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"\x81", id="half-a-head"),
        pytest.param(b"\x81\xfe\x10", id="half-a-length"),
        pytest.param(b'\x81\xfe\x10\x00\x00\x00\x00\x00{"type":"subscribe"', id="half-a-frame"),
        pytest.param(b'\x01\x8a\x00\x00\x00\x00{"type":"p', id="half-a-message"),
        pytest.param(b"\x89\x84\x00\x00\x00\x00pi", id="half-a-ping"),
    ],
)
async def test_who_begins_a_message_and_does_not_end_it_is_gone_like_any_silent_one(
    begun: bytes, database_url: str, kafka_servers: str, namespace: str, tmp_path: Path
) -> None:
    settings = settings_for(database_url, kafka_servers, namespace, tmp_path, ping_interval=1.5, ping_timeout=0.8)
    async with house(settings) as here:
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(here.url.rpartition(":")[2]))
        offered = f"{SUBPROTOCOL}, {subprotocol_of(token_for(uuid4()))}"
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: page\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
            f"Sec-WebSocket-Protocol: {offered}\r\n\r\n".encode()
        )
        try:
            async with asyncio.timeout(SLACK):
                assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            began = loop.time()
            writer.write(begun)
            async with asyncio.timeout(2.5 + SLACK):
                frames = await reader.read(-1)
            # 1011, no answer to a ping: it was not closed for what it had sent
            assert b"\x03\xf3no answer to a ping" in frames
            assert loop.time() - began > settings.ping_timeout
            assert not here.notifier.connections
        finally:
            writer.transport.abort()


async def _until_told(client: Client, words: str) -> None:
    def told(frame: dict[str, Any]) -> bool:
        return str(frame["image"]["error_message"]).startswith(words)

    while not told(await client.next("status")):
        pass
