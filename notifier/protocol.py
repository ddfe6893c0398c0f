"""uvicorn's WebSocket protocol with what it lacks: a write that never waits, and an end for peers that do not read.

The ASGI side stays as it is for what comes in; what goes out is written by the connection's outlet. A slimmer protocol
can take this one's place behind the same `Line`.
"""

import socket
from asyncio.transports import BaseTransport
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from notifier.outlet import Outlet

EXTENSION = "scenewire.line"
"""Where the ASGI scope's extensions name this protocol."""

_BUFFERED = 32 * 1024
"""Bytes in user space above which frames wait by record instead."""
_KERNEL_BUFFER = 64 * 1024
"""SO_SNDBUF (Linux doubles it): left alone the kernel takes megabytes for a peer that does not read."""
_CLOSE_SECONDS = 2.0
_FLUSH_SECONDS = 0.25


class PushProtocol(WebSocketsSansIOProtocol):
    """Is a `notifier.outlet.Line`."""

    outlet: Outlet | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=_BUFFERED)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        scope: Any = getattr(self, "scope", None)
        if scope is not None:
            # the application's task has been made, but runs after this
            scope["extensions"][EXTENSION] = self

    def carry(self, outlet: Outlet) -> None:
        """From now on what goes out is this outlet's."""
        self.outlet = outlet
        if not self.writable.is_set():
            outlet.pause()

    # what the outlet asks for

    def write(self, frames: bytes) -> None:
        if not self.close_sent and not self.transport.is_closing():
            self.transport.write(frames)

    def waiting_bytes(self) -> int:
        return 0 if self.disconnected else self.transport.get_write_buffer_size()

    def finish(self, code: int, reason: str) -> None:
        if self.close_sent or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        # aborted, not closed: close() would wait for a peer that may never read
        self.close_timer = self.loop.call_later(_CLOSE_SECONDS, self.transport.abort)

    def abort(self) -> None:
        self.loop.call_later(_FLUSH_SECONDS, self.transport.abort)

    # what the transport tells

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.outlet is not None:
            self.outlet.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.outlet is not None:
            self.outlet.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.outlet is not None:
            self.outlet.gone()
        super().connection_lost(exc)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.abort()

    def shutdown(self) -> None:
        super().shutdown()
        self.abort()


def line_of(scope: Any) -> PushProtocol:
    """The protocol below a WebSocket's ASGI scope."""
    line = scope.get("extensions", {}).get(EXTENSION)
    if not isinstance(line, PushProtocol):
        raise RuntimeError("serve the notifier with ws=notifier.protocol.PushProtocol")
    return line
