"""RFC 6455 on a real line: the Autobahn cases, the handshake, and every way a line ends; on both event loops."""

import asyncio
import base64
import hashlib
import itertools
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from notifier.frames import text_frame
from notifier.handshake import Asked
from notifier.incoming import Incoming, Violation
from notifier.outlet import Outlet, Outlets
from notifier.protocol import PushProtocol, Service
from notifier.rounds import Rounds
from tests.unit.autobahn_cases import BINARY, CLOSE, NO_CODE, PING, PONG, TEXT, Case, all_cases, close
from tests.unit.wire_frames import client_frame, text

CASES = list(all_cases())
PATIENCE = 10.0
LARGEST = 1 << 20
_BINARY_ECHO = b"something binary"
KEY = base64.b64encode(bytes(range(16)))


class Echo:
    """A connection that sends back what it gets."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.heard = asyncio.Event()
        self._keys = itertools.count()

    def may_send(self) -> bool:
        return not self.outlet.closed

    def receive(self, words: str) -> None:
        if words == "fail":
            raise RuntimeError("a fault of ours")
        self.outlet.put(next(self._keys), text_frame(words.encode()))
        self.heard.set()

    def receive_binary(self) -> None:
        self.outlet.put(next(self._keys), text_frame(_BINARY_ECHO))

    def ping(self) -> None:
        self.outlet.put("ping", bytes((0x89, 0)))


class Lines(set[Any]):
    """The open ones, as uvicorn keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def discard(self, line: Any) -> None:
        super().discard(line)
        self._changed.set()

    async def empty(self) -> None:
        while self:
            self._changed.clear()
            await self._changed.wait()


