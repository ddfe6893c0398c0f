"""A cable between one page and the notifiers, which can be cut: at once, or so that nobody is told at first."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import cast
from urllib.parse import urlsplit


class Cable:
    """Listens for its page and leads each connection to the next of `urls`."""

    def __init__(self, urls: Sequence[str]) -> None:
        places = [urlsplit(url) for url in urls]
        self._places = itertools.cycle([(place.hostname or "", place.port or 0) for place in places])
        self._server: asyncio.Server | None = None
        self._ends: set[_End] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        self.cuts = 0

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self), "127.0.0.1", 0)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._abort()
        await self._server.wait_closed()

    async def cut(self, seconds: float, *, silent: bool) -> None:
        """For so long. `silent`: what is sent goes nowhere first, and only the end is noticed."""
        self.cuts += 1
        self._whole.clear()
        if not silent:
            self._abort()
        await asyncio.sleep(seconds)
        self.mend()

    def mend(self) -> None:
        """What was open is over, and new lines come through."""
        if not self.whole:
            self._abort()
            self._whole.set()

    async def wear(self, chance: random.Random, *, up: float, down: float) -> None:
        """Until cancelled: whole for `up` seconds, cut for `down`."""
        await asyncio.sleep(chance.uniform(0, up))
        while True:
            await self.cut(down, silent=chance.random() < 0.5)
            await asyncio.sleep(up)

    @property
    def whole(self) -> bool:
        return self._whole.is_set()

    def joined(self, end: "_End") -> None:
        self._ends.add(end)
        if not self.whole:
            end.abort()
        elif end.other is None:
            end.leading = asyncio.get_running_loop().create_task(self._lead(end))

    def left(self, end: "_End") -> None:
        self._ends.discard(end)

    def _abort(self) -> None:
        for end in list(self._ends):
            end.abort()

    async def _lead(self, near: "_End") -> None:
        try:
            far = _End(self)
            far.other = near
            await asyncio.get_running_loop().create_connection(lambda: far, *next(self._places))
        except OSError:
            near.abort()
            return
        near.lead_to(far)


class _End(asyncio.Protocol):
    def __init__(self, cable: Cable) -> None:
        self._cable = cable
        self._early: list[bytes] = []
        self.other: _End | None = None
        self.leading: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._cable.joined(self)

    def data_received(self, data: bytes) -> None:
        if not self._cable.whole:
            return
        if self.other is None or self.other._transport is None:
            self._early.append(data)
        elif not self.other._transport.is_closing():
            self.other._transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._cable.left(self)
        if self.other is not None and self._cable.whole:
            self.other.close()

    def lead_to(self, far: "_End") -> None:
        self.other = far
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def close(self) -> None:
        """What was written still goes out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
