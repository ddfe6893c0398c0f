"""Small pictures, made of the stored ones when they are first asked for, and kept beside them.

Invariants: a decoder runs in a thread of a small pool, on bytes whose header promises no more pixels than allowed, and
it alone is let near them; whatever it does with a broken picture, short of ending the process, is a `NoThumbnail`. One
picture is made once at a time, however many ask.
"""

import asyncio
import io
import warnings
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import structlog
from PIL import Image, ImageOps, features

from media import formats, keys
from media.store import Media, MediaUnavailable, NotStored, Stored
from telemetry import metrics

log = structlog.get_logger(__name__)

CONTENT_TYPE = "image/webp"
_SIZE = (keys.THUMBNAIL_WIDTH, 4 * keys.THUMBNAIL_WIDTH)
"""Pixels: as wide as a card, however high that makes it, short of a strip. Smaller pictures keep their size."""
_QUALITY = 80
_LARGEST_PROFILE = 64 * 1024
"""Bytes of a colour profile that is kept: a small picture must not carry megabytes of it."""
_REMEMBERED = 4_096

# our extension -> Pillow's name of the format
_DECODERS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "avif": "AVIF"}


class NoThumbnail(Exception):
    """Nothing smaller can be made of the picture: it is broken, or too large to be opened."""

    def __str__(self) -> str:
        return super().__str__() or str(self.__doc__)


class NoDecoder(NoThumbnail):
    """This machine cannot open pictures of that kind; the picture itself may be fine."""


def decoders() -> frozenset[str]:
    """Extensions of what can be opened here: Pillow may be built without some."""
    return frozenset({"png", "jpg", *(name for name in ("webp", "avif") if features.check(name))})


def shrink(data: bytes, *, pixels: int, can_open: Collection[str]) -> bytes:
    """A WebP of the picture, at most 480 wide; blocking. Raises NoThumbnail and nothing else."""
    found = formats.sniff(data)
    if found is None:
        raise NoThumbnail("not a picture")
    if found.extension not in can_open:
        raise NoDecoder
    if (found.width or 0) * (found.height or 0) > pixels:
        raise NoThumbnail(f"more than {pixels} pixels")
    try:
        return _shrunk(data, _DECODERS[found.extension], pixels)
    except NoThumbnail:
        raise
    except Exception as error:
        # decoders raise whatever comes to their minds: SyntaxError, struct.error, KeyError, MemoryError, ...
        raise NoThumbnail(f"broken: {type(error).__name__}") from error


def _shrunk(data: bytes, decoder: str, pixels: int) -> bytes:
    with Image.open(io.BytesIO(data), formats=[decoder]) as image:
        # the decoder may read another size than we did
        if image.width * image.height > pixels:
            raise NoThumbnail(f"more than {pixels} pixels")
        # a JPEG can be opened at a half, a quarter or an eighth
        image.draft("RGB", (2 * _SIZE[0], 2 * _SIZE[1]))
        profile = image.info.get("icc_profile")
        if image.mode not in ("RGB", "RGBA"):
            profile = None
        small = _upright(image)
        if small.mode not in ("RGB", "RGBA"):
            small = small.convert("RGBA" if small.has_transparency_data else "RGB")
        small.thumbnail(_SIZE, Image.Resampling.LANCZOS, reducing_gap=3.0)
        out = io.BytesIO()
        kept = profile if profile is not None and len(profile) <= _LARGEST_PROFILE else None
        small.save(out, "WEBP", quality=_QUALITY, method=4, icc_profile=kept, exif=b"", xmp=b"")
        return out.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # broken notes are no reason against the picture; broken pixels show themselves again in a moment
        return image


class Thumbnails:
    """Opens thumbnails, and makes those there are not. `pixels`: the largest picture that is opened.

    `can_open` are the extensions that can be opened (see `decoders`).
    """

    def __init__(self, media: Media, *, pixels: int, threads: int, can_open: Collection[str] | None = None) -> None:
        self._media = media
        self._pixels = pixels
        self._can_open = decoders() if can_open is None else frozenset(can_open)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="thumbnails")
        # before the bytes are read, so that those who wait hold none
        self._turn = asyncio.Semaphore(threads)
        self._making: dict[str, asyncio.Task[bytes]] = {}
        # its kind and no more: an exception holds on to the bytes it was raised over
        self._refused: OrderedDict[str, type[NoThumbnail]] = OrderedDict()
        # process-wide, as Pillow has it: what it would only warn of is refused
        Image.MAX_IMAGE_PIXELS = pixels
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

    async def open(self, record_id: UUID, sha256: str, image_key: str) -> Stored | bytes:
        """The thumbnail of a stored picture. Raises NoThumbnail, NotStored and MediaUnavailable."""
        key = keys.thumbnail_key(record_id, sha256)
        try:
            return await self._media.open(key)
        except NotStored:
            pass
        if key in self._refused:
            raise self._refused[key]()
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(self._make(key, image_key), name="thumbnail")
            task.add_done_callback(lambda done: self._made(key, done))
        # one that leaves does not take it from the others
        return await asyncio.shield(task)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _make(self, key: str, image_key: str) -> bytes:
        async with self._turn:
            data = await self._media.get(image_key)
            small = await asyncio.get_running_loop().run_in_executor(
                self._pool, lambda: shrink(data, pixels=self._pixels, can_open=self._can_open)
            )
        try:
            await self._media.put(key, small, CONTENT_TYPE)
        except MediaUnavailable as error:
            # shown all the same; whoever asks next has it made again
            metrics.count("thumbnails", outcome="not_stored")
            log.warning("thumbnail_not_stored", key=key, error=str(error))
        else:
            metrics.count("thumbnails", outcome="made")
        return small

    def _made(self, key: str, done: asyncio.Task[bytes]) -> None:
        del self._making[key]
        error = None if done.cancelled() else done.exception()
        if isinstance(error, NoThumbnail):
            metrics.count("thumbnails", outcome="refused")
            log.warning("thumbnail_refused", key=key, reason=str(error))
            self._refused[key] = type(error)
            if len(self._refused) > _REMEMBERED:
                self._refused.popitem(last=False)
