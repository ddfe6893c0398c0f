"""Thumbnails: small whatever the picture, made once, and never the end of the process."""

import asyncio
import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from media import keys
from media.settings import MediaSettings
from media.store import Media, MediaUnavailable, NotStored
from notifier.thumbnails import NoDecoder, NoThumbnail, Thumbnails, decoders, shrink
from telemetry import metrics
from tests.drawn import KINDS, drawn

PIXELS = 2_000_000
ALL = frozenset({"png", "jpg", "webp", "avif"})


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=["WEBP"])
    image.load()
    return image


def small(data: bytes) -> Image.Image:
    return opened(shrink(data, pixels=PIXELS, can_open=ALL))


@pytest.mark.parametrize(("kind", "options", "content_type", "extension"), KINDS)
def test_every_kind_becomes_a_webp(kind: str, options: dict[str, object], content_type: str, extension: str) -> None:
    data = drawn(kind, (1024, 576), **options)
    assert small(data).size == (480, 270)
    assert len(shrink(data, pixels=PIXELS, can_open=ALL)) < 20_000
    assert extension in decoders()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 270), (480, 270)), ((160, 90), (160, 90)), ((768, 1024), (480, 640)), ((1000, 8), (480, 4))],
)
def test_its_width_decides_and_nothing_is_enlarged(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert small(drawn("PNG", size)).size == expected


def test_a_strip_does_not_become_a_longer_strip() -> None:
    assert small(drawn("PNG", (100, 15_000))).size == (13, 1920)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        ("RGBA", "PNG", "RGBA"),
        ("P", "PNG", "RGB"),
        ("L", "PNG", "RGB"),
        ("LA", "PNG", "RGBA"),
        ("1", "PNG", "RGB"),
        ("I;16", "PNG", "RGB"),
        ("CMYK", "JPEG", "RGB"),
        ("L", "JPEG", "RGB"),
        ("RGBA", "WEBP", "RGBA"),
    ],
)
def test_every_colour_model_is_taken(mode: str, kind: str, expected: str) -> None:
    image = small(saved(Image.new(mode, (600, 300)), kind))
    assert (image.mode, image.size) == (expected, (480, 240))


def test_a_picture_that_lies_on_its_side_is_set_up_and_its_notes_are_left_out() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise
    exif[0x010E] = "where I live"
    image = small(saved(Image.new("RGB", (600, 300)), "JPEG", exif=exif))
    assert image.size == (300, 600)
    assert dict(image.getexif()) == {}


@pytest.mark.parametrize("length", [1_000, 200_000])
def test_a_colour_profile_is_kept_unless_it_is_huge(length: int) -> None:
    profile = os.urandom(length)
    image = small(saved(Image.new("RGB", (600, 300)), "PNG", icc_profile=profile))
    assert image.info.get("icc_profile") == (profile if length < 64 * 1024 else None)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(width: int, height: int) -> bytes:
    """A PNG of some kilobytes that promises so many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min(width // 8 + 1, 10_000)) * 100, 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1_500, 1_500), (30_000, 30_000), (2**31 - 1, 2**31 - 1), (2**31, 2**31)])
def test_more_pixels_than_allowed_are_not_opened(size: tuple[int, int]) -> None:
    with pytest.raises(NoThumbnail, match="more than 2000000 pixels"):
        shrink(_bomb(*size), pixels=PIXELS, can_open=ALL)


def test_a_picture_whose_decoder_reads_another_size_is_not_opened_either() -> None:
    """Two headers: ours reads the first, and Pillow's decoder of JPEG may go by the other."""
    large = drawn("JPEG", (2_000, 1_500))
    with pytest.raises(NoThumbnail):
        shrink(large, pixels=PIXELS, can_open=ALL)
    start = large.index(b"\xff\xc0")
    (length,) = struct.unpack(">H", large[start + 2 : start + 4])
    lying = bytearray(large[start : start + 2 + length])
    lying[5:9] = struct.pack(">HH", 10, 10)
    with pytest.raises(NoThumbnail):
        shrink(large[:2] + bytes(lying) + large[2:], pixels=PIXELS, can_open=ALL)


@pytest.mark.parametrize("data", [b"", b"<html>", b"GIF89a" + bytes(60), drawn("PNG")[:-60], drawn("JPEG")[:600]])
def test_what_is_no_whole_picture_has_no_thumbnail(data: bytes) -> None:
    with pytest.raises(NoThumbnail):
        shrink(data, pixels=PIXELS, can_open=ALL)


def test_a_kind_that_nobody_here_can_open_is_told_apart() -> None:
    with pytest.raises(NoDecoder):
        shrink(drawn("AVIF"), pixels=PIXELS, can_open=ALL - {"avif"})


