"""Connections outside: reused, given up with their call, and honest about the phase in which a call broke off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from consumer.lines import Lines

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TIMEOUT = httpx.Timeout(10.0)


class Server:
    """Answers each request with the number of its connection, when it is let."""

    def __init__(self) -> None:
        self.connections = 0
        self.waiting = 0
        self.go = asyncio.Event()
        self.go.set()
        self.seen = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = str(self.connections).encode()
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                async with self.seen:
                    self.waiting += 1
                    self.seen.notify_all()
                await self.go.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(number), number))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=Lines(), timeout=TIMEOUT) as client:
        yield client


async def listen(serve: Serve) -> tuple[asyncio.Server, str]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_connections_are_reused_and_grow_with_the_calls_at_once(client: httpx.AsyncClient) -> None:
    server = Server()
    listening, url = await listen(server.serve)
    async with listening:
        assert [(await client.get(url)).text for _ in range(3)] == ["1", "1", "1"]
        server.go.clear()
        server.waiting = 0
        calls = [asyncio.create_task(client.get(url)) for _ in range(4)]
        async with asyncio.timeout(10), server.seen:
            await server.seen.wait_for(lambda: server.waiting == 4)
        server.go.set()
        assert sorted([(await call).text for call in calls]) == ["1", "2", "3", "4"]
        await client.aclose()


async def test_a_call_that_is_given_up_takes_its_connection_with_it(client: httpx.AsyncClient) -> None:
    server = Server()
    listening, url = await listen(server.serve)
    async with listening:
        server.go.clear()
        call = asyncio.create_task(client.get(url))
        async with asyncio.timeout(10), server.seen:
            await server.seen.wait_for(lambda: server.waiting == 1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        server.go.set()
        # its late answer must not be read as that of another call
        assert (await client.get(url)).text == "2"
        await client.aclose()


async def test_nobody_listening_is_a_connect_error(client: httpx.AsyncClient) -> None:
    listening, url = await listen(Server().serve)
    listening.close()
    await listening.wait_closed()
    with pytest.raises(httpx.ConnectError):
        await client.post(url, content=b"x")


async def _close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


async def _half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    writer.close()


async def _no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"what?\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("serve", [_close_at_once, _reset, _half_an_answer, _no_http])
async def test_whatever_breaks_after_the_request_went_out_is_never_called_unsent(
    client: httpx.AsyncClient, serve: Serve
) -> None:
    listening, url = await listen(serve)
    async with listening:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await client.post(url, content=b"x")


async def test_a_server_that_does_not_answer_is_a_read_timeout() -> None:
    done = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    listening, url = await listen(silent)
    async with listening, httpx.AsyncClient(transport=Lines(), timeout=httpx.Timeout(5.0, read=0.1)) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(url, content=b"x")
        done.set()


async def test_a_post_is_never_repeated_on_a_connection_that_was_closed_meanwhile() -> None:
    posts = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1)
            posts += 1
            writer.write(answer)
        writer.close()

    listening, url = await listen(once)
    async with listening, httpx.AsyncClient(transport=Lines(), timeout=TIMEOUT) as client:
        assert (await client.post(url, content=b"x")).status_code == 200
        with pytest.raises(httpx.ReadError):
            await client.post(url, content=b"x")
        assert posts == 2
