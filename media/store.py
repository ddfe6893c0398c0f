"""The picture store: obstore over a folder, S3 (and what speaks it), GCS or Azure."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from media import faults
from media.keys import INCOMING, incoming_key
from media.settings import MediaSettings

if TYPE_CHECKING:  # exists in the type stubs alone
    from obstore import GetResult

_CHUNK_BYTES = 256 * 1024
_RETRIES = 2
"""Of one request, by obstore: whoever stores a picture comes back by himself, and who looks at one must not wait."""
_DELETE_SECONDS = 1.0


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
            store = (
                from_url(url, mkdir=True)
                if url.startswith("file://")
                else from_url(
                    url, retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=self._timeout)}
                )
            )
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
        """Store the picture whole or not at all, and on a folder for good: it outlives a power cut.

        The same key twice is harmless: it means the same bytes.
        """
        incoming = incoming_key()
        try:
            async with _Guard(self._timeout):
                if self._folder is not None:
                    # a folder keeps no content types
                    await obstore.put_async(self._store, incoming, data, use_multipart=False)
                    await asyncio.to_thread(_settle, self._folder / incoming, self._folder / key)
                else:
                    await obstore.put_async(self._store, incoming, data, attributes={"Content-Type": content_type})
                    await obstore.rename_async(self._store, incoming, key)
        except NotStored:
            raise MediaUnavailable(faults.MISSING) from None
        except MediaUnavailable:
            await self._forget(incoming)
            raise

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

    async def tidy(self, *, older_than: float) -> int:
        """Remove what was on its way when its process died, `older_than` seconds ago or more; how many that were.

        A put that still runs is younger than its time limit: anything above that is safe.
        """
        if self._folder is not None:
            async with _Guard(self._timeout):
                # not by obstore: it does not show its own half-written files
                return await asyncio.to_thread(_tidy, self._folder / INCOMING, older_than)
        oldest = datetime.now(UTC) - timedelta(seconds=older_than)
        removed = 0
        try:
            async with _Guard(self._timeout):
                async for batch in obstore.list(self._store, prefix=INCOMING):
                    left = [one["path"] for one in batch if one["last_modified"] < oldest]
                    if left:
                        await obstore.delete_async(self._store, left)
                        removed += len(left)
        except NotStored:
            raise MediaUnavailable(faults.MISSING) from None
        return removed

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
            raise MediaUnavailable(faults.MISSING) from None

    async def _forget(self, incoming: str) -> None:
        """What does not get away here `tidy` finds later."""
        with suppress(BaseError, OSError, TimeoutError):
            async with asyncio.timeout(_DELETE_SECONDS):
                await obstore.delete_async(self._store, incoming)

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
            raise MediaUnavailable(faults.SLOW) from None
        if isinstance(error, FileNotFoundError) and not faults.is_missing_store(error):
            raise NotStored from None
        if isinstance(error, BaseError | OSError):
            raise MediaUnavailable(faults.sentence(error)) from None


def _settle(incoming: Path, final: Path) -> None:
    """Move a written file to its name; both its bytes and its name are on the disk afterwards."""
    _sync(incoming)
    try:
        os.replace(incoming, final)
    except FileNotFoundError:
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(incoming, final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _tidy(folder: Path, older_than: float) -> int:
    removed = 0
    oldest = time.time() - older_than
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            # another consumer may tidy too
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(entry)
                    removed += 1
    return removed
