"""Pictures known by their first bytes; whatever those are, nothing breaks."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.formats import Format, breaks_off, sniff
from tests.drawn import KINDS, drawn

FILES = [drawn(kind, **options) for kind, options, _, _ in KINDS]
MAGIC = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF1234WEBP", b"\x00\x00\x00\x18ftypavif"]
EXTENSIONS = {"png", "jpg", "webp", "avif"}


def looked_at(data: bytes) -> Format | None:
    """As every picture is, with what must hold whatever it is."""
    found = sniff(data)
    if found is not None:
        assert found.extension in EXTENSIONS
        assert found.width is None or 0 < found.width < 2**32
        assert (found.width is None) is (found.height is None)
        assert breaks_off(data, found) in (True, False)
    return found


@pytest.mark.parametrize("index", range(len(KINDS)))
def test_a_whole_picture_is_known_as_such(index: int) -> None:
    _, _, content_type, extension = KINDS[index]
    found = looked_at(FILES[index])
    assert found == Format(content_type, extension, 160, 90)
    assert not breaks_off(FILES[index], found)
    # what follows its end is nobody's business
    assert not breaks_off(FILES[index] + b"\x00" * 5, found)


@pytest.mark.parametrize("index", range(len(KINDS)))
def test_a_picture_that_breaks_off_is_known_as_such(index: int) -> None:
    data = FILES[index]
    unseen = 0
    for end in range(len(data) - 20):
        found = looked_at(data[:end])
        unseen += found is not None and not breaks_off(data[:end], found)
    # an AVIF may end after any of its boxes, and here has two before its pixels; a box's header is 8 bytes
    assert unseen <= (16 if KINDS[index][3] == "avif" else 0)


@given(st.sampled_from(MAGIC), st.binary(max_size=200))
def test_garbage_breaks_nothing(magic: bytes, rest: bytes) -> None:
    looked_at(magic + rest)


@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([b"\x00", b"\xff", b"\x00" * 4, b"\xff" * 4, b"\xff\xd9"]))),
    st.floats(0, 1),
)
def test_spoiled_pictures_break_nothing(data: bytes, spots: list[tuple[float, bytes]], end: float) -> None:
    spoiled = bytearray(data)
    # most of what decides stands in the first bytes
    for where, wrong in spots:
        at = int(where**3 * len(spoiled))
        spoiled[at : at + len(wrong)] = wrong
    looked_at(bytes(spoiled[: 12 + int(end * len(spoiled))]))


@pytest.mark.parametrize(
    "head",
    [
        b"\xff\xd8" + b"\xff" * 20_000_000,
        b"\xff\xd8\xff" + b"\x01\xff" * 10_000_000,
        MAGIC[0] + bytes(20_000_000),
        MAGIC[3] + b"\x00\x00\x00\x00mif1\x00\x00\x00\x00" + b"\x00\x00\x00\x01" * 5_000_000,
        MAGIC[3] + b"\x00" * 12 + b"ispe" * 5_000_000,
    ],
)
def test_a_file_of_nothing_but_headers_is_not_read_for_ever(head: bytes) -> None:
    began = time.process_time()
    looked_at(head)
    assert time.process_time() - began < 0.5


def test_a_picture_without_area_is_none() -> None:
    png = FILES[0]
    assert sniff(png[:16] + b"\x00" * 8 + png[24:]) is None
