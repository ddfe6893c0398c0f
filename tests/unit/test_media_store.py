"""The picture store on a folder."""

import asyncio
import errno
import hashlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError, UnauthenticatedError
from pydantic import ValidationError

from media import faults
from media.keys import image_key, parts
from media.settings import MediaSettings
from media.store import Media, MediaUnavailable, NotStored

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pictures of alice"


@pytest.fixture
def media(folder: Path) -> Media:
    return Media(MediaSettings(media_url=folder.as_uri(), media_timeout=5))


def key(data: bytes = PICTURE) -> str:
    return image_key(uuid4(), hashlib.sha256(data).hexdigest(), "png")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_what_is_put_can_be_got(media: Media, folder: Path) -> None:
    name = key()
    await media.put(name, PICTURE, "image/png")
    assert await media.get(name) == PICTURE
    assert files(folder) == [name]


async def test_a_picture_is_read_in_chunks(media: Media) -> None:
    name = key()
    await media.put(name, PICTURE, "image/png")
    stored = await media.open(name)
    chunks = [chunk async for chunk in stored.chunks]
    assert stored.size == len(PICTURE)
    assert b"".join(chunks) == PICTURE
    assert len(chunks) > 1


async def test_putting_twice_is_harmless(media: Media, folder: Path) -> None:
    name = key()
    await asyncio.gather(*(media.put(name, PICTURE, "image/png") for _ in range(8)))
    assert await media.get(name) == PICTURE
    assert files(folder) == [name]


async def test_a_picture_that_is_not_there(media: Media) -> None:
    with pytest.raises(NotStored):
        await media.get(key())
    with pytest.raises(NotStored):
        await media.open(key())


async def test_a_second_process_sees_the_same_pictures(media: Media, folder: Path) -> None:
    name = key()
    await media.put(name, PICTURE, "image/png")
    assert await Media(MediaSettings(media_url=folder.as_uri())).get(name) == PICTURE


async def test_a_folder_that_is_gone_or_is_no_folder_is_not_healthy(media: Media, folder: Path) -> None:
    await media.writable()
    await media.readable()
    os.rmdir(folder)
    for check in (media.writable, media.readable):
        with pytest.raises(MediaUnavailable, match="pictures of alice"):
            await check()
    os.symlink(os.devnull, folder)
    with pytest.raises(MediaUnavailable):
        await media.put(key(), PICTURE, "image/png")


async def test_a_folder_that_may_only_be_read_serves_who_only_reads() -> None:
    with _nobody(), tempfile.TemporaryDirectory() as given:
        pictures = Path(given) / "pictures"
        pictures.mkdir()
        media = Media(MediaSettings(media_url=pictures.as_uri()))
        name = key()
        await media.put(name, PICTURE, "image/png")
        pictures.chmod(0o555)
        again = Media(MediaSettings(media_url=pictures.as_uri()))
        await again.readable()
        assert await again.get(name) == PICTURE
        with pytest.raises(MediaUnavailable, match="not writable"):
            await again.writable()
        pictures.chmod(0o755)


@contextmanager
def _nobody() -> Iterator[None]:
    """Root may write anywhere: be another user meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def _files_no_larger_than(size: int) -> Iterator[None]:
    """As on a disk that is full: the system refuses what is beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_folder_is_said_to_be_and_holds_no_half_picture(media: Media, folder: Path) -> None:
    with _files_no_larger_than(100_000), pytest.raises(MediaUnavailable, match="is full: make room") as caught:
        await media.put(key(), PICTURE, "image/png")
    assert str(folder) not in str(caught.value)
    assert files(folder) == []


async def test_a_folder_that_may_not_be_written_is_said_to_be() -> None:
    with _nobody(), tempfile.TemporaryDirectory() as given:
        pictures = Path(given) / "pictures"
        media = Media(MediaSettings(media_url=pictures.as_uri()))
        pictures.chmod(0o555)
        with pytest.raises(MediaUnavailable, match="refuses us: check its credentials"):
            await media.put(key(), PICTURE, "image/png")
        pictures.chmod(0o755)


def _aged(path: Path, seconds: float) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"half a pict")
    os.utime(path, (time.time() - seconds,) * 2)


