"""The server side of RFC 6455 as a protocol of asyncio's, put in uvicorn's place for WebSockets by `ws=`.

uvicorn parses the request, sees the upgrade, makes one of these and hands it the head. From then on everything is a
callback: an idle connection has no task, no queue, no timer and no buffer. What uvicorn's own never does is done here:
a peer that does not answer, or does not read, is aborted. `transport.close()` would wait for it to read what is
buffered, for ever.
"""

import asyncio
import socket
from collections.abc import Callable, MutableSet
from dataclasses import dataclass
from typing import Any, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from notifier import handshake
from notifier.connection import Connection
from notifier.frames import close_frame, pong_frame
from notifier.handshake import Asked
from notifier.incoming import BINARY, CLOSE, NO_CODE, PING, TEXT, Heard, Incoming, Violation
from notifier.rounds import Rounds
from schemas.frames import CloseCode
from web.problems import Refused

log = structlog.get_logger()

NO_ANSWER = 1011
"""The code uvicorn and the `websockets` library close with when a ping is not answered."""

_BUFFERED = 32 * 1024
"""Bytes in user space above which frames wait by record instead."""
_KERNEL_BUFFER = 64 * 1024
"""SO_SNDBUF (Linux doubles it): left alone the kernel takes megabytes for a peer that does not read."""
_CLOSE_SECONDS = 2.0
_FLUSH_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Service:
    """What all lines of a process have in common. `answer` is the one to a handshake, or raises `web.problems.Refused`;
    `opened` comes after it was written, `begin` once frames may go out. `message_bytes`: of a client's message."""

    answer: Callable[[Asked], bytes]
    opened: Callable[["PushProtocol"], Connection]
    begin: Callable[[Connection, Asked], None]
    closed: Callable[[Connection], None]
    rounds: Rounds
    message_bytes: int


class PushProtocol(asyncio.Protocol):
    """Is a `notifier.outlet.Line`, and a `notifier.rounds.Pinged`."""

    __slots__ = (
        "_all",
        "_connection",
        "_deaf",
        "_ending",
        "_incoming",
        "_service",
        "_silent_since",
        "_turn",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, service: Service, all_of_server: MutableSet[Any]) -> None:
        self._service = service
        self._all = all_of_server
        self._connection: Connection | None = None
        self._incoming = Incoming(service.message_bytes)
        # the time of the first ping that nothing was heard after; 0 while the peer is known to be there
        self._silent_since = 0.0
        self._turn = 0
        # set once the end has begun: the connection is gone when it fires
        self._ending: asyncio.TimerHandle | None = None
        self._deaf = False

    # what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no instances of asyncio's
        self.transport = cast(asyncio.Transport, transport)
        # uvicorn ends them at its stop
        self._all.add(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._connection is None:
            self._shake_hands(data)
            return
        self._silent_since = 0.0
        try:
            for heard in self._incoming.feed(data):
                self._take(self._connection, heard)
                if self._deaf:
                    return
        except Violation as violation:
            self._deaf = True
            self._connection.outlet.close(violation.code, violation.reason)
            # nothing more is said, and what the client still sends is thrown away: closed while it sends, the kernel
            # would answer with a reset, which overtakes the close frame
            if self.transport.can_write_eof() and not self.transport.is_closing():
                self.transport.write_eof()
        except Exception:
            self._failed(self._connection)

    def eof_received(self) -> None:
        """The peer has left without a word; the transport closes itself."""
        if self._connection is not None:
            self._connection.outlet.gone()

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.outlet.pause()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.outlet.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deaf = True
        self._all.discard(self)
        if self._ending is not None:
            self._ending.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            self._service.rounds.leave(self, self._turn)
            self._service.closed(connection)

    # what the outlet asks for

    def write(self, frames: bytes) -> None:
        self.transport.write(frames)

    def waiting_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def finish(self, code: int, reason: str) -> None:
        if self._ending is None and not self.transport.is_closing():
            self.transport.write(close_frame(code, reason))
            self._end_within(_CLOSE_SECONDS)

    def abort(self) -> None:
        self._end_within(_FLUSH_SECONDS)

    # what the clock asks for

    def ping(self, now: float) -> None:
        connection = self._connection
        if connection is not None and self._ending is None:
            self._silent_since = self._silent_since or now
            connection.ping()

    def look(self, now: float) -> None:
        connection = self._connection
        if connection is None or self._ending is not None:
            return
        # while bytes wait, it is the watch over stalls that judges: the ping stands behind them
        if self._silent_since and now - self._silent_since >= self._service.rounds.timeout and not self.waiting_bytes():
            connection.outlet.close(NO_ANSWER, "no answer to a ping")
            self.abort()

    def shutdown(self) -> None:
        """uvicorn stops."""
        if self._connection is not None:
            self._connection.outlet.close(CloseCode.RESTARTING, "restarting")
        self.abort()

    # the line

    def _shake_hands(self, head: bytes) -> None:
        # uvicorn leaves its protocol and the parser of it as a cycle: without this, thousands of handshakes would wait
        # for the garbage collector
        before = self.transport.get_protocol()
        if isinstance(before, HttpToolsProtocol):
            before.parser = None  # type: ignore[assignment]
        try:
            asked = handshake.read(head)
            answer = self._service.answer(asked)
        except Refused as refusal:
            self._deaf = True
            self.transport.write(handshake.refused(refusal))
            self.transport.close()
            self._end_within(_CLOSE_SECONDS)
            return
        self.transport.set_write_buffer_limits(high=_BUFFERED)
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
        self.transport.write(answer)
        self._connection = self._service.opened(self)
        self._turn = self._service.rounds.join(self)
        try:
            self._service.begin(self._connection, asked)
        except Exception:
            self._failed(self._connection)

    def _take(self, connection: Connection, heard: Heard) -> None:
        opcode, what = heard
        if opcode == CLOSE:
            assert isinstance(what, tuple)
            self._deaf = True
            if self._ending is None:
                # what was put in this turn answers what the client sent before
                connection.outlet.flush()
                connection.outlet.gone()
                # the same code back; 1005 means that there was none
                self.transport.write(close_frame(None if what[0] == NO_CODE else what[0]))
                self._end_within(_CLOSE_SECONDS)
            # the server closes first (section 7.1.1)
            self.transport.close()
        elif connection.may_send():
            if opcode == TEXT:
                assert isinstance(what, str)
                connection.receive(what)
            elif opcode == BINARY:
                connection.receive_binary()
            elif opcode == PING:
                assert isinstance(what, bytes)
                connection.outlet.put("protocol pong", pong_frame(what))

    def _failed(self, connection: Connection) -> None:
        """A bug of ours costs this one its line, no other."""
        log.exception("socket_failed")
        connection.outlet.close(CloseCode.COME_BACK_LATER, "something went wrong on our side")

    def _end_within(self, seconds: float) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._ending = asyncio.get_running_loop().call_later(seconds, self.transport.abort)
