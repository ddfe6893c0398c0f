"""Whatever an answer looks like, in memory and over a real line: a class, never another exception, never the key."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumer.answers import Processing, ProviderFailure, Succeeded
from consumer.modelslab import ModelsLab
from schemas.errors import ERROR_MESSAGE_MAX_BYTES, ErrorClass
from tests.idle import IdleClock
from tests.unit.provider_answers import KEY, PATH, client, everything, says, shown_key

TEXT = st.text(max_size=20) | st.sampled_from(
    [KEY, f"Invalid API key: {KEY}", f"https://cdn.test/0.png?key={KEY}", "Rate limit exceeded", "\x00", "9" * 400]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
NAMES = ["id", "request_id", "output", "proxy_links", "eta", "fetch_result", "track_id", "nsfw_content_detected"]
NAMES += ["message", "messege", "error", "tip", "tips", "tip_1", "retry_after"]
STATUS = st.sampled_from(["success", "processing", "error", "failed", "", "odd"]) | JSON
BODIES = st.builds(
    lambda status, rest: {"status": status, **rest},
    STATUS,
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=8),
)
CODES = st.sampled_from([200, 204, 302, 400, 401, 402, 403, 404, 418, 422, 429, 500, 502, 503, 504, 524])
HEADER_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20) | st.sampled_from(
    [KEY, "7", "-1"]
)


def check(answer: object) -> None:
    assert isinstance(answer, Succeeded | Processing | ProviderFailure), answer
    if not isinstance(answer, ProviderFailure):
        assert (answer.provider_request_id or "").isprintable()
        assert shown_key(repr(answer)) is None
    if isinstance(answer, ProviderFailure):
        assert answer.code != "call_broken", answer.detail
        assert answer.message
        assert len(answer.detail.encode()) <= ERROR_MESSAGE_MAX_BYTES
        assert "\x00" not in answer.detail
        assert shown_key(everything(answer)) is None


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=BODIES | JSON | st.binary(max_size=60),
    code=CODES,
    name=st.sampled_from(["Retry-After", "X-RateLimit-Reset"]),
    header=HEADER_TEXT,
)
def test_no_answer_breaks_the_client(body: Any, code: int, name: str, header: str) -> None:
    async def both() -> None:
        provider = client(says(body, code, {name: header}))
        for call in (provider.submit({}, path=PATH, track_id="t"), provider.fetch("1", None)):
            check((await asyncio.gather(call, return_exceptions=True))[0])

    with capture_logs() as logs:
        asyncio.run(both())
    assert shown_key(repr(logs)) is None


@dataclass(frozen=True, slots=True)
class Script:
    """What a server sends and then does: all of `data` up to `cut`, then `close`, `reset` or `hold`."""

    data: bytes
    cut: int
    then: str


def _chunked(body: bytes, size: bytes) -> bytes:
    return size + b"\r\n" + body + b"\r\n0\r\n\r\n"


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Mostly HTTP, rightly and wrongly framed, wherever it breaks off; at times anything."""
    if draw(st.integers(0, 9)) == 0:
        data = draw(st.binary(max_size=200))
    else:
        body = draw(BODIES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200))
        start = draw(
            st.builds(lambda code: b"HTTP/1.1 %d OK" % code, CODES)
            | st.sampled_from(
                [b"HTTP/1.0 200 OK", b"HTTP/1.1 999", b"HTTP/9.9 200 OK", b"HTTP/1.1 -1 OK", b"ICY 200 OK"]
            )
        )
        framed, text = draw(
            st.sampled_from(
                [
                    (b"Content-Length: %d" % len(body), body),
                    (b"Content-Length: %d" % (len(body) + 5), body),
                    (b"Content-Length: %d" % max(0, len(body) - 5), body),
                    (b"Content-Length: -3", body),
                    (b"Content-Length: 99999999999999999999", body),
                    (b"Content-Length: %d\r\nContent-Length: 1" % len(body), body),
                    (b"Transfer-Encoding: chunked", _chunked(body, b"%x" % len(body))),
                    (b"Transfer-Encoding: chunked", _chunked(body, b"%x" % (len(body) + 3))),
                    (b"Transfer-Encoding: chunked", _chunked(body, b"zz")),
                    (b"Content-Encoding: gzip\r\nContent-Length: %d" % len(body), body),
                    (b"Connection: close", body),
                ]
            )
        )
        odd = draw(st.sampled_from([b"", b"X: " + KEY.encode(), b"no colon", b"X: \xff\xfe", b"Retry-After: soon"]))
        data = start + b"\r\n" + framed + b"\r\n" + (odd + b"\r\n" if odd else b"") + b"\r\n" + text
    cut = draw(st.just(len(data)) | st.integers(0, len(data)))
    return Script(data, cut, draw(st.sampled_from(["close", "close", "reset", "reset", "hold"])))


class Server:
    """Reads one whole request, then follows its script."""

    def __init__(self) -> None:
        self.script = Script(b"", 0, "close")
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                assert KEY.encode() in await reader.readexactly(int(length.partition(b":")[2]))
                self.requests += 1
                writer.write(self.script.data[: self.script.cut])
                if self.script.then == "reset":
                    writer.transport.abort()
                if self.script.then != "hold":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[str]:
    held: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        held.add(task)
        try:
            await server.serve(reader, writer)
        finally:
            held.discard(task)

    socket = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{socket.sockets[0].getsockname()[1]}"
    finally:
        socket.close()
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples: a loop each would cost more than what is tested. Nothing but a server that holds
    its answer back lets time pass: a machine that is late at the connect would end it as a call that was not sent."""
    with asyncio.Runner(loop_factory=IdleClock) as runner:
        yield runner


PROCESSING = b'{"status": "processing", "id": 7}'


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(script=scripts())
@example(Script(b"HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n" + PROCESSING, 70, "hold"))
@example(Script(b"", 0, "reset"))
@example(Script(b"HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n" + PROCESSING, 50, "hold"))
# closed within headers that say the key again: what was read of them is in the exception
@example(Script(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: " + KEY.encode() + b"\r\n\r\n", 51, "close"))
def test_no_line_breaks_the_client(runner: asyncio.Runner, script: Script) -> None:
    async def both() -> None:
        server = Server()
        server.script = script
        async with listening(server) as url:
            provider = ModelsLab(base_url=url, api_key=KEY, submit_timeout=0.1, fetch_timeout=0.1)
            for call in (provider.submit({}, path=PATH, track_id="t"), provider.fetch("1", None)):
                (answer,) = await asyncio.gather(call, return_exceptions=True)
                check(answer)
                if isinstance(answer, ProviderFailure):
                    # the server has read it all: whoever says "not sent" would pay twice
                    assert answer.sent
                    assert answer.error_class is not ErrorClass.NETWORK
            assert server.requests == 2
            await provider.close()

    with capture_logs() as logs:
        runner.run(both())
    assert shown_key(repr(logs)) is None
