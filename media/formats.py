"""What kind of picture some bytes are, by their first bytes, and its size in pixels, read from its header.

Offsets: PNG (W3C, 11.2.2), JPEG (ITU-T T.81, annex B), WebP (RFC 9649), AVIF (ISO/IEC 23008-12, `ispe`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

_PARTS_MAX = 100_000
"""Chunks, boxes and segments that are looked at: a file made of nothing else must not hold the process."""
_AVIF_HEADER = 64 * 1024
"""Bytes; properties stand before the picture's data in every file an encoder writes in one pass."""


@dataclass(frozen=True, slots=True)
class Format:
    content_type: str
    extension: str
    width: int | None
    height: int | None


def sniff(data: bytes) -> Format | None:
    """The picture's kind and size; None for anything but PNG, JPEG, WebP and AVIF, and for a picture without area."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        found, size = ("image/png", "png"), _png(data)
    elif data.startswith(b"\xff\xd8\xff"):
        found, size = ("image/jpeg", "jpg"), _jpeg(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        found, size = ("image/webp", "webp"), _webp(data)
    elif data[4:8] == b"ftyp" and _is_avif(data):
        found, size = ("image/avif", "avif"), _avif(data)
    else:
        return None
    width, height = size if size is not None else (None, None)
    if width == 0 or height == 0:
        return None
    return Format(*found, width, height)


def breaks_off(data: bytes, kind: Format) -> bool:
    """Whether the picture plainly ends before its end; no pixel is looked at.

    PNG, WebP and AVIF say how long their parts are; in a JPEG's compressed pixels the end marker cannot occur.
    """
    match kind.extension:
        case "png":
            return _png_breaks_off(data)
        case "webp":
            # one byte of grace: some writers leave out the padding of an odd last chunk
            return int.from_bytes(data[4:8], "little") + 8 > len(data) + 1
        case "avif":
            return _avif_breaks_off(data)
        case _:
            scan = next((at for at, marker in _jpeg_markers(data) if marker == 0xDA), None)
            return scan is None or data.find(b"\xff\xd9", scan) == -1


def _png_breaks_off(data: bytes) -> bool:
    at = 8
    for _ in range(_PARTS_MAX):
        if at + 8 > len(data):
            return True
        if data[at + 4 : at + 8] == b"IEND":
            return False
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _avif_breaks_off(data: bytes) -> bool:
    at = 0
    for _ in range(_PARTS_MAX):
        if at + 8 > len(data):
            # what follows the last box is nobody's
            return at > len(data)
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 0:  # to the end of the file
            return False
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        at += max(8, size)
    return False


def _png(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _jpeg(data: bytes) -> tuple[int, int] | None:
    for at, marker in _jpeg_markers(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame's header
            if at + 9 > len(data):
                return None
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
    return None


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """(where it stands, marker) of each segment up to the first pixels."""
    at = 2
    for _ in range(_PARTS_MAX):
        if at + 4 > len(data) or data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
        else:
            yield at, marker
            if marker in (0xD9, 0xDA):  # the end, or pixels
                return
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))


def _webp(data: bytes) -> tuple[int, int] | None:
    if len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _is_avif(data: bytes) -> bool:
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
    return not brands.isdisjoint({b"avif", b"avis"})


def _avif(data: bytes) -> tuple[int, int] | None:
    """The largest `ispe` property: beside the picture's own there are those of its tiles and its thumbnail."""
    best: tuple[int, int] | None = None
    at = data.find(b"ispe", 0, _AVIF_HEADER)
    while at != -1 and at + 16 <= len(data):
        size = int.from_bytes(data[at + 8 : at + 12], "big"), int.from_bytes(data[at + 12 : at + 16], "big")
        if best is None or size[0] * size[1] > best[0] * best[1]:
            best = size
        at = data.find(b"ispe", at + 4, _AVIF_HEADER)
    return best
