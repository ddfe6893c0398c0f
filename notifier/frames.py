"""Frames to clients as RFC 6455 wants them: a server's are unmasked, so one is the same bytes for everybody."""

from collections.abc import Iterable

from pydantic import BaseModel

from schemas.frames import Ping, Pong

_TEXT = 0x81  # FIN and opcode 1


def text_frame(text: str) -> bytes:
    """One unfragmented text message (RFC 6455 section 5.2)."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return bytes((_TEXT, size)) + payload
    if size < 1 << 16:
        return bytes((_TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_TEXT, 127)) + size.to_bytes(8, "big") + payload


def frame_of(frame: BaseModel) -> bytes:
    return text_frame(frame.model_dump_json())


def snapshot_frame(subscription: str, images: Iterable[str], cursor: str, resumed: str | None) -> bytes:
    """`subscription` and `resumed` are JSON already, `images` ImageStatus texts."""
    joined = ",".join(images)
    word = "null" if resumed is None else f'"{resumed}"'
    return text_frame(
        f'{{"type":"snapshot","id":{subscription},"images":[{joined}],"cursor":"{cursor}","resumed":{word}}}'
    )


PING = frame_of(Ping())
PONG = frame_of(Pong())
