"""Stored pictures and their thumbnails over HTTP, by addresses that are capabilities."""

import hashlib
import io
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from PIL import Image

from media import links
from media.keys import image_key
from media.store import Media
from tests.drawn import drawn
from tests.flow.asking import Caller, problem
from tests.flow.pushing import House, house, settings_for

pytestmark = [pytest.mark.flow, pytest.mark.connected]

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(5000)


async def test_pictures_by_their_address(here: House, user: UUID, chapter: UUID) -> None:
    caller, record = Caller(here, user), await here.accept(user, chapter)
    problem(await caller.get(f"/images/{record}/file"), 404, "not_found")
    key = image_key(record, hashlib.sha256(PICTURE).hexdigest(), "png")
    await Media(here.settings).put(key, PICTURE, "image/png")
    await here.change(record, status="completed", image_key=key, image_url="set below")
    redirect = await caller.get(f"/images/{record}/file")
    assert redirect.status_code == 307
    address = redirect.headers["location"]
    assert address.startswith(f"{here.settings.push_url}/images/{record}/file/")
    path = address.removeprefix(here.settings.push_url)
    # no token: the address is the capability
    picture = await here.http.get(path)
    assert (picture.status_code, picture.content) == (200, PICTURE)
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["content-length"] == str(len(PICTURE))
    assert picture.headers["cache-control"] == "private, max-age=31536000, immutable"
    again = await here.http.get(path, headers={"If-None-Match": picture.headers["etag"]})
    assert again.status_code == 304
    other = await here.accept(user, chapter)
    wrong = [
        path.replace(".png", ".jpg"),
        path.replace(str(record), str(other)),
        path.replace(str(record), str(uuid4())),
        path.replace(str(record), "seven"),
        f"/images/{record}/file/{'A' * 24}.png",
        f"/images/{record}/file/.png",
        f"/images/{record}/file/%2e%2e%2fpasswd",
    ]
    for address in wrong:
        problem(await here.http.get(address), 404, "not_found")


async def completed_with(here: House, user: UUID, chapter: UUID, data: bytes, extension: str) -> dict[str, Any]:
    """The status of a record that was completed with this picture, as the consumer completes it."""
    record, sha256 = await here.accept(user, chapter), hashlib.sha256(data).hexdigest()
    key = image_key(record, sha256, extension)
    await Media(here.settings).put(key, data, "image/png")
    url = here.settings.push_url + links.sign(record, sha256, extension, here.settings.picture_secrets)
    await here.change(record, status="completed", image_key=key, image_url=url)
    status: dict[str, Any] = (await Caller(here, user).get(f"/images/{record}")).json()
    return status


async def test_thumbnails_by_their_address(here: House, user: UUID, chapter: UUID) -> None:
    status = await completed_with(here, user, chapter, drawn("PNG", (1024, 576)), "png")
    address = status["thumbnail_url"]
    assert address == status["image_url"].replace("/file/", "/thumb/").replace(".png", ".webp")
    scene = (await Caller(here, user).get(f"/chapters/{chapter}/images/scenes/1/status")).json()
    assert scene["current"]["thumbnail_url"] == address
    path = address.removeprefix(here.settings.push_url)
    # made, then read
    for _ in range(2):
        picture = await here.http.get(path)
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
        assert picture.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert picture.headers["content-length"] == str(len(picture.content))
        assert Image.open(io.BytesIO(picture.content)).size == (480, 270)
    etag = picture.headers["etag"]
    assert etag != (await here.http.get(status["image_url"].removeprefix(here.settings.push_url))).headers["etag"]
    assert (await here.http.get(path, headers={"If-None-Match": etag})).status_code == 304
    record, signature = status["record_id"], path.rpartition("/")[2].removesuffix(".webp")
    for wrong in (
        path.replace(".webp", ".png"),
        path.replace(signature, "A" * 24),
        path.replace(record, str(uuid4())),
        path.replace(record, "seven"),
    ):
        problem(await here.http.get(wrong), 404, "not_found")


async def test_a_broken_picture_has_no_thumbnail_and_harms_nobody(here: House, user: UUID, chapter: UUID) -> None:
    status = await completed_with(here, user, chapter, PICTURE, "png")
    path = status["thumbnail_url"].removeprefix(here.settings.push_url)
    for _ in range(2):
        problem(await here.http.get(path), 404, "no_thumbnail")
    assert (await here.http.get("/healthz")).status_code == 200


async def test_a_picture_of_a_kind_that_cannot_be_opened_here_is_shown_itself(
    database_url: str, kafka_servers: str, namespace: str, tmp_path: Path, user: UUID, chapter: UUID
) -> None:
    async with house(settings_for(database_url, kafka_servers, namespace, tmp_path), can_open={"png"}) as here:
        status = await completed_with(here, user, chapter, drawn("AVIF", (64, 36)), "avif")
        answer = await here.http.get(status["thumbnail_url"].removeprefix(here.settings.push_url))
        assert (answer.status_code, answer.headers["location"]) == (307, status["image_url"])
        # another notifier may have the decoder
        assert "immutable" not in answer.headers["cache-control"]
