"""`/chapters/{chapter_id}/events`: a chapter's frames as server-sent events (the HTML standard, section 9.2).

Each message's `event` is the frame's type, its `data` the very frame that a socket would be sent, its `id` the cursor:
`Last-Event-ID` goes on from there. What a reader has not taken yet waits as the newest per record, like a socket's.

A reader of a stream answers nothing. One that is gone is found by the kernel, within 22 s by the settings' defaults
(`line_of`). One that has stopped reading is found when what it leaves fills its own buffers: 4 s later where bytes wait
here, 8 s later where they wait in the kernel. Until then it cannot be told from one that reads, and costs no more.
"""

import asyncio
import random
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from notifier.events import Event
from notifier.frames import frame_of, payload_of
from notifier.hub import Hub
from notifier.scopes import Key, chapter_key, reaches
from notifier.settings import PushSettings
from notifier.snapshots import Snapshots
from notifier.subscriptions import Subscription, Subscriptions
from schemas.frames import Bye, CloseCode, CursorFrame
from telemetry import metrics
from web.auth import LEEWAY, Caller, NotShared, Verifier
from web.lines import Line
from web.parameters import uuid_of
from web.problems import Refused

log = structlog.get_logger()

CHAPTER_EVENTS = "/chapters/{chapter_id}/events"

_HEARTBEAT = b": still here\n\n"
_JOINED = 64 * 1024
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"vary", b"Authorization"),
    # nginx: do not collect answers of this one
    (b"x-accel-buffering", b"no"),
]