FILES = [drawn(kind, (64, 36), **options) for kind, options, _, _ in KINDS]


@given(st.sampled_from(FILES), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8), st.floats(0, 1))
def test_a_spoiled_picture_is_small_or_refused(data: bytes, spots: list[tuple[float, int]], end: float) -> None:
    spoiled = bytearray(data)
    for where, value in spots:
        spoiled[int(where**2 * (len(spoiled) - 1))] = value
    if end < 0.3:
        spoiled = spoiled[: int(len(spoiled) * (0.5 + end))]
    try:
        made = shrink(bytes(spoiled), pixels=PIXELS, can_open=ALL)
    except NoThumbnail:
        return
    assert opened(made).width <= 480


@pytest.fixture
def media(tmp_path: Path) -> Media:
    return Media(MediaSettings(media_url=(tmp_path / "pictures").as_uri(), media_timeout=5))


@pytest.fixture
def thumbnails(media: Media) -> Iterator[Thumbnails]:
    made = Thumbnails(media, pixels=PIXELS, threads=2)
    yield made
    made.close()


async def stored(media: Media, data: bytes, extension: str = "png") -> tuple[UUID, str, str]:
    record_id, sha256 = uuid4(), hashlib.sha256(data).hexdigest()
    key = keys.image_key(record_id, sha256, extension)
    await media.put(key, data, "image/png")
    return record_id, sha256, key


async def test_it_is_made_once_however_many_ask(media: Media, thumbnails: Thumbnails) -> None:
    picture = await stored(media, drawn("PNG", (1024, 576)))
    before = metrics.of_process().value("thumbnails", outcome="made")
    found = await asyncio.gather(*(thumbnails.open(*picture) for _ in range(20)))
    assert len({one for one in found if isinstance(one, bytes)}) == 1
    assert metrics.of_process().value("thumbnails", outcome="made") == before + 1
    # from now on it lies beside its picture
    again = await thumbnails.open(*picture)
    assert not isinstance(again, bytes)
    assert b"".join([chunk async for chunk in again.chunks]) == found[0]
    assert opened(await media.get(keys.thumbnail_key(*picture[:2]))).size == (480, 270)


async def test_one_that_leaves_does_not_take_it_from_the_others(media: Media, thumbnails: Thumbnails) -> None:
    picture = await stored(media, drawn("PNG", (1024, 576)))
    first, second = (asyncio.create_task(thumbnails.open(*picture)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    made = await second
    assert opened(made if isinstance(made, bytes) else await media.get(keys.thumbnail_key(*picture[:2]))).width == 480


async def test_a_broken_picture_is_opened_once_and_remembered(media: Media, thumbnails: Thumbnails) -> None:
    picture = await stored(media, drawn("PNG", (600, 300))[:-200])
    before = metrics.of_process().value("thumbnails", outcome="refused")
    for _ in range(3):
        with pytest.raises(NoThumbnail):
            await thumbnails.open(*picture)
    assert metrics.of_process().value("thumbnails", outcome="refused") == before + 1


async def test_a_picture_that_is_not_there_is_not_remembered_as_broken(media: Media, thumbnails: Thumbnails) -> None:
    data = drawn("PNG", (600, 300))
    record_id, sha256 = uuid4(), hashlib.sha256(data).hexdigest()
    key = keys.image_key(record_id, sha256, "png")
    with pytest.raises(NotStored):
        await thumbnails.open(record_id, sha256, key)
    await media.put(key, data, "image/png")
    assert isinstance(await thumbnails.open(record_id, sha256, key), bytes)


async def test_a_store_that_takes_nothing_still_shows_thumbnails(
    media: Media, thumbnails: Thumbnails, tmp_path: Path
) -> None:
    picture = await stored(media, drawn("PNG", (600, 300)))
    # through which everything comes in
    incoming = tmp_path / "pictures" / "incoming"
    incoming.rmdir()
    incoming.write_bytes(b"")
    before = metrics.of_process().value("thumbnails", outcome="not_stored")
    for _ in range(2):
        made = await thumbnails.open(*picture)
        assert isinstance(made, bytes)
        assert opened(made).size == (480, 240)
    assert metrics.of_process().value("thumbnails", outcome="not_stored") == before + 2


async def test_a_store_that_is_away_is_said_to_be(media: Media, thumbnails: Thumbnails, tmp_path: Path) -> None:
    picture = await stored(media, drawn("PNG", (600, 300)))
    folder = (tmp_path / "pictures" / picture[2]).parent
    (tmp_path / "pictures" / picture[2]).unlink()
    folder.rmdir()
    # a loop of links: neither there nor not there
    folder.symlink_to(folder)
    with pytest.raises(MediaUnavailable):
        await thumbnails.open(*picture)
