"""Names without DNS, and real servers on loopback that stand for the hosts pictures lie on."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp.abc import AbstractResolver, ResolveResult


class Names(AbstractResolver):
    """A resolver without DNS: each name's addresses, one list after the other; the last stays."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError("no such name")
        answers = self.names[host]
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in (answers.pop(0) if len(answers) > 1 else answers[0])
        ]

    async def close(self) -> None:
        pass


class Host:
    """A real server on one loopback address: a picture, or a redirect, for each path."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        self.pages = pages
        self.connections = 0
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while line := await reader.readline():
                while await reader.readline() != b"\r\n":
                    pass
                page = self.pages[line.split()[1].decode()]
                head = b"302 Found\r\nLocation: " + page if page.startswith(b"http") else b"200 OK"
                body = b"" if page.startswith(b"http") else page
                writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        except ConnectionError:
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def on(self, address: str, port: int = 0) -> AsyncIterator["Host"]:
        server = await asyncio.start_server(self._serve, address, port)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
