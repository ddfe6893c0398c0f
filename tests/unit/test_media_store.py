"""The picture store on a folder."""

import asyncio
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import ValidationError

from media.keys import image_key
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
    assert await media.exists(name)
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
    assert not await media.exists(key())


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