async def test_what_dead_processes_left_is_removed_when_it_is_old(media: Media, folder: Path) -> None:
    assert await media.tidy(older_than=60) == 0
    name = key()
    await media.put(name, PICTURE, "image/png")
    os.utime(folder / name, (0, 0))
    # the second as obstore names what it is just writing
    for left in ("a" * 32, "b" * 32 + "#1"):
        _aged(folder / "incoming" / left, 120)
    _aged(folder / "incoming" / "still-being-written", 5)
    assert await media.tidy(older_than=60) == 2
    assert files(folder) == sorted([name, "incoming/still-being-written"])


_PUTS = """
import asyncio, hashlib, os, sys
from uuid import uuid4
from media.keys import image_key
from media.settings import MediaSettings
from media.store import Media

async def main():
    media = Media(MediaSettings(media_url=sys.argv[1]))
    while True:
        data = os.urandom(3_000_000)
        await media.put(image_key(uuid4(), hashlib.sha256(data).hexdigest(), "png"), data, "image/png")

asyncio.run(main())
"""


def _killed_in_mid_put(folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _PUTS, folder.as_uri()])
    try:
        deadline = time.monotonic() + 30
        while not list((folder / "incoming").glob("*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
    finally:
        process.kill()
        process.wait()


async def test_a_kill_in_mid_put_leaves_no_half_picture_under_a_pictures_name(media: Media, folder: Path) -> None:
    for _ in range(3):
        _killed_in_mid_put(folder)
    for name in files(folder):
        found = parts(name)
        assert found is not None or name.startswith("incoming/")
        if found is not None:
            assert hashlib.sha256(await media.get(name)).hexdigest() == found[1]
    await media.tidy(older_than=-1)
    assert not any(name.startswith("incoming/") for name in files(folder))


FAULTS: list[tuple[BaseException, str]] = [
    (OSError(errno.ENOSPC, "No space left on device"), "is full"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "is full"),
    (OSError(errno.EROFS, "Read-only file system"), "refuses us"),
    (OSError(errno.EIO, "x"), "cannot be used: Input/output error"),
    (GenericError("Generic LocalFileSystem error: Unable to copy data to file: ... (os error 28)"), "is full"),
    (GenericError("Error performing PUT https://h/b/k?sig=word in 1ms - status code: 507 x"), "is full"),
    (GenericError("status code: 503 <Error><Code>SlowDown</Code></Error>"), "answered 503 (SlowDown)"),
    (GenericError("status code: 403 Forbidden: <?xml?><Code>AccessDenied</Code>"), "refuses us (AccessDenied)"),
    (GenericError("status code: 404 Not Found: <Code>NoSuchBucket</Code>"), "does not exist: create it"),
    (GenericError("<Code>ContainerNotFound</Code>"), "does not exist: create it"),
    (PermissionDeniedError("https://a.blob.test/c/k?sv=2&sig=word"), "refuses us"),
    (UnauthenticatedError("https://a.blob.test/c/k?sv=2&sig=word"), "refuses us"),
    (GenericError("... invalid peer certificate: UnknownIssuer"), "certificate is not trusted"),
    (GenericError("HTTP error: error sending request for https://a.blob.test/c/k?sig=word"), "does not answer"),
]


@pytest.mark.parametrize(("error", "sentence"), FAULTS)
def test_every_fault_has_a_sentence_that_shows_nothing(error: BaseException, sentence: str) -> None:
    said = faults.sentence(error)
    assert sentence in said
    assert not any(word in said for word in ("word", "https", "blob.test"))


async def test_a_store_that_does_not_answer_is_unavailable_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # nobody accepts
        port = server.getsockname()[1]
        for name, value in {
            "AWS_ENDPOINT": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        media = Media(MediaSettings(media_url="s3://pictures", media_timeout=0.05))
        with pytest.raises(MediaUnavailable, match="in time"):
            await media.put(key(), PICTURE, "image/png")
        for check in (media.writable, media.readable):
            with pytest.raises(MediaUnavailable, match="in time"):
                await check()


@pytest.mark.parametrize("url", ["", "pictures", "gopher://pictures", "file:///dev/null/pictures"])
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="SCENEWIRE_MEDIA_URL"):
        Media(MediaSettings(media_url=url))


def test_the_url_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCENEWIRE_MEDIA_URL", raising=False)
    with pytest.raises(ValidationError, match="media_url"):
        MediaSettings()
    monkeypatch.setenv("SCENEWIRE_MEDIA_URL", "s3://bucket/prefix")
    assert MediaSettings().media_url == "s3://bucket/prefix"
