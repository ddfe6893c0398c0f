"""The provider's pictures: streamed under limits, recognised by their first bytes, measured without decoding.

Invariants: nothing here opens a picture (a decoder on foreign bytes is a way to kill a worker); content types and
file names from the network are not believed; at most `limit_bytes` are ever held.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from consumer import formats

LIMIT_BYTES = 25 * 1024 * 1024

_HOPS = 5
_HASH_ON_LOOP_MAX = 512 * 1024
"""Bytes; hashing more would hold the loop for milliseconds, and hashlib lets go of the GIL."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = [("accept", "image/*,*/*;q=0.5"), ("accept-encoding", "identity"), ("user-agent", "scenewire")]


@dataclass(frozen=True, slots=True)
class Picture:
    """Bytes as the provider gave them; sizes in pixels, None where the header does not say."""

    data: bytes = field(repr=False)
    content_type: str
    extension: str
    sha256: str
    width: int | None
    height: int | None


class DownloadFailed(Exception):
    """The picture could not be fetched from any of its addresses."""

    def __init__(self, detail: str, *, retryable: bool = True) -> None:
        super().__init__(detail)
        #: False where the same address will answer the same again: too large, not http(s)
        self.retryable = retryable


class NotAPicture(Exception):
    """The address answered with bytes that are no PNG, JPEG, WebP or AVIF."""


async def download(
    client: httpx.AsyncClient, urls: Sequence[str], *, limit_bytes: int = LIMIT_BYTES, time_limit: float = 60.0
) -> Picture:
    """The first picture any of `urls` gives, tried in their order; `time_limit` in seconds over all of them.

    Raises NotAPicture when every address answered with something else, otherwise DownloadFailed: a fresh link may
    answer 404 for some seconds, so the caller comes back while `retryable`.
    """
    failures: list[DownloadFailed] = []
    strange: NotAPicture | None = None
    try:
        async with asyncio.timeout(time_limit):
            for url in urls:
                try:
                    return await recognise(await _fetch(client, url, limit_bytes))
                except NotAPicture as error:
                    strange = error
                except DownloadFailed as error:
                    failures.append(error)
    except TimeoutError:
        failures.append(DownloadFailed(f"no picture within {time_limit:g} s"))
    if failures:
        retryable = any(failure.retryable for failure in failures)
        raise DownloadFailed("; ".join(map(str, failures))[:500], retryable=retryable)
    if strange is not None:
        raise strange
    raise DownloadFailed("the provider named no address", retryable=False)


async def recognise(data: bytes) -> Picture:
    """What the bytes are; text in base64 is unpacked first. Raises NotAPicture."""
    found = formats.sniff(data)
    if found is None:
        data = _unpacked(data)
        found = formats.sniff(data)
    if found is None:
        raise NotAPicture(f"{len(data)} bytes that begin with {data[:12].hex()}")
    if len(data) <= _HASH_ON_LOOP_MAX:
        sha256 = hashlib.sha256(data).hexdigest()
    else:
        sha256 = (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
    return Picture(data, found.content_type, found.extension, sha256, found.width, found.height)


async def _fetch(client: httpx.AsyncClient, url: str, limit_bytes: int) -> bytes:
    """One address, redirects followed by hand so that each hop is looked at."""
    try:
        address = httpx.URL(url)
        for _ in range(_HOPS):
            if address.scheme not in ("http", "https") or not address.host:
                raise DownloadFailed("not an http(s) address", retryable=False)
            request = httpx.Request("GET", address, headers=_HEADERS, extensions={"timeout": client.timeout.as_dict()})
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                if response.status_code == 200:
                    return await _read(response, limit_bytes)
                if response.status_code not in _REDIRECTS or "location" not in response.headers:
                    raise DownloadFailed(f"HTTP {response.status_code} from {address.host}")
                address = address.join(response.headers["location"])
            finally:
                await response.aclose()
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # the text of httpx's errors may hold the whole address, which can carry a signature
        raise DownloadFailed(f"{type(error).__name__} while fetching the picture") from None
    raise DownloadFailed(f"more than {_HOPS} redirects")


async def _read(response: httpx.Response, limit_bytes: int) -> bytes:
    too_large = f"the picture is larger than {limit_bytes} bytes"
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise DownloadFailed(too_large, retryable=False)
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > limit_bytes:
            raise DownloadFailed(too_large, retryable=False)
        parts.append(part)
    return b"".join(parts)


def _unpacked(data: bytes) -> bytes:
    """Base64 text (the provider's `.base64` addresses, with or without a data: prefix) as bytes; else unchanged."""
    text = data.strip()
    if text.startswith(b"data:"):
        text = text.partition(b",")[2]
    try:
        return base64.b64decode(b"".join(text.split()), validate=True) if text else data
    except (binascii.Error, ValueError):
        return data
