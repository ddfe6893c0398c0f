"""Statuses, chapters and pictures over HTTP: plain and conditional."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from notifier.studio import FOLDER
from schemas.statuses import ChapterImages, ImageStatus, SceneStatus
from tests.flow.asking import Caller, problem, status_path
from tests.flow.pushing import House, house, settings_for

pytestmark = [pytest.mark.flow, pytest.mark.connected]


async def test_a_scenes_status_and_its_tags(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    path = status_path(chapter)
    problem(await caller.get(path), 404, "not_found")
    first = await here.accept(user, chapter)
    waiting = await caller.get(path)
    SceneStatus.model_validate(waiting.json())
    assert waiting.json()["current"] is None
    assert waiting.headers["etag"] == f'W/"{first}.1-"'
    await here.change(first, status="in_progress", stage="generating")
    working = await caller.get(path)
    assert working.headers["etag"] == f'"{first}.2-"'
    await here.complete(first, "http://pictures.test/1.png")
    done = await caller.get(path)
    assert done.json()["current"] == {
        "record_id": str(first),
        "image_url": "http://pictures.test/1.png",
        # there is none of a picture that does not lie with us
        "thumbnail_url": None,
    }
    assert done.headers["etag"] == f'"{first}.3-{first}"'
    # a newer request does not hide the picture there is
    second = await here.accept(user, chapter)
    newer = await caller.get(path)
    assert newer.json()["record_id"] == str(second)
    assert newer.json()["current"]["record_id"] == str(first)
    assert newer.headers["etag"] == f'W/"{second}.1-{first}"'
    await here.change(second, status="failed", stage="done", error_class="content")
    failed = await caller.get(path)
    assert failed.json()["status"] == "failed"
    assert failed.json()["current"]["record_id"] == str(first)


async def test_a_known_tag_is_304(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    record = await here.accept(user, chapter)
    for path in (status_path(chapter), f"/images/{record}", f"/chapters/{chapter}/images"):
        etag = (await caller.get(path)).headers["etag"]
        for named in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
            known = await caller.get(path, If_None_Match=named)
            assert (known.status_code, known.content) == (304, b"")
            assert known.headers["etag"] == etag
            assert "Authorization" in ", ".join(known.headers.get_list("vary"))
        assert (await caller.get(path, If_None_Match='"other"')).status_code == 200
        assert "preference-applied" not in (await caller.get(path)).headers


async def test_an_unknown_scene_is_404_at_once(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    problem(await caller.get(status_path(chapter), Prefer="wait=60"), 404, "not_found")
    problem(await caller.get(f"/images/{uuid4()}", Prefer="wait=60"), 404, "not_found")


async def test_a_chapters_images(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    path = f"/chapters/{chapter}/images"
    empty = (await caller.get(path)).json()
    assert (empty["images"], empty["resumed"]) == ([], None)
    older = await here.accept(user, chapter, 2)
    done = await here.accept(user, chapter, 2)
    latest = await here.accept(user, chapter, 2)
    first = await here.accept(user, chapter, 1)
    await here.complete(older)
    await here.complete(done)
    await here.caught_up()
    listed = await caller.get(path)
    found = ChapterImages.model_validate(listed.json())
    assert [image.record_id for image in found.images] == [first, done, latest]
    missed = (await caller.get(f"{path}?cursor={found.cursor}")).json()
    assert (missed["images"], missed["resumed"]) == ([], "memory")
    assert (await caller.get(f"{path}?cursor=forged")).json()["resumed"] == "snapshot"


async def test_a_stranger_gets_nothing(here: House, user: UUID, chapter: UUID) -> None:
    stranger = Caller(here, uuid4())
    record = await here.accept(user, chapter)
    problem(await stranger.get(status_path(chapter)), 404, "not_found")
    problem(await stranger.get(f"/images/{record}"), 404, "not_found")
    problem(await stranger.get(f"/images/{record}/file"), 404, "not_found")
    assert (await stranger.get(f"/chapters/{chapter}/images")).json()["images"] == []
    for path in (status_path(chapter), f"/images/{record}", f"/chapters/{chapter}/images", f"/images/{record}/file"):
        unknown = await here.http.get(path)
        problem(unknown, 401, "token_missing")
        assert "www-authenticate" in unknown.headers


async def test_paths_are_checked(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    problem(await caller.get("/chapters/seven/images"), 422, "invalid")
    problem(await caller.get("/images/seven"), 422, "invalid")
    for scene in ("0", "-1", "2147483648", "one"):
        problem(await caller.get(f"/chapters/{chapter}/images/scenes/{scene}/status"), 422, "invalid")
    problem(await caller.get("/nothing/here"), 404, "not_found")


async def test_rows_of_the_old_system_are_found(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    place = {"chapter_id": str(chapter), "scene_number": 4}
    records = {}
    for name, metadata, columns in (
        ("in metadata", place, {}),
        ("as text", {**place, "scene_number": "5"}, {}),
        ("in part", {"scene_number": 6}, {"chapter_id": chapter}),
    ):
        records[name] = uuid4()
        await here.database.fetch(
            """INSERT INTO image_generations (id, user_id, chapter_id, status, image_url, metadata)
            VALUES ($1, $2, $3, 'completed', 'https://old.test/a.png', $4::jsonb)""",
            records[name],
            user,
            columns.get("chapter_id"),
            json.dumps(metadata),
        )
    for scene, name in ((4, "in metadata"), (5, "as text"), (6, "in part")):
        found = SceneStatus.model_validate((await caller.get(status_path(chapter, scene))).json())
        assert (found.record_id, found.version) == (records[name], 0)
        assert (found.chapter_id, found.scene_number) == (chapter, scene)
        assert found.current is not None
        assert found.current.image_url == "https://old.test/a.png"
    listed = (await caller.get(f"/chapters/{chapter}/images")).json()["images"]
    assert [image["record_id"] for image in listed] == [str(record) for record in records.values()]
    redirect = await caller.get(f"/images/{records['as text']}/file")
    assert (redirect.status_code, redirect.headers["location"]) == (307, "https://old.test/a.png")
    stranger = Caller(here, uuid4())
    problem(await stranger.get(status_path(chapter, 4)), 404, "not_found")


async def test_an_old_row_that_changes_is_never_hidden_by_its_tag(here: House, user: UUID, chapter: UUID) -> None:
    caller, record, path = Caller(here, user), uuid4(), status_path(chapter)
    await here.database.fetch(
        """INSERT INTO image_generations (id, user_id, chapter_id, scene_number, status)
        VALUES ($1, $2, $3, 1, 'pending')""",
        record,
        user,
        chapter,
    )
    etag = (await caller.get(path)).headers["etag"]
    assert etag.startswith("W/")
    for status, expected in (("in_progress", 200), ("failed", 200)):
        await here.database.fetch("UPDATE image_generations SET status = $2 WHERE id = $1", record, status)
        answer = await caller.get(path, If_None_Match=etag)
        assert (answer.status_code, answer.json()["status"]) == (expected, status)
    ended = (await caller.get(path)).headers["etag"]
    assert (await caller.get(path, If_None_Match=ended)).status_code == 304


async def test_polls_frames_and_events_are_the_same_json_but_for_what_is_computed_when_read(
    here: House, user: UUID, chapter: UUID
) -> None:
    caller = Caller(here, user)
    record = await here.accept(user, chapter)
    async with here.client(user) as client:
        await client.watch(chapter_id=chapter)
        await here.change(record, status="failed", error_class="content", error_message="A word is not allowed.")
        framed = (await client.next("status"))["image"]
        ImageStatus.model_validate(framed)
        # nothing was sent for it; events do not know
        assert framed.pop("cost_usd", "absent") is None
        framed["cost_usd"] = 0
        by_record: dict[str, Any] = (await caller.get(f"/images/{record}")).json()
        by_scene = (await caller.get(status_path(chapter))).json()
        del by_scene["current"]
        assert framed == by_record == by_scene
        assert (await caller.get(f"/chapters/{chapter}/images")).json()["images"] == [framed]


async def test_the_page_its_configuration_and_the_papers(here: House) -> None:
    page = await here.http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert here.settings.api_url in policy
    assert here.settings.push_url.replace("http", "ws", 1) in policy
    config = await here.http.get("/studio/config.json")
    assert config.json() == {
        "api_url": here.settings.api_url,
        "push_url": here.settings.push_url,
        "chapter_id": None,
        "simulator_url": None,
    }
    assert config.headers["cache-control"] == "no-store"
    script = sorted(FOLDER.glob("*.js"))[0].name
    file = await here.http.get(f"/studio/{script}")
    assert file.headers["cache-control"] == "no-cache"
    assert (
        await here.http.get(f"/studio/{script}", headers={"If-None-Match": file.headers["etag"]})
    ).status_code == 304
    problem(await here.http.get("/studio/nothing.js"), 404, "not_found")
    problem(await here.http.get("/studio/..%2f..%2fpyproject.toml"), 404, "not_found")
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert (await here.http.get(path)).status_code == 200
    ready = (await here.http.get("/readyz")).json()
    assert set(ready["dependencies"]) == {"postgres", "kafka", "pictures"}
    assert "/images/{record_id}" in (await here.http.get("/openapi.json")).json()["paths"]


async def test_a_token_is_given_to_the_page_only_where_it_is_set(
    database_url: str, kafka_servers: str, namespace: str, tmp_path: Path, chapter: UUID
) -> None:
    changes = {
        "studio_token": "a.b.c",
        "studio_chapter_id": str(chapter),
        "studio_simulator_url": "http://127.0.0.1:8703/",
    }
    async with house(settings_for(database_url, kafka_servers, namespace, tmp_path, **changes)) as here:
        config = (await here.http.get("/studio/config.json")).json()
        assert (config["token"], config["chapter_id"]) == ("a.b.c", str(chapter))
        assert config["simulator_url"] == "http://127.0.0.1:8703"
        assert " http://127.0.0.1:8703;" in (await here.http.get("/")).headers["content-security-policy"]


async def test_pages_of_allowed_origins_may_read_errors(here: House, user: UUID) -> None:
    origin = here.settings.api_url
    refused = await here.http.get(f"/images/{uuid4()}", headers={"Origin": origin})
    assert refused.headers["access-control-allow-origin"] == origin
    assert "Preference-Applied" in refused.headers["access-control-expose-headers"]
