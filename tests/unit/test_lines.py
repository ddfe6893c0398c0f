"""Connections outside: reused, as many as there are calls at once, never more than asked for kept."""

import asyncio

import httpx

from consumer.lines import Lines


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


async def test_connections_are_reused_and_grow_with_the_calls_at_once() -> None:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    lines = Lines(most=2)
    async with listening, httpx.AsyncClient(transport=lines) as client:
        assert [(await client.get(url)).text for _ in range(3)] == ["1", "1", "1"]
        server.go.clear()
        server.waiting = 0
        calls = [asyncio.create_task(client.get(url)) for _ in range(4)]
        async with asyncio.timeout(10), server.seen:
            await server.seen.wait_for(lambda: server.waiting == 4)
        server.go.set()
        assert sorted([(await call).text for call in calls]) == ["1", "2", "3", "4"]
        # two were kept, so two at once need no new one
        assert {(await client.get(url)).text for _ in range(2)} <= {"1", "2", "3", "4"}
        assert server.connections == 4
        assert sum(len(idle) for idle in lines._idle.values()) == 2


async def test_a_call_that_is_given_up_takes_its_connection_with_it() -> None:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    lines = Lines(most=2)
    async with listening, httpx.AsyncClient(transport=lines) as client:
        server.go.clear()
        call = asyncio.create_task(client.get(url))
        async with asyncio.timeout(10), server.seen:
            await server.seen.wait_for(lambda: server.waiting == 1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        server.go.set()
        # its late answer must not be read as that of another call
        assert (await client.get(url)).text == "2"
