"""uvicorn's HTTP protocol, with the line below it in reach: an endless answer must be able to end one that is stuck.

ASGI has no word for that. uvicorn closes a line only when all that was written has gone, which a peer that does not
read never lets happen.
"""

import asyncio
import socket

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "scenewire.line"
_KERNEL_BUFFER = 64 * 1024
"""SO_SNDBUF (Linux doubles it): left alone the kernel takes megabytes for a peer that does not read."""
_BUFFERED = 32 * 1024
_LONGEST_IDLE = 32_767
"""Seconds: MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of Linux (include/net/tcp.h)."""


class HttpProtocol(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: self.transport}  # type: ignore[dict-item]


class Line:
    """The line of one request, whose peer the kernel asks after `idle` seconds without a word whether it is there.

    `silent`: seconds after which it gives up one that confirms nothing, or takes nothing. A peer that goes without a
    word is so found after `idle` + 1.5 x `silent` seconds at the most: asked, asked again, and sent something just
    before it would have been given up (measured on Linux, whose timers add half a second).
    """

    def __init__(self, scope: Scope, *, silent: float, idle: float) -> None:
        # not asked for its type: uvloop's are no instances of asyncio's
        transport: asyncio.Transport | None = scope.get("extensions", {}).get(_EXTENSION)
        if transport is None:
            raise RuntimeError("serve this with http=web.lines.HttpProtocol")
        self._transport = transport
        transport.set_write_buffer_limits(high=_BUFFERED)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # Linux (RFC 5482); elsewhere such a peer stays until TCP itself gives it up. It bounds what was sent,
                # and the probes of a line that is idle in place of their number (tcp(7))
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(min(silent, _LONGEST_IDLE) * 1000))
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _whole(idle))
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _whole(silent / 2))
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the connection and what waits for it."""
        self._transport.abort()


def _whole(seconds: float) -> int:
    """As the kernel takes them; past its most it would refuse the whole stream."""
    return max(1, round(min(seconds, _LONGEST_IDLE)))
