"""The picture store: obstore over a folder, S3 (and what speaks it), GCS or Azure."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from media.keys import incoming_key
from media.settings import MediaSettings

if TYPE_CHECKING:  # exists in the type stubs alone
    from obstore import GetResult

_CHUNK_BYTES = 256 * 1024


class MediaUnavailable(Exception):
    """The picture store does not answer; nothing is known to be stored. Check SCENEWIRE_MEDIA_URL and the store."""

    def __str__(self) -> str:
        return super().__str__() or str(self.__doc__)


class NotStored(Exception):
    """There is no picture under this key."""

    def __str__(self) -> str:
        return str(self.__doc__)


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored picture being read: its size in bytes and its chunks, to be read once."""

    size: int
    chunks: AsyncIterator[bytes]


class Media:
    """Puts and gets pictures by key. Everything that is not about the picture itself raises MediaUnavailable.

    Raises ValueError for a media URL that names no store; a folder is created on construction.
    """

    def __init__(self, settings: MediaSettings) -> None:
        self._timeout = settings.media_timeout
        url = settings.media_url
        try:
            # no client options here: given ones would replace those of the environment, such as AWS_ALLOW_HTTP
            store = from_url(url, mkdir=True) if url.startswith("file://") else from_url(url)
        except (BaseError, OSError, ValueError) as error:
            # the first line alone: the rest is obstore's debug text, which may show the store's configuration
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"SCENEWIRE_MEDIA_URL names no store that can be used ({reason}): give file:///an/absolute/folder, "
                "s3://bucket/prefix, gs://... or az://..."
            ) from None
        self._folder = Path(str(store.prefix)) if isinstance(store, LocalStore) else None
        self._store = store

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store the picture whole or not at all. The same key twice is harmless: it means the same bytes."""
        try:
            async with _Guard(self._timeout):
                if self._folder is not None:
                    # on a folder obstore itself writes beside the key and renames; it keeps no content types
                    await obstore.put_async(self._store, key, data, use_multipart=False)
                else:
                    await self._put_and_move(key, data, content_type)
        except NotStored:
            raise MediaUnavailable("the picture store's bucket or folder does not exist") from None

    async def get(self, key: str) -> bytes:
        """The whole picture. Raises NotStored."""
        async with _Guard(self._timeout):
            result = await obstore.get_async(self._store, key)
            return bytes(await result.bytes_async())

    async def open(self, key: str) -> Stored:
        """The picture's size, and its bytes as they come. Raises NotStored before the first chunk."""
        async with _Guard(self._timeout):
            result = await obstore.get_async(self._store, key)
        return Stored(result.meta["size"], self._chunks(result))

    async def exists(self, key: str) -> bool:
        try:
            async with _Guard(self._timeout):
                await obstore.head_async(self._store, key)
        except NotStored:
            return False
        return True

    async def readable(self) -> None:
        """Raises MediaUnavailable when pictures cannot be read, with a sentence that says why."""
        await self._answers(os.R_OK | os.X_OK, "readable")

    async def writable(self) -> None:
        """Raises MediaUnavailable when pictures cannot be stored, with a sentence that says why.

        Of a bucket only that it is there: what its rules allow shows at the first picture.
        """
        await self._answers(os.R_OK | os.W_OK | os.X_OK, "writable")

    async def _answers(self, wanted: int, word: str) -> None:
        if self._folder is not None:
            folder = self._folder
            if not await asyncio.to_thread(lambda: os.access(folder, wanted, effective_ids=True)):
                raise MediaUnavailable(f"the pictures' folder {folder} is missing or not {word}")
            return
        try:
            async with _Guard(self._timeout):
                # not a HEAD: its answer for a missing bucket looks like that for a missing picture
                await obstore.list_with_delimiter_async(self._store, prefix="health")
        except NotStored:
            raise MediaUnavailable("the picture store's bucket does not exist") from None

    async def _put_and_move(self, key: str, data: bytes, content_type: str) -> None:
        incoming = incoming_key()
        await obstore.put_async(self._store, incoming, data, attributes={"Content-Type": content_type})
        try:
            await obstore.rename_async(self._store, incoming, key)
        except BaseException:
            with suppress(BaseError, OSError):
                await obstore.delete_async(self._store, incoming)
            raise

    async def _chunks(self, result: "GetResult") -> AsyncIterator[bytes]:
        stream = result.stream(min_chunk_size=_CHUNK_BYTES)
        while True:
            async with _Guard(self._timeout):
                try:
                    chunk = await anext(stream)
                except StopAsyncIteration:
                    return
            yield bytes(chunk)


class _Guard:
    """One operation on the store: under a time limit, with obstore's errors in our two words."""

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            await self._timeout.__aexit__(kind, error, None)
        except TimeoutError:
            raise MediaUnavailable("the picture store did not answer in time") from None
        if isinstance(error, FileNotFoundError):
            raise NotStored from None
        if isinstance(error, BaseError | OSError):
            reason = str(error).partition("\n")[0]
            raise MediaUnavailable(f"the picture store refused: {reason[:300]}") from error
