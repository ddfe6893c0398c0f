"""Thousands of WebSocket clients in one process, lean enough not to be what is measured."""

import asyncio
import base64
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import jwt

SUBPROTOCOL, PREFIX = "scenewire.v1+json", "base64url.bearer.scenewire."
_KEY = base64.b64encode(bytes(16)).decode()
_CLOSE, _PING, _PONG = 0x88, 0x89, 0x8A
_STATUS = 300
"""Bytes from which on a frame is a status: welcome, snapshots of nothing and pings are shorter."""
MARK = b"@"


def token_of(user: uuid.UUID, secret: str, number: int = 0) -> str:
    """`number` makes another one of the same user's."""
    claims = {"sub": str(user), "exp": int(time.time()) + 3600, "iat": int(time.time()), "jti": str(number)}
    return jwt.encode(claims, secret, algorithm="HS256")


def frame_of(message: dict[str, Any]) -> bytes:
    """A client's text frame, masked with zeros."""
    payload = json.dumps(message).encode()
    size = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + payload


class Crowd:
    """All clients of a measurement: what they got, and when the last of it came."""

    def __init__(self) -> None:
        self.members: list[Listener] = []
        self.statuses = 0
        self.first_at = self.last_at = 0.0
        # while they are wanted: what each status was stamped with, and when it came (ns of the performance counter)
        self.arrivals: list[tuple[int, int]] | None = None
        self._wanted = 0
        self._reached: asyncio.Event | None = None
        self.lost = 0
        self.why: Counter[str] = Counter()

    def expect(self, statuses: int) -> asyncio.Event:
        """Set when so many more have come."""
        self.statuses, self._wanted, self.first_at = 0, statuses, 0.0
        self._reached = asyncio.Event()
        return self._reached

    def got(self, count: int) -> None:
        if not self.statuses:
            self.first_at = time.perf_counter()
        self.statuses += count
        if self.statuses >= self._wanted and self._reached is not None and not self._reached.is_set():
            self.last_at = time.perf_counter()
            self._reached.set()

    async def connect(self, port: int, tokens: Sequence[str], *, at_once: int = 64) -> None:
        """Open a socket for each token and wait until each is welcomed. Members stand in the order of their tokens."""
        loop = asyncio.get_running_loop()
        self.members = [Listener(self, token) for token in tokens]
        waiting = iter(self.members)

        async def some() -> None:
            for listener in waiting:
                await loop.create_connection(lambda one=listener: one, "127.0.0.1", port)
                await listener.welcomed

        await asyncio.gather(*(some() for _ in range(at_once)))

    async def subscribe(
        self, chapters: Sequence[str], cursors: Iterable[str | None] | None = None, *, at_once: int = 64
    ) -> list[dict[str, Any]]:
        """Each member to its chapter, from its cursor where there is one; all snapshots."""
        waiting = iter(zip(self.members, chapters, cursors or [None] * len(chapters), strict=True))
        snapshots: list[dict[str, Any]] = []

        async def some() -> None:
            for listener, chapter, cursor in waiting:
                answered = listener.next_frame()
                more = {} if cursor is None else {"cursor": cursor}
                listener.send({"type": "subscribe", "id": "s", "chapter_id": chapter, **more})
                frame = json.loads(await answered)
                if frame["type"] != "snapshot":
                    raise ConnectionError(str(frame))
                snapshots.append({**frame, "chapter_id": chapter})

        await asyncio.gather(*(some() for _ in range(at_once)))
        return snapshots

    async def close(self) -> None:
        members, self.members = self.members, []
        for listener in members:
            listener.transport.abort()
        await asyncio.sleep(0.5)


class Listener(asyncio.Protocol):
    __slots__ = ("_crowd", "_next", "_open", "_rest", "_token", "transport", "welcomed")

    transport: asyncio.Transport

    def __init__(self, crowd: Crowd, token: str) -> None:
        self._crowd = crowd
        self._token = token
        self._open = False
        self._rest = b""
        self.welcomed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._next: asyncio.Future[bytes] | None = self.welcomed

    def next_frame(self) -> "asyncio.Future[bytes]":
        """The next frame that is no status."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    def send(self, message: dict[str, Any]) -> None:
        self.transport.write(frame_of(message))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        bearer = base64.urlsafe_b64encode(self._token.encode()).rstrip(b"=").decode()
        self.transport.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}, {PREFIX}{bearer}\r\n\r\n".encode()
        )
        self._token = ""

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end, statuses = 0, len(data), 0
        if not self._open:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self._rest = data
                return
            if b" 101 " not in data[:20]:
                raise ConnectionError(data[:200].decode())
            self._open = True
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, start = data[at + 2] << 8 | data[at + 3], at + 4
            if end - start < size:
                break
            if size > _STATUS:
                statuses += 1
                if self._crowd.arrivals is not None:
                    mark = data.find(MARK, start) + 1
                    stamp = int(data[mark : data.find(MARK, mark)])
                    self._crowd.arrivals.append((stamp, time.perf_counter_ns()))
            elif data[at] == _CLOSE:
                self._crowd.why[data[start + 2 : start + size].decode()] += 1
            elif data[at] == _PING:
                # with what came, masked with zeros: some servers look for that
                self.transport.write(bytes((_PONG, 0x80 | size, 0, 0, 0, 0)) + data[start : start + size])
            elif self._next is not None and not self._next.done() and not data.startswith(b'{"type":"ping"', start):
                self._next.set_result(data[start : start + size])
                self._next = None
            at = start + size
        self._rest = data[at:]
        if statuses:
            self._crowd.got(statuses)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._crowd.members:
            self._crowd.lost += 1
        if self._next is not None and not self._next.done():
            self._next.set_exception(ConnectionError("the server closed the line"))


def status_event(user: str, chapter: str, record: str, version: int, words: str = "") -> bytes:
    """A status event as the outbox writes it, of the usual size (an ImageStatus of some 800 bytes)."""
    now = "2026-01-01T00:00:00.123456+00:00"
    image = {
        "record_id": record,
        "task_id": record,
        "user_id": user,
        "chapter_id": chapter,
        "script_id": None,
        "scene_number": 1,
        "image_type": "scene",
        "status": "in_progress",
        "stage": "generating",
        "progress": 40,
        "version": version,
        "attempt": 1,
        "retry_count": 0,
        "retry_at": None,
        "queue_position": None,
        "eta_seconds": None,
        "image_url": None,
        "thumbnail_url": None,
        "model_id": "midjourney",
        "cost_usd": None,
        "error_class": None,
        "error_code": None,
        "error_message": words or None,
        "created_at": now,
        "updated_at": now,
        "completed_at": None,
    }
    event = {
        "specversion": "1.0",
        "id": record,
        "source": "/scenewire/consumer",
        "type": "scene-images.status.v1",
        "subject": record,
        "time": now,
        "datacontenttype": "application/json",
        "sequence": str(version),
        "partitionkey": chapter,
        "traceparent": None,
        "data": image,
    }
    # as Postgres' json_build_object puts it
    return json.dumps(event, separators=(", ", " : ")).encode()
