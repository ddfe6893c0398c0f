"""Cursors: where in the log of status events a client stands, as opaque signed text.

A cursor holds, per partition, the offset of the next event, and a mark of the log they belong to: offsets of a log that
Kafka lost mean nothing in the next. It names no user: a scope is authorised each time. It is packed as varints, so that
hundreds of partitions stay below 1 KB, and carries an HMAC-SHA256 cut to 16 bytes: who invents one gets a full
snapshot, never an error.
"""

import base64
import binascii
import hmac
from collections.abc import Iterator, Mapping, Sequence

_LAYOUT = 2
_MARK_BYTES = 4
_MAC_BYTES = 16
_LONGEST = 1024
_PURPOSE = b"scenewire cursor\x00"


class Cursors:
    """Writes and reads cursors. The first secret signs, all of them verify."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)
        #: the id of the log that positions are of; empty while it is not known
        self.log = b""

    def write(self, positions: Mapping[int, int]) -> str:
        """`positions`: partition -> offset of the next event."""
        payload = bytearray([_LAYOUT]) + self._mark()
        for partition, offset in sorted(positions.items()):
            _append(payload, partition)
            _append(payload, offset)
        body = bytes(payload)
        return base64.urlsafe_b64encode(body + self._mac(self._secrets[0], body)).rstrip(b"=").decode()

    def read(self, cursor: str | None) -> dict[int, int] | None:
        """The positions, or None for a cursor that is absent, forged, damaged, or of another log or layout."""
        if not cursor or len(cursor) > _LONGEST or not cursor.isascii():
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not body or body[0] != _LAYOUT:
            return None
        if not any(hmac.compare_digest(mac, self._mac(secret, body)) for secret in self._secrets):
            return None
        marked = 1 + _MARK_BYTES
        if body[1:marked] != self._mark():
            return None
        numbers = list(_numbers(body[marked:]))
        return dict(zip(numbers[::2], numbers[1::2], strict=True))

    def _mark(self) -> bytes:
        return self.log[:_MARK_BYTES].ljust(_MARK_BYTES, b"\x00")

    @staticmethod
    def _mac(secret: bytes, body: bytes) -> bytes:
        return hmac.digest(secret, _PURPOSE + body, "sha256")[:_MAC_BYTES]


def _append(payload: bytearray, number: int) -> None:
    while number >= 0x80:
        payload.append(number & 0x7F | 0x80)
        number >>= 7
    payload.append(number)


def _numbers(payload: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in payload:
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield number
            number = shift = 0
