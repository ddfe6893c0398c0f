"""Pages that watch by socket, stream or poll, keep their cursor, and come back whenever the line is lost.

Hundreds in one process: the WebSocket side is a few lines of RFC 6455, for a server that is known.
"""

import asyncio
import base64
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from schemas.frames import BEARER_SUBPROTOCOL_PREFIX, SUBPROTOCOL
from schemas.statuses import ImageStatus

_PATIENCE = 40.0
"""Seconds without a byte from a socket (it is pinged each 15), or without an answer."""
_WAIT = 4
_PONG = b"\x8a\x80\x00\x00\x00\x00"
_LONGEST_BACKOFF = 1.0

_SHOWN = tuple(name for name in ImageStatus.model_fields if name != "cost_usd")
"""All that a frame says of an image. What it has cost is read, not told: null in frames, and it may rise after the end.
Its place in line and its eta are read as well, and null for all who have ended."""

Place = tuple[str, int]


def differing(image: Mapping[str, Any], shown: Mapping[str, Any] | None) -> dict[str, tuple[Any, Any]]:
    """Where a page does not show of an image what Postgres has of it: by field, both."""
    if shown is None:
        return {"record_id": (image["record_id"], None)}
    return {name: (image[name], shown[name]) for name in _SHOWN if image[name] != shown[name]}


class _Lost(Exception):
    """The line."""


