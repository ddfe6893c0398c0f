"""The way out to one client: writes at once while the line takes it, else keeps the newest frame per key.

What waits is a dict: a record that changes again replaces what waited for it and goes to the end, so that the cursors a
client reads stay in the order of the log. It is bounded by records, not by messages, and loses no state.

uvicorn never ends a connection whose peer stopped reading (its close waits for the buffer to empty), so `Stalls` looks
after every outlet that has bytes waiting and aborts the ones that make no progress.
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Protocol

import structlog

from schemas.frames import CloseCode
from telemetry import metrics

log = structlog.get_logger()

_JOINED = 64 * 1024
"""Bytes given to the line in one write while a backlog is worked off."""
_PATIENCE_FACTOR = 10
"""Some progress does not excuse a backlog for ever."""


class Line(Protocol):
    """What an outlet writes to: the WebSocket protocol in a process, a recorder in a test."""

    def write(self, frames: bytes) -> None:
        """Hand over finished frames. Never blocks; may call `Outlet.pause` before it returns."""

    def waiting_bytes(self) -> int:
        """Bytes handed over that the kernel has not taken yet."""

    def finish(self, code: int, reason: str) -> None:
        """Send a close frame, and no more."""

    def abort(self) -> None:
        """Drop the connection and what waits for it."""


class Outlet:
    __slots__ = ("_line", "_stalls", "_waiting", "closed", "drained", "paused", "progress_at", "resumed_at", "written")

    def __init__(self, line: Line, stalls: "Stalls") -> None:
        self._line = line
        self._stalls = stalls
        self._waiting: dict[Hashable, bytes] = {}
        self.paused = False
        self.closed = False
        self.written = 0
        # the stall watch's notes
        self.drained = 0
        self.progress_at = 0.0
        self.resumed_at = 0.0

    def put(self, key: Hashable, frame: bytes) -> None:
        """Send now, or as the newest of its key when the line takes more."""
        if self.closed:
            return
        if self.paused:
            self._waiting.pop(key, None)
            self._waiting[key] = frame
            return
        self._write(frame)

    def pause(self) -> None:
        """The line has enough for now."""
        self.paused = True
        self._stalls.look_after(self)

    def resume(self) -> None:
        """The line takes more."""
        self.paused = False
        self._stalls.resumed(self)
        while self._waiting and not self.paused and not self.closed:
            joined: list[bytes] = []
            size = 0
            for frame in self._waiting.values():
                joined.append(frame)
                size += len(frame)
                if size >= _JOINED:
                    break
            # counted below as one
            self._stalls.frames += len(joined) - 1
            if len(joined) == len(self._waiting):
                self._waiting = {}
            else:
                self._waiting = dict(list(self._waiting.items())[len(joined) :])
            self._write(b"".join(joined))

    def close(self, code: int, reason: str = "", *, last: bytes | None = None) -> None:
        """Send `last` and a close frame; what still waits is dropped: the client comes back for it."""
        if self.closed:
            return
        self.closed = True
        self._waiting = {}
        metrics.count("sockets_closed", code=str(code))
        if last is not None:
            self._stalls.frames += 1
            self._line.write(last)
        self._line.finish(code, reason)

    def gone(self) -> None:
        """The connection is lost; nothing can be sent any more."""
        self.closed = True
        self._waiting = {}

    def _write(self, frames: bytes) -> None:
        self.written += len(frames)
        self._stalls.frames += 1
        self._line.write(frames)
        self._stalls.look_after(self)

    @property
    def waiting(self) -> int:
        """Frames that wait here, beside the line's own buffer."""
        return len(self._waiting)

    def bytes_in_line(self) -> int:
        return self._line.waiting_bytes()

    def abort(self) -> None:
        self._line.abort()


class Stalls:
    """Looks at outlets with bytes in their line until these are gone, or for too long are not."""

    def __init__(self, timeout: float, *, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._clock = clock
        self._watched: dict[Outlet, None] = {}
        # frames that all outlets wrote; told from here now and then, since a metric's lock would cost each frame dear
        self.frames = 0
        self._frames_told = 0

    def look_after(self, outlet: Outlet) -> None:
        if outlet not in self._watched and (waiting := outlet.bytes_in_line()):
            outlet.progress_at = outlet.resumed_at = self._clock()
            outlet.drained = outlet.written - waiting
            self._watched[outlet] = None

    def resumed(self, outlet: Outlet) -> None:
        outlet.resumed_at = self._clock()

    async def run(self, beat: Callable[[], object] = lambda: None) -> None:
        """Look every eighth of the timeout, until cancelled; `beat` after each look."""
        while True:
            await asyncio.sleep(self._timeout / 8)
            self.look()
            beat()

    def look(self) -> None:
        """Let go of outlets that drained; end those that made no progress, or far too little."""
        metrics.count("frames", self.frames - self._frames_told)
        self._frames_told = self.frames
        now = self._clock()
        for outlet in list(self._watched):
            waiting = outlet.bytes_in_line()
            if not waiting:
                del self._watched[outlet]
                continue
            # counted, not compared by size: a busy line may hold as much as before and yet have drained
            if outlet.written - waiting > outlet.drained:
                outlet.drained = outlet.written - waiting
                outlet.progress_at = now
            stuck = now - outlet.progress_at >= self._timeout
            crawling = outlet.paused and now - outlet.resumed_at >= self._timeout * _PATIENCE_FACTOR
            if stuck or crawling:
                del self._watched[outlet]
                log.info("socket_too_slow", bytes_waiting=waiting, frames_waiting=outlet.waiting)
                outlet.close(CloseCode.TOO_SLOW, "too slow")
                # the close frame stands behind the bytes that nobody reads
                outlet.abort()
