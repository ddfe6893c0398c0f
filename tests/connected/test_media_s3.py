"""The picture store on a real S3-compatible server, and every way in which that is not to be had."""

import asyncio
import hashlib
from collections.abc import Iterator
from uuid import uuid4

import obstore
import pytest
from obstore.store import S3Store

from media.keys import image_key, incoming_key
from media.settings import MediaSettings
from media.store import Media, MediaUnavailable, NotStored
from tests.s3 import BUCKET, KEY, S3, SECRET

pytestmark = pytest.mark.connected

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4_000


@pytest.fixture(scope="module")
def running_s3() -> Iterator[S3]:
    server = S3()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(running_s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in running_s3.environment.items():
        monkeypatch.setenv(name, value)
    return running_s3


@pytest.fixture
def media(s3: S3) -> Media:
    # a prefix of the test's own
    return Media(MediaSettings(media_url=f"s3://{BUCKET}/{uuid4().hex}", media_timeout=20))


def key(data: bytes = PICTURE) -> str:
    return image_key(uuid4(), hashlib.sha256(data).hexdigest(), "png")


def everything(s3: S3) -> list[str]:
    return [one["path"] for one in obstore.list(S3Store(BUCKET)).collect()]


async def test_what_is_put_can_be_got_and_nothing_else_is_left(s3: S3, media: Media) -> None:
    name = key()
    before = set(everything(s3))
    await asyncio.gather(*(media.put(name, PICTURE, "image/png") for _ in range(4)))
    (stored,) = set(everything(s3)) - before
    assert stored.endswith(f"/{name}")
    assert await media.get(name) == PICTURE
    opened = await media.open(name)
    assert (opened.size, b"".join([chunk async for chunk in opened.chunks])) == (len(PICTURE), PICTURE)
    # the move keeps what the put said of it
    assert (await obstore.get_async(S3Store(BUCKET), stored)).attributes["Content-Type"] == "image/png"
    await media.writable()
    await media.readable()


async def test_a_picture_that_is_not_there(media: Media) -> None:
    with pytest.raises(NotStored):
        await media.get(key())
    with pytest.raises(NotStored):
        await media.open(key())


async def test_what_dead_processes_left_is_removed_when_it_is_old(s3: S3, media: Media) -> None:
    name = key()
    await media.put(name, PICTURE, "image/png")
    store = media._store
    left = [incoming_key() for _ in range(3)]
    for one in left:
        await obstore.put_async(store, one, b"half a pict")
    assert await media.tidy(older_than=3600) == 0
    # the server's clock counts in seconds
    assert await media.tidy(older_than=-2) == 3
    assert await media.get(name) == PICTURE
    assert await media.tidy(older_than=-2) == 0


def said(error: pytest.ExceptionInfo[MediaUnavailable]) -> str:
    """The sentence, which shows no secret, nor does what led to it."""
    assert error.value.__suppress_context__ or error.value.__context__ is None
    text = str(error.value)
    assert not any(word in text for word in (KEY, SECRET, "Signature", "http"))
    return text


async def every_way(media: Media) -> set[str]:
    found = set()
    for way in (
        lambda: media.put(key(), PICTURE, "image/png"),
        lambda: media.get(key()),
        lambda: media.open(key()),
        lambda: media.tidy(older_than=3600),
        media.readable,
        media.writable,
    ):
        with pytest.raises(MediaUnavailable) as caught:
            await way()
        found.add(said(caught))
    return found


async def test_a_bucket_that_is_not_there_is_said_to_be_missing(s3: S3) -> None:
    media = Media(MediaSettings(media_url="s3://no-such-bucket", media_timeout=20))
    (sentence,) = await every_way(media)
    assert sentence == (
        "the picture store's bucket or folder does not exist: create it, or correct SCENEWIRE_MEDIA_URL"
    )


async def test_a_store_that_refuses_us_is_said_to(s3: S3, media: Media) -> None:
    s3.lock()
    try:
        (sentence,) = await every_way(media)
    finally:
        s3.unlock()
    assert sentence.startswith("the picture store refuses us (InvalidAccessKeyId): check its credentials")
    await media.writable()


async def test_an_endpoint_that_nobody_knows_is_said_to_be(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "http://no-such-host.invalid:9000")
    (sentence,) = await every_way(Media(MediaSettings(media_url="s3://pictures", media_timeout=20)))
    assert sentence == "the picture store's host has no address: check its endpoint's name, and DNS"


async def test_a_store_that_hangs_is_given_up_in_time_and_is_back_when_it_is_back(s3: S3) -> None:
    media = Media(MediaSettings(media_url=f"s3://{BUCKET}/hangs", media_timeout=0.2))
    s3.freeze()
    try:
        (sentence,) = await every_way(media)
    finally:
        s3.thaw()
    assert sentence == "the picture store did not answer in time"
    patient = Media(MediaSettings(media_url=f"s3://{BUCKET}/hangs", media_timeout=20))
    name = key()
    await patient.put(name, PICTURE, "image/png")
    assert await patient.get(name) == PICTURE


async def test_a_store_that_is_away_is_said_to_be(s3: S3, media: Media) -> None:
    s3.stop()
    try:
        (sentence,) = await every_way(media)
    finally:
        s3.start()
    assert sentence == "the picture store cannot be used: Connection refused"
    await media.writable()
