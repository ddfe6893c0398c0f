"""The way out to one client: writes while the line takes it, else keeps the newest frame per key.

What is put within one turn of the event loop is one write: a burst of events costs a socket one system call, not one
for each. What waits for a line that is full is a dict: a record that changes again replaces what waited for it and goes
to the end, so that the cursors a client reads stay in the order of the log. It is bounded by records, not by messages,
and loses no state.

asyncio never ends a connection whose peer stopped reading (its close waits for the buffer to empty), so `Outlets` looks
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
_WAITING = 256 * 1024
"""Bytes that may wait beside the line: who is that far behind comes back for what it missed."""
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
        """Drop the connection and what waits for it, after a moment for what may still go out."""


class _Watch:
    """What is noted of an outlet from the moment its line holds bytes back until these are gone."""

    __slots__ = ("drained", "progress_at", "resumed_at", "written")

    def __init__(self, waiting: int, now: float) -> None:
        self.written = waiting
        self.drained = 0
        self.progress_at = self.resumed_at = now


class Outlet:
    __slots__ = ("_all", "_free", "_out", "_waiting", "_waiting_bytes", "closed", "line", "watch")

    def __init__(self, line: Line, outlets: "Outlets") -> None:
        self.line = line
        self._all = outlets
        # of this turn of the loop
        self._out: list[bytes] | None = None
        # while the line is full
        self._waiting: dict[Hashable, bytes] | None = None
        self._waiting_bytes = 0
        self._free: asyncio.Future[None] | None = None
        self.closed = False
        self.watch: _Watch | None = None

    def put(self, key: Hashable, frame: bytes) -> None:
        """Send, or keep as the newest of its key until the line takes more."""
        if self.closed:
            return
        if self._waiting is not None:
            self._wait(self._waiting, key, frame)
        elif self._out is not None:
            self._out.append(frame)
        else:
            self._out = [frame]
            self._all.due(self)

    def flush(self) -> None:
        """The turn is over."""
        out, self._out = self._out, None
        if out and not self.closed:
            self._write(out[0] if len(out) == 1 else b"".join(out), len(out))

    def pause(self) -> None:
        """The line has enough for now."""
        if self._waiting is None:
            self._waiting = {}
        self._all.look_after(self)

    def resume(self) -> None:
        """The line takes more."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, None, 0
        self._all.resumed(self)
        while waiting and not self.closed:
            joined: list[bytes] = []
            size = 0
            for key in list(waiting):
                frame = waiting.pop(key)
                joined.append(frame)
                size += len(frame)
                if size >= _JOINED:
                    break
            self._write(b"".join(joined), len(joined))
            if self._waiting is not None:
                # full again
                self._waiting, self._waiting_bytes = waiting, sum(len(frame) for frame in waiting.values())
                return
        self._set_free()

    async def free(self) -> None:
        """Wait until the line takes what is put, or nothing will be sent any more. For one task at a time."""
        if self._waiting is not None and not self.closed:
            self._free = asyncio.get_running_loop().create_future()
            await self._free

    def close(self, code: int, reason: str = "", *, last: bytes | None = None) -> None:
        """Send `last` and a close frame; what still waits is dropped: the client comes back for it."""
        if self.closed:
            return
        self.flush()
        metrics.count("sockets_closed", code=str(int(code)))
        if last is not None:
            self._write(last, 1)
        self.gone()
        self.line.finish(code, reason)

    def gone(self) -> None:
        """Nothing can be sent any more."""
        self.closed = True
        self._waiting, self._out, self._waiting_bytes = None, None, 0
        self._set_free()

    def _write(self, frames: bytes, count: int) -> None:
        self._all.frames += count
        if self.watch is not None:
            self.watch.written += len(frames)
            self.line.write(frames)
        else:
            self.line.write(frames)
            if self.line.waiting_bytes():
                self._all.look_after(self)

    def _wait(self, waiting: dict[Hashable, bytes], key: Hashable, frame: bytes) -> None:
        before = waiting.pop(key, b"")
        waiting[key] = frame
        self._waiting_bytes += len(frame) - len(before)
        if self._waiting_bytes > _WAITING:
            self._all.too_slow(self)

    def _set_free(self) -> None:
        if self._free is not None and not self._free.done():
            self._free.set_result(None)
        self._free = None

    @property
    def paused(self) -> bool:
        """Whether what is put waits here."""
        return self._waiting is not None

    @property
    def waiting(self) -> int:
        """Frames that wait here, beside the line's own buffer."""
        return len(self._waiting or ())

    @property
    def waiting_bytes(self) -> int:
        """What these are together."""
        return self._waiting_bytes

    def bytes_in_line(self) -> int:
        return self.line.waiting_bytes()

    def abort(self) -> None:
        self.line.abort()


class Outlets:
    """All of a process: writes what was put, and looks at those with bytes in their line until these are gone, or for
    too long are not.

    `soon` has a function called when this turn of the loop is over: the loop's `call_soon`.
    """

    def __init__(
        self, stall_timeout: float, *, clock: Callable[[], float], soon: Callable[[Callable[[], None]], object]
    ) -> None:
        self._timeout = stall_timeout
        self._clock = clock
        self._soon = soon
        self._due: list[Outlet] = []
        self._watched: dict[Outlet, None] = {}
        # frames that all outlets wrote; told from here now and then, since a metric's lock would cost each frame dear
        self.frames = 0
        self._frames_told = 0

    def due(self, outlet: Outlet) -> None:
        """It has something to write when the turn is over."""
        self._due.append(outlet)
        if len(self._due) == 1:
            self._soon(self._flush)

    def _flush(self) -> None:
        due, self._due = self._due, []
        for outlet in due:
            try:
                outlet.flush()
            except Exception:
                # one line that fails must not keep the others from theirs
                log.exception("socket_not_written")
                outlet.gone()
                outlet.abort()

    def look_after(self, outlet: Outlet) -> None:
        if outlet.watch is None and (waiting := outlet.bytes_in_line()):
            outlet.watch = _Watch(waiting, self._clock())
            self._watched[outlet] = None

    def resumed(self, outlet: Outlet) -> None:
        if outlet.watch is not None:
            outlet.watch.resumed_at = self._clock()

    def too_slow(self, outlet: Outlet) -> None:
        log.info("socket_too_slow", bytes_waiting=outlet.bytes_in_line(), frames_waiting=outlet.waiting)
        outlet.close(CloseCode.TOO_SLOW, "too slow")
        # the close frame stands behind the bytes that nobody reads
        outlet.abort()

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
            watch, waiting = outlet.watch, outlet.bytes_in_line()
            if watch is None or not waiting:
                outlet.watch = None
                del self._watched[outlet]
                continue
            # counted, not compared by size: a busy line may hold as much as before and yet have drained
            if watch.written - waiting > watch.drained:
                watch.drained = watch.written - waiting
                watch.progress_at = now
            stuck = now - watch.progress_at >= self._timeout
            crawling = outlet.paused and now - watch.resumed_at >= self._timeout * _PATIENCE_FACTOR
            if stuck or crawling:
                outlet.watch = None
                del self._watched[outlet]
                self.too_slow(outlet)
