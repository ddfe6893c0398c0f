"""A TCP tunnel to a server, with the network between in the test's hands."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Tunnel:
    """Listens on a port of its own. `cut()` ends what is open and refuses what comes, `silence()` lets no byte through
    and closes nothing, as when a cable is pulled; `mend()` takes both back."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._is_cut = False
        self._open: dict[asyncio.StreamWriter, asyncio.Event] = {}
        self.port = 0

    def cut(self) -> None:
        self._is_cut = True
        for writer in list(self._open):
            writer.transport.abort()

    def silence(self) -> None:
        """For what is open now; what is opened later gets through."""
        for flowing in self._open.values():
            flowing.clear()

    def mend(self) -> None:
        self._is_cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        flowing = asyncio.Event()
        flowing.set()
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
            self._open |= {writer: flowing, far_writer: flowing}
            try:
                await asyncio.gather(_pass_on(reader, far_writer, flowing), _pass_on(far_reader, writer, flowing))
            finally:
                for each in (writer, far_writer):
                    del self._open[each]
                    each.transport.abort()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Tunnel"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
    while data := await reader.read(65536):
        await flowing.wait()
        writer.write(data)
        await writer.drain()
    writer.transport.abort()