class Server:
    """Echoes on a port, in an event loop of its own kind; `run` runs a client in it."""

    def __init__(self, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._runner = asyncio.Runner(loop_factory=make_loop)
        self.open: list[Echo] = []
        self.lines = Lines()
        self.run(self._start())

    def run(self, client: Coroutine[Any, Any, None]) -> None:
        async def in_time() -> None:
            async with asyncio.timeout(PATIENCE):
                await client

        self._runner.run(in_time())

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self.outlets = Outlets(0.4, clock=loop.time, soon=loop.call_soon)
        self.rounds = Rounds(interval=1000.0, timeout=0.0, clock=loop.time)
        service = Service(
            answer=lambda asked: asked.accepted(None),
            opened=self._opened,  # type: ignore[arg-type]
            begin=self._begin,  # type: ignore[arg-type]
            closed=self.open.remove,  # type: ignore[arg-type]
            rounds=self.rounds,
            message_bytes=LARGEST,
        )
        self._server = await loop.create_server(lambda: PushProtocol(service, self.lines), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def _opened(self, line: PushProtocol) -> Echo:
        echo = Echo(Outlet(line, self.outlets))
        self.open.append(echo)
        return echo

    def _begin(self, echo: Echo, asked: Asked) -> None:
        if asked.path == "/fails":
            raise RuntimeError("a fault of ours")

    def close(self) -> None:
        async def stop() -> None:
            self._server.close()
            for line in list(self.lines):
                line.shutdown()
            await self.lines.empty()

        self.run(stop())
        self._runner.close()


@pytest.fixture(scope="module", params=[asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    made = Server(request.param)
    yield made
    made.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def frame(self) -> tuple[int, bytes] | None:
        """The server's next; None at the end of the line. It is never masked and never in fragments."""
        try:
            first, size = await self.reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        assert first & 0xF0 == 0x80
        assert size < 0x80
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        return first & 0x0F, await self.reader.readexactly(size)

    async def rest(self) -> list[tuple[int, bytes]]:
        frames = []
        while (frame := await self.frame()) is not None:
            frames.append(frame)
        return frames


HEAD = (b"GET / HTTP/1.1", b"host: here", b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-version: 13")


async def connected(server: Server, *more: bytes, path: bytes = b"/") -> Client:
    client = Client(*await asyncio.open_connection("127.0.0.1", server.port))
    lines = [HEAD[0].replace(b"/ ", path + b" "), *HEAD[1:], b"sec-websocket-key: " + KEY, *more]
    client.writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
    answer = await client.reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101 ")
    return client


def echo_of(opcode: int, what: object) -> tuple[int, bytes] | None:
    """What an echo server answers to what was heard."""
    if opcode == TEXT:
        assert isinstance(what, str)
        return TEXT, what.encode()
    if opcode in (BINARY, PING):
        assert isinstance(what, bytes)
        return (PONG if opcode == PING else BINARY), what
    return None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_parser_hears_each_case_as_it_was_meant(case: Case) -> None:
    incoming, echoed, code = Incoming(LARGEST), [], None
    try:
        for chunk in case.sent:
            for opcode, what in incoming.feed(chunk):
                if opcode == CLOSE:
                    assert isinstance(what, tuple)
                    code = what[0]
                    break
                answer = echo_of(opcode, what)
                if answer is not None:
                    echoed.append(answer)
            if code is not None:
                break
    except Violation as violation:
        code = violation.code
    assert (echoed, code) == (case.echoed, case.code)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_line_answers_each_case_as_it_must(server: Server, case: Case) -> None:
    async def play() -> None:
        client = await connected(server)
        for chunk in case.sent:
            client.writer.write(chunk)
        if case.code is None:
            client.writer.write(close(1000))
        frames = await client.rest()
        client.writer.close()
        opcode, ending = frames.pop()
        assert opcode == CLOSE
        assert (int.from_bytes(ending[:2], "big") if ending else NO_CODE) == (case.code or 1000)
        assert frames == [(TEXT, _BINARY_ECHO) if one[0] == BINARY else one for one in case.echoed]

    server.run(play())


def test_nothing_of_a_line_is_left(server: Server) -> None:
    async def play() -> None:
        clients = [await connected(server) for _ in range(3)]
        clients[0].writer.write(close(1000))
        clients[1].writer.write_eof()
        clients[2].writer.transport.abort()
        for client in clients[:2]:
            await client.rest()
            client.writer.close()
        await server.lines.empty()
        # the last thing that a line does
        await asyncio.sleep(0)
        assert server.open == []

    server.run(play())


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ((b"sec-websocket-version: 13", b"sec-websocket-version: 8"), b"426", b"websocket_version"),
        ((b"sec-websocket-version: 13", b"x: y"), b"426", b"websocket_version"),
        ((b"host: here", b"x: y"), b"400", b"bad_handshake"),
        ((b"GET", b"POST"), b"400", b"bad_handshake"),
        ((b"sec-websocket-key: " + KEY, b"sec-websocket-key: c2hvcnQ="), b"400", b"bad_handshake"),
        ((b"sec-websocket-key: " + KEY, b"sec-websocket-key: nonsense!"), b"400", b"bad_handshake"),
        ((b"sec-websocket-key: " + KEY, b"x: y"), b"400", b"bad_handshake"),
        ((b"host: here", b"host: here\r\nhost: there"), b"400", b"bad_handshake"),
        ((b"host: here", b"host: here\r\norigin: https://a\r\norigin: https://b"), b"400", b"bad_handshake"),
    ],
)
def test_a_handshake_that_is_none_is_refused_in_words(
    server: Server, change: tuple[bytes, bytes], status: bytes, code: bytes
) -> None:
    async def play() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = b"\r\n".join([*HEAD, b"sec-websocket-key: " + KEY]).replace(*change)
        writer.write(head + b"\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"application/problem+json" in answer
        assert b'"code":"' + code in answer.replace(b'": "', b'":"')
        assert (b"sec-websocket-version: 13" in answer.lower()) is (status == b"426")
        writer.close()

    server.run(play())


def test_the_handshake_is_proven_as_rfc_6455_says() -> None:
    asked = Asked("/", None, (), b"dGhlIHNhbXBsZSBub25jZQ==")
    # the RFC's own example, section 1.3
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in asked.accepted(None)
    assert b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n" in asked.accepted("chat")
    proof = hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    assert base64.b64encode(proof) in Asked("/", None, (), KEY).accepted(None)


def test_a_message_that_is_too_big_is_refused_although_the_client_goes_on(server: Server) -> None:
    async def play() -> None:
        client = await connected(server)
        client.writer.write(client_frame(TEXT, os.urandom(1 << 15), size=LARGEST + 1))
        for _ in range(64):
            client.writer.write(b"x" * (1 << 15))
        # a reset in answer to what is not read any more would overtake this
        assert await client.frame() == (CLOSE, (1009).to_bytes(2, "big") + b"the message is too big")
        client.writer.close()

    server.run(play())


@pytest.mark.parametrize("path", [b"/", b"/fails"])
def test_a_fault_of_ours_costs_one_line_and_no_other(server: Server, path: bytes) -> None:
    async def play() -> None:
        healthy, other = await connected(server), await connected(server, path=path)
        other.writer.write(text("fail"))
        opcode, reason = (await other.rest())[-1]
        assert (opcode, reason[:2]) == (CLOSE, (4503).to_bytes(2, "big"))
        healthy.writer.write(text("still here"))
        assert await healthy.frame() == (TEXT, b"still here")
        for client in (healthy, other):
            client.writer.close()

    server.run(play())


def test_who_answers_no_ping_is_ended(server: Server) -> None:
    async def play() -> None:
        silent, alive = await connected(server), await connected(server)
        for echo in server.open:
            echo.ping()
        for client in (silent, alive):
            assert await client.frame() == (PING, b"")
        alive.writer.write(client_frame(PONG))
        alive.writer.write(text("mark"))
        assert await alive.frame() == (TEXT, b"mark")
        for line in server.lines:
            line.ping(1.0)
        alive.writer.write(client_frame(PONG))
        alive.writer.write(text("mark"))
        assert await alive.frame() == (PING, b"")
        assert await alive.frame() == (TEXT, b"mark")
        for line in list(server.lines):
            line.look(2.0)
        assert await silent.rest() == [(PING, b""), (CLOSE, (1011).to_bytes(2, "big") + b"no answer to a ping")]
        alive.writer.write(text("here"))
        assert await alive.frame() == (TEXT, b"here")
        for client in (silent, alive):
            client.writer.close()

    server.run(play())


def test_a_peer_that_does_not_read_is_gone_although_bytes_wait(server: Server) -> None:
    async def play() -> None:
        client = await connected(server)
        (echo,) = server.open
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        watching = asyncio.ensure_future(server.outlets.run())
        number = 0
        while not echo.outlet.closed:
            number += 1
            echo.outlet.put(number % 10, text_frame(b"x" * 10_000))
            await asyncio.sleep(0)
        await server.lines.empty()
        watching.cancel()
        assert server.open == []
        client.writer.transport.abort()

    server.run(play())


def test_uvicorns_stop_ends_a_line_with_its_code(server: Server) -> None:
    async def play() -> None:
        client = await connected(server)
        (line,) = server.lines
        line.shutdown()
        assert await client.rest() == [(CLOSE, (1012).to_bytes(2, "big") + b"restarting")]
        client.writer.close()

    server.run(play())


def test_a_control_frame_in_a_backlog_is_answered_once(server: Server) -> None:
    async def play() -> None:
        client = await connected(server)
        (echo,) = server.open
        echo.outlet.pause()
        for number in range(5):
            client.writer.write(client_frame(PING, b"%d" % number))
        client.writer.write(text("mark"))
        await echo.heard.wait()
        echo.outlet.resume()
        # section 5.5.3: only the newest ping need be answered
        assert [await client.frame(), await client.frame()] == [(PONG, b"4"), (TEXT, b"mark")]
        client.writer.close()

    server.run(play())
