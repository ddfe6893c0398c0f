"""Frames as a client writes them, right or wrong in any part."""

from collections.abc import Iterable

MASK = b"\x37\xfa\x21\x3d"
"""The one of RFC 6455's own examples (section 5.7)."""


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    size: int | None = None,
    width: int | None = None,
) -> bytes:
    """`size` and `width` (7, 16 or 64 bits) are the ones stated in the header, by default the true and the shortest."""
    stated = len(payload) if size is None else size
    if width is None:
        width = 7 if stated < 126 else 16 if stated < 1 << 16 else 64
    head = bytes(((0x80 if fin else 0) | rsv << 4 | opcode,))
    masked = 0x80 if mask is not None else 0
    if width == 7:
        head += bytes((masked | stated,))
    elif width == 16:
        head += bytes((masked | 126,)) + stated.to_bytes(2, "big")
    else:
        head += bytes((masked | 127,)) + stated.to_bytes(8, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[number % 4] for number, byte in enumerate(payload))


def text(words: str, **more: object) -> bytes:
    return client_frame(1, words.encode(), **more)  # type: ignore[arg-type]


def in_parts(opcode: int, parts: Iterable[bytes]) -> list[bytes]:
    """One message in fragments."""
    listed = list(parts)
    return [
        client_frame(0 if number else opcode, part, fin=number == len(listed) - 1) for number, part in enumerate(listed)
    ]


def chopped(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]
