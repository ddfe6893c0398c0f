"""`/ws`: from ASGI to a connection. What comes in passes through here; what goes out does not."""

import base64
import binascii
from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

from notifier.connections import Connections
from notifier.protocol import line_of
from schemas.frames import BEARER_SUBPROTOCOL_PREFIX, SUBPROTOCOL, CloseCode
from web.settings import WebSettings

PATH = "/ws"


class Sockets:
    """The ASGI application of `/ws`. A bad token or origin is accepted and then closed with its code: a browser
    cannot read why a handshake was refused."""

    def __init__(self, connections: Connections, settings: WebSettings) -> None:
        self._connections = connections
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"].rstrip("/") != PATH:
            await send({"type": "websocket.close"})
            return
        offered: Sequence[str] = scope.get("subprotocols", [])
        accepted = SUBPROTOCOL if SUBPROTOCOL in offered else None
        await send({"type": "websocket.accept", "subprotocol": accepted, "headers": []})
        line = line_of(scope)
        connection, outlet = self._connections.open(line)
        try:
            line.carry(outlet)
            if not self._settings.allows(_origin(scope)):
                connection.refuse(CloseCode.FORBIDDEN, "origin not allowed")
            else:
                connection.start(_token(offered))
            while True:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    return
                text = message.get("text")
                if text is None:
                    connection.receive_binary()
                else:
                    connection.receive(text)
        finally:
            self._connections.closed(connection)


def _origin(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"origin":
            return str(value.decode("latin-1"))
    return None


def _token(offered: Sequence[str]) -> str | None:
    """The token of a handshake; text that is no token, for one that cannot be decoded."""
    for subprotocol in offered:
        if subprotocol.startswith(BEARER_SUBPROTOCOL_PREFIX):
            encoded = subprotocol[len(BEARER_SUBPROTOCOL_PREFIX) :]
            try:
                raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
                return raw.decode("ascii")
            except (binascii.Error, ValueError):
                return ""
    return None