@dataclass(eq=False)
class Page:
    """`seen`: record id -> the last image shown. `place` says where to connect now."""

    kind: str
    scope: dict[str, Any]
    token: str
    place: Callable[[], Place]
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    #: versions that were new to it, and those that came after a newer one where they must not
    news: int = 0
    backwards: int = 0
    #: where each first answer of a connection came from: "memory", "log", "snapshot", or "whole" without a cursor
    resumed: Counter[str] = field(default_factory=Counter)
    #: loop times at which a notifier said goodbye, and at which this page was back
    goodbyes: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    cursor: str | None = None
    _told: dict[str, int] = field(default_factory=dict)
    _first: bool = True
    _stay_away: float = 0.0

    async def watch(self) -> None:
        """Until cancelled."""
        ways: dict[str, Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]]
        ways = {"socket": self._socket, "stream": self._stream, "poll": self._poll}
        backoff = 0.05
        while True:
            before = self.resumed.total()
            self._stay_away = 0.0
            try:
                reader, writer = await asyncio.open_connection(*self.place(), limit=1 << 20)
            except OSError:
                pass
            else:
                try:
                    self._told, self._first = {}, True
                    await ways[self.kind](reader, writer)
                except (_Lost, OSError, EOFError, TimeoutError):
                    pass
                finally:
                    writer.transport.abort()
            backoff = 0.05 if self.resumed.total() > before else min(2 * backoff, _LONGEST_BACKOFF)
            await asyncio.sleep(self._stay_away or random.uniform(backoff / 2, backoff))

    # the three ways

    async def _socket(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bearer = BEARER_SUBPROTOCOL_PREFIX + base64.urlsafe_b64encode(self.token.encode()).rstrip(b"=").decode()
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: page\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}, {bearer}\r\n\r\n".encode()
        )
        await self._head(reader, 101)
        cursor = {} if self.cursor is None else {"cursor": self.cursor}
        _send(writer, json.dumps({"type": "subscribe", "id": "p", **self.scope, **cursor}).encode())
        while True:
            async with asyncio.timeout(_PATIENCE):
                first, second = await reader.readexactly(2)
                size = second & 0x7F
                if size > 125:
                    size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
                payload = await reader.readexactly(size)
            if first == 0x89:
                writer.write(_PONG)
            elif first == 0x88:
                raise _Lost
            else:
                self._take(json.loads(payload))

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        last = "" if self.cursor is None else f"Last-Event-ID: {self.cursor}\r\n"
        self._ask(writer, f"/chapters/{self.scope['chapter_id']}/events", last)
        await self._head(reader, 200)
        data = b""
        while True:
            async with asyncio.timeout(_PATIENCE):
                data += await self._chunk(reader)
            *messages, data = data.split(b"\n\n")
            for message in messages:
                lines = dict(line.split(b": ", 1) for line in message.split(b"\n"))
                if b"data" in lines:
                    frame = json.loads(lines[b"data"])
                    assert lines[b"event"].decode() == frame["type"]
                    if lines.get(b"id", b"").decode() != frame.get("cursor", ""):
                        self.faults.append("an id that is not the cursor")
                    self._take(frame)

    async def _poll(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            query = "" if self.cursor is None else f"?cursor={quote(self.cursor)}"
            self._ask(writer, f"/chapters/{self.scope['chapter_id']}/images{query}", f"Prefer: wait={_WAIT}\r\n")
            async with asyncio.timeout(_WAIT + _PATIENCE):
                size = await self._head(reader, 200)
                answer = json.loads(await reader.readexactly(size))
            # each answer is one of its own: between two of them nobody keeps what was said
            self._told = {}
            self._take({"type": "snapshot", **answer})
            if not answer["images"]:
                await asyncio.sleep(0.1)

    def _ask(self, writer: asyncio.StreamWriter, path: str, more: str) -> None:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: page\r\nAuthorization: Bearer {self.token}\r\n{more}\r\n".encode())

    async def _head(self, reader: asyncio.StreamReader, status: int) -> int:
        """The content's length where it is told. Raises `_Lost` for another status, which must be a 503."""
        async with asyncio.timeout(_PATIENCE + _WAIT):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        told = int(head.split(" ", 2)[1])
        if told != status:
            if told != 503:
                self.faults.append(f"{self.kind}: {told}")
            raise _Lost
        _, found, rest = head.partition("content-length: ")
        return int(rest.split("\r\n", 1)[0]) if found else 0

    async def _chunk(self, reader: asyncio.StreamReader) -> bytes:
        size = int(await reader.readuntil(b"\r\n"), 16)
        chunk = await reader.readexactly(size + 2)
        if not size:
            raise _Lost
        return chunk[:-2]

    # what it shows

    def _take(self, frame: dict[str, Any]) -> None:
        kind = frame["type"]
        if kind == "snapshot":
            if self._first:
                self._first = False
                self.resumed[frame["resumed"] or "whole"] += 1
                self.back.append(asyncio.get_running_loop().time())
            whole = frame["resumed"] not in ("memory", "log")
            for image in frame["images"]:
                # rows are never behind what was shown; the log may be behind rows that were
                self._show(image, at_least=self._version(image) if whole else 0)
            self.cursor = frame["cursor"]
        elif kind == "status":
            self._show(frame["image"], at_least=self._told.get(frame["image"]["record_id"], -1) + 1)
            if "mine" not in self.scope:
                self.cursor = frame["cursor"]
        elif kind == "cursor":
            self.cursor = frame["cursor"]
        elif kind == "error":
            self.faults.append(f"refused: {frame}")
        elif kind == "bye":
            self.goodbyes.append(asyncio.get_running_loop().time())
            self._stay_away = frame["retry_after_ms"] / 1000
        self.changed.set()

    def _show(self, image: dict[str, Any], *, at_least: int) -> None:
        record_id, version = image["record_id"], image["version"]
        if version < at_least:
            self.faults.append(f"{record_id}: version {version} where {at_least} was to come")
            self.backwards += 1
        self._told[record_id] = version
        self.news += version > self._version(image)
        if version >= self._version(image):
            self.seen[record_id] = image

    def _version(self, image: dict[str, Any]) -> int:
        known = self.seen.get(image["record_id"])
        return -1 if known is None else int(known["version"])

    async def until(self, holds: Callable[[], bool], within: float) -> bool:
        """Whether it came to hold within so many seconds; looked at after each frame."""
        try:
            async with asyncio.timeout(within):
                while not holds():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return holds()
        return True


def _send(writer: asyncio.StreamWriter, payload: bytes) -> None:
    """One masked text frame; a mask of zeros is a mask."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0x80 | 126)) + size.to_bytes(2, "big")
    writer.write(head + bytes(4) + payload)
