"""Frames from a client, as RFC 6455 section 5 has them: masked, perhaps in fragments, with control frames in between.

A parser without a line: bytes in, messages and control frames out. It holds no more than one message of the largest
size, refuses one by its length before its bytes are there, and text that is not UTF-8 with the byte that breaks it. An
idle one is three fields.
"""

import codecs
from collections.abc import Iterator
from typing import Final

PART: Final = 0
"""A fragment that did not end its message: nothing to hand on, and yet something a client did."""
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005
"""What a close frame without a code stands for; never sent."""
NOT_UTF8: Final = 1007
TOO_BIG: Final = 1009

_UTF8 = codecs.getincrementaldecoder("utf-8")
_SENT_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
"""Those that may stand in a close frame (RFC 6455 section 7.4 and IANA's list)."""

Heard = tuple[int, str | bytes | tuple[int, str]]
"""An opcode and what came with it: text as str; CLOSE as (code, reason); PART as nothing; else bytes."""


class Violation(Exception):
    """The client broke the protocol: close with `code` and read no further."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Message:
    """A message of which something is still missing."""

    __slots__ = ("decoder", "fin", "left", "mask", "opcode", "parts", "size")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.decoder = _UTF8() if opcode == TEXT else None
        self.parts: list[str | bytes] = []
        self.size = 0
        # of the frame that is being read
        self.fin = False
        self.left = 0
        self.mask = b""

    def take(self, payload: bytes) -> None:
        """The next bytes, still masked. Raises `Violation`."""
        plain = unmasked(payload, self.mask)
        self.left -= len(payload)
        turn = len(payload) % 4
        self.mask = self.mask[turn:] + self.mask[:turn]
        self.parts.append(plain if self.decoder is None else _decoded(self.decoder, plain, self.fin and not self.left))

    def whole(self) -> str | bytes:
        if self.decoder is None:
            return b"".join(part for part in self.parts if isinstance(part, bytes))
        return "".join(part for part in self.parts if isinstance(part, str))


class Incoming:
    __slots__ = ("_kept", "_largest", "_message")

    def __init__(self, largest: int) -> None:
        """`largest`: bytes of a message."""
        self._largest = largest
        self._kept = b""
        self._message: _Message | None = None

    def feed(self, data: bytes) -> Iterator[Heard]:
        """What these bytes complete. Raises `Violation`, after which this must not be fed again; nor after a CLOSE."""
        if self._kept:
            data, self._kept = self._kept + data, b""
        at, end = 0, len(data)
        while at < end:
            message = self._message
            if message is not None and message.left:
                taken = min(message.left, end - at)
                message.take(data[at : at + taken])
                at += taken
                if not message.left:
                    yield self._frame_ended(message)
                continue
            start, size = self._header(data, at, end)
            if not start:
                break
            opcode, fin, mask = data[at] & 0x0F, data[at] > 0x7F, data[start - 4 : start]
            if opcode >= CLOSE:
                if end - start < size:
                    break
                at = start + size
                payload = unmasked(data[start:at], mask)
                yield opcode, (_close_of(payload) if opcode == CLOSE else payload)
                if opcode == CLOSE:
                    return
            elif message is None and fin and end - start >= size:
                # most of what clients ever send: one frame, all there
                at = start + size
                payload = unmasked(data[start:at], mask)
                yield opcode, (_text(payload) if opcode == TEXT else payload)
            else:
                if message is None:
                    message = self._message = _Message(opcode)
                message.size += size
                message.fin, message.left, message.mask = fin, size, mask
                at = start
                if not size:
                    # it may still end in the middle of a character
                    message.take(b"")
                    yield self._frame_ended(message)
        self._kept = data[at:]

    def _frame_ended(self, message: _Message) -> Heard:
        if not message.fin:
            return PART, b""
        self._message = None
        return message.opcode, message.whole()

    def _header(self, data: bytes, at: int, end: int) -> tuple[int, int]:
        """Where the payload starts and how long it is; (0, 0) while the header is not all there. Raises `Violation`
        for what the first bytes give away already."""
        first = data[at]
        opcode = first & 0x0F
        if first & 0x70:
            raise Violation(PROTOCOL_ERROR, "reserved bits are set")
        if opcode > PONG or BINARY < opcode < CLOSE:
            raise Violation(PROTOCOL_ERROR, "unknown opcode")
        if opcode >= CLOSE:
            if not first & 0x80:
                raise Violation(PROTOCOL_ERROR, "a control frame in fragments")
        elif (opcode == PART) is (self._message is None):
            raise Violation(PROTOCOL_ERROR, "a fragment out of its turn")
        if end - at < 2:
            return 0, 0
        size, start = data[at + 1] & 0x7F, at + 6
        if data[at + 1] < 0x80:
            raise Violation(PROTOCOL_ERROR, "a client's frames are masked")
        if size > 125:
            if opcode >= CLOSE:
                raise Violation(PROTOCOL_ERROR, "a control frame of more than 125 bytes")
            width = 2 if size == 126 else 8
            start += width
            if end - at < 2 + width:
                return 0, 0
            size = int.from_bytes(data[at + 2 : at + 2 + width], "big")
            if size < 126 or (width == 8 and size < 1 << 16) or size >> 63:
                raise Violation(PROTOCOL_ERROR, "a length that is not the shortest there is")
        if opcode < CLOSE and size + (self._message.size if self._message is not None else 0) > self._largest:
            raise Violation(TOO_BIG, "the message is too big")
        return (start, size) if end >= start else (0, 0)


def unmasked(payload: bytes, mask: bytes) -> bytes:
    """Section 5.3: each byte with the mask's of its turn. As two large numbers, which is linear and all in C."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise Violation(NOT_UTF8, "not UTF-8") from None


def _decoded(decoder: codecs.IncrementalDecoder, payload: bytes, final: bool) -> str:
    try:
        return decoder.decode(payload, final)
    except UnicodeDecodeError:
        raise Violation(NOT_UTF8, "not UTF-8") from None


def _close_of(payload: bytes) -> tuple[int, str]:
    if not payload:
        return NO_CODE, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or code not in _SENT_CODES:
        raise Violation(PROTOCOL_ERROR, "a close frame without a code that may be sent")
    return code, _text(payload[2:])
