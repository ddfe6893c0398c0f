"""`/ws`: from a handshake to a connection."""

from collections.abc import Sequence
from typing import Any

from notifier.connection import Connection
from notifier.connections import Connections
from notifier.handshake import Asked
from notifier.protocol import PushProtocol, Service
from notifier.rounds import Rounds
from notifier.settings import Settings
from schemas.frames import BEARER_SUBPROTOCOL_PREFIX, SUBPROTOCOL, CloseCode
from web import base64url
from web.problems import Refused

PATH = "/ws"


class Sockets:
    """What uvicorn takes for `ws=`: makes the protocol of a connection that asks to be upgraded.

    A bad token or origin is accepted and then closed with its code: a browser cannot read why a handshake was refused.
    """

    def __init__(self, connections: Connections, rounds: Rounds, settings: Settings) -> None:
        self._settings = settings
        self._service = Service(
            answer=self._answer,
            opened=connections.open,
            begin=self._begin,
            closed=connections.closed,
            rounds=rounds,
            message_bytes=settings.socket_message_bytes,
        )

    def __call__(self, *, config: Any, server_state: Any, app_state: Any) -> PushProtocol:
        """As uvicorn calls it; of what it gives only the set of open connections is of use."""
        return PushProtocol(self._service, server_state.connections)

    def _answer(self, asked: Asked) -> bytes:
        if asked.path.rstrip("/") != PATH:
            raise Refused(404, "not_found", "There is no WebSocket at this address.")
        return asked.accepted(SUBPROTOCOL if SUBPROTOCOL in asked.subprotocols else None)

    def _begin(self, connection: Connection, asked: Asked) -> None:
        if not self._settings.allows(asked.origin):
            connection.refuse(CloseCode.FORBIDDEN, "origin not allowed")
        else:
            connection.start(_token(asked.subprotocols))


def _token(offered: Sequence[str]) -> str | None:
    """The token of a handshake; text that is no token, for one that cannot be decoded."""
    for subprotocol in offered:
        if subprotocol.startswith(BEARER_SUBPROTOCOL_PREFIX):
            try:
                return base64url.decoded(subprotocol[len(BEARER_SUBPROTOCOL_PREFIX) :]).decode("ascii")
            except ValueError:
                return ""
    return None