class Streams:
    """All streams of this process: `settings.streams` at most."""

    def __init__(
        self,
        *,
        hub: Hub,
        snapshots: Snapshots,
        verifier: Verifier,
        settings: PushSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.hub = hub
        self.snapshots = snapshots
        self.settings = settings
        self._verifier = verifier
        self._clock = clock
        self._open: dict[_Stream, None] = {}
        self._draining = False

    def routes(self) -> list[Route]:
        return [Route(CHAPTER_EVENTS, self.chapter, methods=["GET"])]

    def __len__(self) -> int:
        return len(self._open)

    async def chapter(self, request: Request) -> Response:
        """What happens in a chapter, until the token lapses."""
        caller = await self._verifier.viewer(request.headers.get("authorization"))
        key = chapter_key(caller.user_id, uuid_of(request.path_params, "chapter_id"))
        if not reaches(caller.chapter_id, key):
            raise NotShared
        return _Stream(self, key, request.headers.get("last-event-id"), self._left(caller))

    @contextmanager
    def opened(self, stream: "_Stream") -> Iterator[None]:
        """Count it while it lasts. Raises `Refused` (503) for one too many, and at a stop."""
        if self._draining:
            wait = str(max(1, round(self.settings.drain_window)))
            raise Refused(503, "restarting", "This notifier is stopping; come back.", headers={"Retry-After": wait})
        if len(self._open) >= self.settings.streams:
            raise Refused(503, "too_many_streams", "Too many streams are open here.", headers={"Retry-After": "5"})
        self._open[stream] = None
        metrics.gauge("event_streams", len(self._open))
        try:
            yield
        finally:
            del self._open[stream]
            metrics.gauge("event_streams", len(self._open))

    def refuse_new(self) -> None:
        """The process stops."""
        self._draining = True

    def leaving(self) -> list[Callable[[], None]]:
        """How to send each of those away that are open now."""
        return [partial(stream.send_away, CloseCode.RESTARTING) for stream in self._open]

    def renew(self) -> None:
        """Events may have been lost: send everybody away, to come back for a snapshot."""
        for stream in list(self._open):
            stream.send_away(CloseCode.COME_BACK_LATER)

    def _left(self, caller: Caller) -> float:
        return max(0.0, caller.expires_at + LEEWAY - self._clock())


class _Stream(Response):
    """One reader; a listener of the hub. Its head is sent when there is a snapshot: before that all can be refused."""

    def __init__(self, streams: Streams, key: Key, cursor: str | None, seconds: float) -> None:
        self.background = None
        self._streams = streams
        self._settings = streams.settings
        self._key = key
        self._cursor = cursor
        self._subscriptions = Subscriptions()
        self._subscription = Subscription("", key)
        self._time = asyncio.get_running_loop().time
        self._until = self._time() + seconds
        self._waiting: dict[Hashable, bytes] = {}
        self._woken = asyncio.Event()
        self._over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.opened(self):
            line = line_of(scope, self._settings)
            self._subscriptions.add(self._subscription)
            self._streams.hub.join(self._key, self)
            watch = asyncio.create_task(self._leave_when_gone(receive))
            try:
                await self._begin(scope, send)
                await self._run(line, send)
            except _TooSlow:
                log.info("stream_too_slow", bytes_waiting=line.waiting_bytes, messages_waiting=len(self._waiting))
                metrics.count("streams_dropped")
                line.abort()
            finally:
                watch.cancel()
                self._streams.hub.leave(self._key, self)

    def send_away(self, code: CloseCode) -> None:
        """Say why, with a time to come back that differs from reader to reader, and end."""
        wait = 0 if code == CloseCode.UNAUTHORIZED else random.uniform(0.1, max(0.2, self._settings.drain_window))
        self._put("bye", _message("bye", frame_of(Bye(code=code, retry_after_ms=round(wait * 1000)))))
        self._over = True

    # a listener of the hub

    def offer(self, event: Event) -> None:
        if self._subscriptions.take(event):
            self._put(event.record, _message("status", event.frame, event.cursor))

    def ended(self, key: Key) -> None:
        if self._subscription.held is None:
            self._put("end", _message("end", self._subscription.end_frame))

    # what it sends

    async def _begin(self, scope: Scope, send: Send) -> None:
        snapshot = await self._streams.snapshots.take(self._key, self._cursor)
        self._subscription.told_at = self._time()
        shown, later = self._subscriptions.settle(self._subscription, snapshot)
        self._put("snapshot", _message("snapshot", shown, snapshot.cursor))
        for event in later:
            self._put(event.record, _message("status", event.frame, event.cursor))
        if self._streams.hub.finished(self._key):
            self._put("end", _message("end", self._subscription.end_frame))
        self._over = self._over or scope["method"] == "HEAD"
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})

    async def _run(self, line: Line, send: Send) -> None:
        while True:
            if self._time() >= self._until:
                self.send_away(CloseCode.UNAUTHORIZED)
            while self._waiting:
                await self._write(send, self._next())
            if self._over:
                await self._write(send, b"", more=False)
                return
            self._woken.clear()
            heartbeat = self._time() + self._settings.stream_heartbeat
            # a reader that takes nothing is found out though there is nothing more for it
            stuck = self._time() + self._settings.stall_timeout if line.waiting_bytes else heartbeat
            before = line.waiting_bytes
            try:
                async with asyncio.timeout_at(min(heartbeat, stuck, self._until)):
                    await self._woken.wait()
            except TimeoutError:
                if before and self._time() >= stuck and line.waiting_bytes >= before:
                    raise _TooSlow from None
                self._tick(heartbeat)

    def _tick(self, heartbeat: float) -> None:
        now = self._time()
        if self._subscription.told_at < now - self._settings.memory_seconds / 3:
            self._subscription.told_at = now
            cursor = self._streams.snapshots.cursor(self._key)
            self._put("cursor", _message("cursor", frame_of(CursorFrame(id="", cursor=cursor)), cursor))
        elif now >= heartbeat:
            self._put("heartbeat", _HEARTBEAT)

    async def _write(self, send: Send, body: bytes, *, more: bool = True) -> None:
        try:
            async with asyncio.timeout(self._settings.stall_timeout):
                await send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            raise _TooSlow from None

    def _put(self, key: Hashable, message: bytes) -> None:
        if self._over:
            return
        self._waiting.pop(key, None)
        self._waiting[key] = message
        self._woken.set()

    def _next(self) -> bytes:
        joined: list[bytes] = []
        size = 0
        for key in list(self._waiting):
            joined.append(self._waiting.pop(key))
            size += len(joined[-1])
            if size >= _JOINED:
                break
        return b"".join(joined)

    async def _leave_when_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._waiting.clear()
        self._over = True
        self._woken.set()


def line_of(scope: Scope, settings: PushSettings) -> Line:
    """A stream's line: a reader that goes without a word is found in `stream_heartbeat` / 2 + 1.5 x `ping_timeout`."""
    return Line(scope, silent=settings.ping_timeout, idle=settings.stream_heartbeat / 2)


class _TooSlow(Exception):
    """The reader does not take what it is sent."""


def _message(kind: str, frame: bytes, cursor: str | None = None) -> bytes:
    """A frame as a message; one of another service's events may have line breaks between its tokens."""
    data = payload_of(frame)
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    head = f"event: {kind}\n" if cursor is None else f"id: {cursor}\nevent: {kind}\n"
    return head.encode() + b"data: " + data + b"\n\n"
