"""A line to Postgres that a test can cut, and that can lose the answer to one statement after it was carried out."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

_SOCKET = ".s.PGSQL.5432"


class Wire:
    """`url` is the way to Postgres that leads through here."""

    def __init__(self, url: str, folder: Path) -> None:
        parts = urlsplit(url)
        self._real = Path(parse_qs(parts.query)["host"][0]) / _SOCKET
        self._path = folder / _SOCKET
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}?host={quote(str(folder), safe='/')}"
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._lose: bytes | None = None
        self._transaction = True
        self.lost = asyncio.Event()

    async def mend(self) -> None:
        """Carry again."""
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._carry, self._path)

    async def cut(self) -> None:
        """Nothing passes, and what was open is gone."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._path.unlink(missing_ok=True)
        for writer in list(self._open):
            writer.transport.abort()

    def lose_the_answer_to(self, statement: str, *, transaction: bool = True) -> None:
        """Of the next transaction (or single statement) in which this text stands: it commits, and nobody is told."""
        self._lose = statement.encode()
        self._transaction = transaction

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind, before = await asyncio.open_unix_connection(str(self._real))
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, before}
        self._open |= ends
        deaf = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._there(reader, before, deaf))
                group.create_task(self._back(behind, writer, deaf))
        except* (OSError, EOFError):
            pass
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
        seen = False
        while data := await reader.read(1 << 20):
            # a statement is first prepared, which is answered; the next message runs it
            if seen and (b"COMMIT" in data or not self._transaction):
                seen = False
                deaf.set()
            elif self._lose is not None and self._lose in data:
                self._lose, seen = None, True
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
        while data := await reader.read(1 << 20):
            if deaf.is_set():
                # the server has answered the COMMIT: it stands
                self.lost.set()
                raise EOFError
            writer.write(data)
            await writer.drain()
        raise EOFError


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    # a socket's path must be short
    folder = Path(tempfile.mkdtemp(prefix="wire-"))
    wire = Wire(url, folder)
    await wire.mend()
    try:
        yield wire
    finally:
        await wire.cut()
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
