"""The provider's pictures: streamed under limits, recognised by their first bytes, measured without decoding.

Invariants: nothing here opens a picture (a decoder on foreign bytes is a way to kill a worker); content types and
file names from the network are not believed; never more is read than `limit_bytes`, or than they take in base64. Which
hosts may be asked is for the client's transport to decide (`consumer.destinations`), at the first address and at each
redirect.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import httpx

from consumer.destinations import Forbidden
from media import formats

Made = TypeVar("Made")

LIMIT_BYTES = 25 * 1024 * 1024

_HOPS = 5
_ON_LOOP_MAX = 512 * 1024
"""Bytes; hashing or unpacking more would hold the loop for milliseconds."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = [("accept", "image/*,*/*;q=0.5"), ("accept-encoding", "identity"), ("user-agent", "scenewire")]
_BASE64_FACTOR = 1.4
"""Text in base64 is longer than its bytes by 4/3, and by its line breaks."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Bytes as the provider gave them; sizes in pixels, None where the header does not say.

    `source` is where they came from, without query, user and fragment: those may be a signature.
    """

    data: bytes = field(repr=False)
    content_type: str
    extension: str
    sha256: str
    width: int | None
    height: int | None
    source: str = ""


class DownloadFailed(Exception):
    """The picture could not be fetched from any of its addresses."""

    def __init__(self, detail: str, *, retryable: bool = True, not_yet: bool = False) -> None:
        super().__init__(detail)
        #: False where the same address will answer the same again: too large, not http(s), not public
        self.retryable = retryable
        #: whether it may only be too early: a fresh link answers 404 for some seconds
        self.not_yet = not_yet


class NotAPicture(Exception):
    """The address answered with bytes that are no whole PNG, JPEG, WebP or AVIF."""

    def __init__(self, detail: str, *, not_yet: bool = False) -> None:
        super().__init__(detail)
        #: whether it may only be too early: a picture that breaks off may still be on its way to its host
        self.not_yet = not_yet


async def download(
    client: httpx.AsyncClient, urls: Sequence[str], *, limit_bytes: int = LIMIT_BYTES, time_limit: float = 60.0
) -> Picture:
    """The first picture any of `urls` gives, tried in their order; `time_limit` in seconds for each.

    Raises NotAPicture when every address answered with something else, otherwise DownloadFailed. Either may be
    `not_yet`: a fresh link is asked again for some seconds before its failure counts.
    """
    failures: list[DownloadFailed] = []
    strange: list[NotAPicture] = []
    for url in urls:
        try:
            # over all of it: httpx's read timeout starts again at every byte
            async with asyncio.timeout(time_limit):
                return await _fetch(client, url, limit_bytes)
        except TimeoutError:
            failures.append(DownloadFailed(f"no picture within {time_limit:g} s"))
        except NotAPicture as error:
            strange.append(error)
        except DownloadFailed as error:
            failures.append(error)
    not_yet = any(one.not_yet for one in failures) or any(one.not_yet for one in strange)
    if failures:
        retryable = any(failure.retryable for failure in failures)
        raise DownloadFailed("; ".join(map(str, failures))[:500], retryable=retryable, not_yet=not_yet)
    if strange:
        raise NotAPicture("; ".join(map(str, strange))[:500], not_yet=not_yet)
    raise DownloadFailed("the provider named no address", retryable=False)


async def recognise(data: bytes, *, limit_bytes: int = LIMIT_BYTES) -> Picture:
    """What the bytes are; text in base64 is unpacked first. Raises NotAPicture, or DownloadFailed above the limit."""
    found = formats.sniff(data)
    if found is None:
        data = await _apart(_unpacked, data)
        found = formats.sniff(data)
    if found is None:
        raise NotAPicture(f"{len(data)} bytes that begin with {data[:12].hex()}")
    if len(data) > limit_bytes:
        raise _too_large(limit_bytes)
    if await _apart(partial(formats.breaks_off, kind=found), data):
        raise NotAPicture(f"a {found.extension} that breaks off after {len(data)} bytes", not_yet=True)
    sha256 = await _apart(_sha256, data)
    return Picture(data, found.content_type, found.extension, sha256, found.width, found.height)


async def _fetch(client: httpx.AsyncClient, url: str, limit_bytes: int) -> Picture:
    """One address, redirects followed by hand so that each hop is looked at."""
    try:
        address = httpx.URL(url)
        for _ in range(_HOPS):
            _look_at(address)
            request = httpx.Request("GET", address, headers=_HEADERS, extensions={"timeout": client.timeout.as_dict()})
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                if response.status_code == 200:
                    picture = await recognise(await _read(response, limit_bytes), limit_bytes=limit_bytes)
                    return replace(picture, source=str(httpx.URL(url).copy_with(query=None, fragment=None)))
                if response.status_code not in _REDIRECTS or "location" not in response.headers:
                    missing = response.status_code == 404
                    raise DownloadFailed(f"HTTP {response.status_code} from {address.host}", not_yet=missing)
                address = address.join(response.headers["location"])
            finally:
                await response.aclose()
    except Forbidden as error:
        raise DownloadFailed(str(error), retryable=False) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        # the text of httpx's errors may hold the whole address, which can carry a signature
        raise DownloadFailed(f"{type(error).__name__} while fetching the picture") from None
    raise DownloadFailed(f"more than {_HOPS} redirects")


def _look_at(address: httpx.URL) -> None:
    if address.scheme not in ("http", "https") or not address.host:
        raise DownloadFailed("not an http(s) address", retryable=False)
    if address.userinfo:
        raise DownloadFailed("an address with a user's name or password", retryable=False)


async def _read(response: httpx.Response, limit_bytes: int) -> bytes:
    """The body. A packed one, which nobody asked for, is not unpacked: a few bytes could become gigabytes."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise DownloadFailed("the picture is packed, though asked for as it is")
    parts: list[bytes] = []
    size = 0
    most = limit_bytes
    async for part in response.aiter_bytes():
        if not parts and formats.sniff(part) is None:
            most = int(limit_bytes * _BASE64_FACTOR)
        if not parts and _declared(response) > most:
            raise _too_large(limit_bytes)
        size += len(part)
        if size > most:
            raise _too_large(limit_bytes)
        parts.append(part)
    return b"".join(parts)


def _declared(response: httpx.Response) -> int:
    length = response.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _too_large(limit_bytes: int) -> DownloadFailed:
    return DownloadFailed(f"the picture is larger than {limit_bytes} bytes", retryable=False)


async def _apart(work: Callable[[bytes], Made], data: bytes) -> Made:
    """What `work` makes of the bytes, in a thread where that takes long."""
    return work(data) if len(data) <= _ON_LOOP_MAX else await asyncio.to_thread(work, data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unpacked(data: bytes) -> bytes:
    """Base64 text (the provider's `.base64` addresses, with or without a data: prefix) as bytes; else unchanged."""
    text = data.strip().strip(b'"')
    if text.startswith(b"data:"):
        text = text.partition(b",")[2]
    text = b"".join(text.split()).rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True) if text else data
    except (binascii.Error, ValueError):
        return data
