"""Cursors: where in the log of status events a client stands, as opaque signed text.

A cursor holds a mark of the log it belongs to, how many partitions that had, and per partition of its scope the offset
of the next event and a mark of the event before it. Offsets mean nothing in a log that was made anew, in one that lost
its end and grew over it, or where keys went to other partitions since: such a cursor is of no use, and its client gets
a snapshot. It names no user: a scope is authorised each time. It is packed as varints, so that a hundred partitions
stay below 1 KB, and carries a keyed BLAKE2b of 16 bytes (RFC 7693; one is made for each event, and HMAC-SHA256 costs
three times as much): who invents one gets a snapshot too, never an error.
"""

import hashlib
import hmac
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from web import base64url

_LAYOUT = 4
_LOG_BYTES = 4
_MAC_BYTES = 16
_LONGEST = 1024
_ROOM = _LONGEST * 3 // 4 - _MAC_BYTES
_PURPOSE = b"scenewire cursor\x00"
_MARK_BYTES = (4, 2, 1)
"""Of each event before; fewer where there are so many partitions that more would not fit."""
_WHOLE = 1


class Position(NamedTuple):
    """A place in one partition: the offset of the next event, and the mark of the one before (None: not known)."""

    offset: int
    mark: int | None


def mark_of(value: bytes) -> int:
    """What tells the event at an offset from any other that may take its place: its id and all else that it says."""
    return zlib.crc32(value) or 1


class Cursors:
    """Writes and reads cursors. The first secret signs, all of them verify."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        # a key may have 64 bytes at most, a secret any number
        self._keys = tuple(hashlib.sha256(_PURPOSE + secret).digest() for secret in secrets)
        self._partitions = 0
        self._head = b""
        # partition -> how a cursor of it alone begins, and the signature of so much
        self._begun: dict[int, tuple[bytes, hashlib.blake2b]] = {}
        self.begin(None, 0)

    def begin(self, log: bytes | None, partitions: int) -> None:
        """From now on positions are of this log: its id (None where Kafka does not say) and how many partitions it has.

        Until then no cursor is of use to anybody.
        """
        self._known = log is not None
        self._partitions = partitions
        head = bytearray([_LAYOUT])
        head += (log or b"")[:_LOG_BYTES].ljust(_LOG_BYTES, b"\x00")
        _append(head, partitions)
        self._head = bytes(head)
        self._begun = {}

    def write(self, positions: Mapping[int, Position]) -> str:
        """`positions`: partition -> position. More partitions than fit into 1 KB give a cursor that is of no use."""
        if len(positions) == 1:
            ((partition, position),) = positions.items()
            return self.write_one(partition, *position).decode()
        return self._signed(self._packed(positions)).decode()

    def write_one(self, partition: int, offset: int, mark: int | None) -> bytes:
        """The same for one position, as there is one after each event."""
        head, begun = self._begun.get(partition) or self._begin_one(partition)
        rest = bytearray()
        _append(rest, offset)
        rest += _narrow(mark, _MARK_BYTES[0]).to_bytes(_MARK_BYTES[0], "big")
        mac = begun.copy()
        mac.update(rest)
        return base64url.encoded(head + rest + mac.digest())

    def read(self, cursor: str | None) -> dict[int, Position] | None:
        """The positions, or None for a cursor that is absent, forged, damaged, or of another log or layout."""
        if not cursor or len(cursor) > _LONGEST or not self._partitions:
            return None
        try:
            raw = base64url.decoded(cursor)
        except ValueError:
            return None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not body or not any(hmac.compare_digest(mac, _mac(key, body).digest()) for key in self._keys):
            return None
        if not body.startswith(self._head):
            return None
        return self._unpacked(body, len(self._head))

    def _signed(self, body: bytes | bytearray) -> bytes:
        return base64url.encoded(body + _mac(self._keys[0], body).digest())

    def _begin_one(self, partition: int) -> tuple[bytes, hashlib.blake2b]:
        head = bytearray(self._head)
        head.append(_MARK_BYTES[0] << 1)
        _append(head, partition)
        self._begun[partition] = bytes(head), _mac(self._keys[0], head)
        return self._begun[partition]

    def _packed(self, positions: Mapping[int, Position]) -> bytes:
        listed = sorted(positions.items())
        # partitions are numbered from 0 on, so that all of them need no numbers
        whole = len(listed) == self._partitions > 1 and listed[-1][0] == len(listed) - 1
        for width in _MARK_BYTES:
            body = bytearray(self._head)
            body.append(width << 1 | (_WHOLE if whole else 0))
            for partition, (offset, mark) in listed:
                if not whole:
                    _append(body, partition)
                _append(body, offset)
                body += _narrow(mark, width).to_bytes(width, "big")
            if len(body) <= _ROOM:
                return bytes(body)
        return bytes(self._head) + bytes([_MARK_BYTES[0] << 1])

    def _unpacked(self, body: bytes, at: int) -> dict[int, Position] | None:
        kind, at = body[at], at + 1
        width, whole = kind >> 1, kind & _WHOLE
        positions: dict[int, Position] = {}
        while at < len(body):
            partition = len(positions)
            if not whole:
                partition, at = _number(body, at)
            offset, at = _number(body, at)
            mark, at = int.from_bytes(body[at : at + width], "big"), at + width
            if not mark and offset and not self._known:
                # nothing says that the log is the same
                return None
            positions[partition] = Position(offset, mark or None)
        return positions or None


def _mac(key: bytes, body: bytes | bytearray) -> hashlib.blake2b:
    return hashlib.blake2b(body, key=key, digest_size=_MAC_BYTES)


def same_mark(told: int | None, real: int | None) -> bool:
    """Whether a cursor's mark, which may have been shortened, is that of an event; one that names none fits any."""
    if told is None:
        return True
    return real is not None and any(_narrow(real, width) == told for width in _MARK_BYTES if told >> 8 * width == 0)


def _narrow(mark: int | None, width: int) -> int:
    if mark is None:
        return 0
    return (mark & (1 << 8 * width) - 1) or 1


def _append(payload: bytearray, number: int) -> None:
    while number >= 0x80:
        payload.append(number & 0x7F | 0x80)
        number >>= 7
    payload.append(number)


def _number(payload: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = payload[at]
        number |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            return number, at
