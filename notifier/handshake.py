"""The opening handshake of RFC 6455 (section 4.2): what a client asks for, and the bytes of either answer.

The head comes from uvicorn, which has parsed it as HTTP/1.1 already and hands it on whole, one `name: value` a line.
No extension is ever agreed to, permessage-deflate least of all: it costs 35 to 100 KB a connection (measured) and saves
nothing on messages of 300 bytes that every client gets alike.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from http import HTTPStatus

from web.problems import Refused

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_VERSION = b"13"
_ONCE = (b"host", b"origin", b"sec-websocket-key", b"sec-websocket-version")
"""Two of these with different words would leave it open which one was meant."""


@dataclass(frozen=True, slots=True)
class Asked:
    path: str
    origin: str | None
    subprotocols: tuple[str, ...]
    key: bytes

    def accepted(self, subprotocol: str | None) -> bytes:
        """The answer that makes the line a WebSocket."""
        chosen = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %s\r\n" % subprotocol.encode()
        proof = base64.b64encode(hashlib.sha1(self.key + _GUID, usedforsecurity=False).digest())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n%s\r\n" % (proof, chosen)
        )


def read(head: bytes) -> Asked:
    """What the request asks for. Raises `web.problems.Refused`."""
    request, *lines = head.split(b"\r\n")
    method, target, version = request.split(b" ", 2)
    if method != b"GET" or version != b"HTTP/1.1":
        raise _bad("A WebSocket is opened with GET over HTTP/1.1.")
    once: dict[bytes, bytes] = {}
    offered: list[str] = []
    for line in lines:
        name, _, value = line.partition(b": ")
        if name in _ONCE:
            if once.setdefault(name, value.strip()) != value.strip():
                raise _bad(f"The header {name.decode()} was sent twice.")
        elif name == b"sec-websocket-protocol":
            offered += [one.strip() for one in value.decode("latin-1").split(",")]
    if once.get(b"sec-websocket-version") != _VERSION:
        raise Refused(
            426,
            "websocket_version",
            "Version 13 of the WebSocket protocol is spoken here.",
            headers={"Sec-WebSocket-Version": "13", "Upgrade": "websocket"},
        )
    if not once.get(b"host"):
        raise _bad("The header host is missing.")
    key = once.get(b"sec-websocket-key", b"")
    if not _is_key(key):
        raise _bad("The header sec-websocket-key must be 16 bytes in base64.")
    origin = once.get(b"origin")
    return Asked(
        path=target.partition(b"?")[0].decode("latin-1"),
        origin=None if origin is None else origin.decode("latin-1"),
        subprotocols=tuple(offered),
        key=key,
    )


def refused(refusal: Refused) -> bytes:
    """The answer that refuses, after which the connection is closed."""
    response = refusal.response()
    phrase = HTTPStatus(response.status_code).phrase
    lines = [f"HTTP/1.1 {response.status_code} {phrase}", "Connection: close"]
    lines += [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in response.raw_headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + bytes(response.body)


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def _bad(detail: str) -> Refused:
    return Refused(400, "bad_handshake", detail)
