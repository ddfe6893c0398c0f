"""Frames to clients as RFC 6455 wants them: a server's are unmasked, so one is the same bytes for everybody."""

from collections.abc import Iterable

from pydantic import BaseModel

from schemas.frames import Ping, Pong

_TEXT = 0x81  # FIN and opcode 1
_CLOSE, _PING, _PONG = 0x88, 0x89, 0x8A
_LONGEST_REASON = 123


def text_frame(*payload: bytes) -> bytes:
    """One unfragmented text message (RFC 6455 section 5.2), of UTF-8 that may come in pieces."""
    size = sum(map(len, payload))
    if size < 126:
        head = bytes((_TEXT, size))
    elif size < 1 << 16:
        head = bytes((_TEXT, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_TEXT, 127)) + size.to_bytes(8, "big")
    return b"".join((head, *payload))


def payload_of(frame: bytes) -> bytes:
    """What a frame of `text_frame` says, without what a WebSocket puts around it."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def close_frame(code: int | None, reason: str = "") -> bytes:
    """Section 5.5.1; without a code for the answer to a close frame that has none. A longer reason is cut."""
    payload = b"" if code is None else code.to_bytes(2, "big") + reason.encode()[:_LONGEST_REASON]
    return bytes((_CLOSE, len(payload))) + payload


def pong_frame(payload: bytes) -> bytes:
    """The answer to a protocol ping: what came with it, at most 125 bytes."""
    return bytes((_PONG, len(payload))) + payload


def frame_of(frame: BaseModel) -> bytes:
    return text_frame(frame.model_dump_json().encode())


def welcome_frame(ping_interval_ms: int, expires_at: str) -> bytes:
    """`schemas.frames.Welcome`, by hand: one goes to each of thousands who come back at once."""
    return text_frame(
        f'{{"type":"welcome","ping_interval_ms":{ping_interval_ms},"expires_at":"{expires_at}"}}'.encode()
    )


def snapshot_frame(subscription: str, images: Iterable[str], cursor: str, resumed: str | None) -> bytes:
    """`subscription` and `resumed` are JSON already, `images` ImageStatus texts."""
    joined = ",".join(images)
    word = "null" if resumed is None else f'"{resumed}"'
    return text_frame(
        f'{{"type":"snapshot","id":{subscription},"images":[{joined}],"cursor":"{cursor}","resumed":{word}}}'.encode()
    )


PING = frame_of(Ping()) + bytes((_PING, 0))
"""For the page, which cannot see protocol pings, and for us: every client answers the second one."""
PONG = frame_of(Pong())
