"""The accepting process through its own `build`, on real Postgres: what is accepted, once."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from storage.database import Database
from storage.settings import DatabaseSettings
from tests.flow.accepting import BODY, CHAPTER, PUSH, TRACEPARENT, bearer, client_of, path_of, problem_of, settings_of

pytestmark = [pytest.mark.flow, pytest.mark.connected]


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(settings_of(database_url)) as client:
        yield client


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(DatabaseSettings(database_url=database_url), application="test")
    await database.open()
    yield database
    await database.close()


async def test_a_request_is_on_record_when_it_is_answered(
    client: httpx.AsyncClient, database: Database, user: UUID
) -> None:
    script = uuid4()
    body = {
        **BODY,
        "scene_description": "  A long table  ",
        "style": "fantasy",
        "aspect_ratio": "portrait",
        "custom_prompt": "soft light",
        "script_id": str(script),
        "character_ids": ["alice", "hatter"],
        "character_image_urls": ["https://cdn.test/alice.png"],
    }
    headers = {**bearer(user, user_tier="premium"), "traceparent": TRACEPARENT}
    response = await client.post(path_of(7), json=body, headers=headers)
    assert response.status_code == 202
    answer = response.json()
    status_url = f"{PUSH}/chapters/{CHAPTER}/images/scenes/7/status"
    assert response.headers["location"] == answer["status_url"] == status_url
    assert answer["events_url"] == f"{PUSH}/chapters/{CHAPTER}/events"
    assert answer["task_id"] == answer["record_id"]
    assert (answer["status"], answer["scene_number"], answer["retry_count"]) == ("queued", 7, 0)
    assert answer["message"]
    assert answer["estimated_time_seconds"] > 0
    assert "idempotency-replayed" not in response.headers
    (row,) = await database.fetch("SELECT * FROM image_generations")
    assert str(row.id) == answer["record_id"]
    assert (row.user_id, str(row.chapter_id), row.script_id, row.scene_number) == (user, CHAPTER, script, 7)
    assert (row.scene_description, row.style, row.aspect_ratio) == ("A long table", "fantasy", "3:4")
    assert (row.status, row.stage, row.version, row.lane, row.user_tier) == (
        "pending",
        "queued",
        1,
        "interactive",
        "premium",
    )
    assert row.traceparent == TRACEPARENT
    metadata = json.loads(row.metadata)
    assert metadata["character_ids"] == ["alice", "hatter"]
    assert metadata["character_image_urls"] == ["https://cdn.test/alice.png"]
    events = await database.fetch("SELECT topic FROM outbox ORDER BY topic")
    assert [event.topic for event in events] == ["scene-images.requested.interactive.v1", "scene-images.status.v1"]


async def test_what_is_left_out_gets_its_default(client: httpx.AsyncClient, database: Database, user: UUID) -> None:
    response = await client.post(path_of(), json={**BODY, "custom_prompt": None}, headers=bearer(user))
    assert response.status_code == 202
    (row,) = await database.fetch("SELECT * FROM image_generations")
    assert (row.style, row.aspect_ratio, row.custom_prompt, row.lane) == ("cinematic", "16:9", None, "standard")
    assert row.traceparent.startswith("00-")


async def test_without_a_key_each_call_is_a_new_request(
    client: httpx.AsyncClient, database: Database, user: UUID
) -> None:
    answers = [(await client.post(path_of(), json=BODY, headers=bearer(user))).json() for _ in range(2)]
    assert answers[0]["record_id"] != answers[1]["record_id"]
    assert len(await database.fetch("SELECT id FROM image_generations")) == 2


async def test_one_key_twenty_times_at_once_is_one_record(
    client: httpx.AsyncClient, database: Database, user: UUID
) -> None:
    headers = {**bearer(user), "Idempotency-Key": "chapter 7, scene 1"}
    answers = await asyncio.gather(*(client.post(path_of(), json=BODY, headers=headers) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count("true") == 19
    assert len(await database.fetch("SELECT id FROM image_generations")) == 1
    assert len(await database.fetch("SELECT id FROM outbox")) == 2


async def test_a_replay_is_of_the_meaning_not_of_the_bytes(client: httpx.AsyncClient, user: UUID) -> None:
    headers = {**bearer(user), "Idempotency-Key": "k"}
    first = await client.post(path_of(), json={**BODY, "aspect_ratio": "widescreen"}, headers=headers)
    spelled_out = {"aspect_ratio": "16:9", "style": "cinematic", "custom_prompt": None, **BODY}
    again = await client.post(path_of("0001"), content=json.dumps(spelled_out, indent=3), headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]


async def test_a_key_for_another_body_or_path_is_refused(
    client: httpx.AsyncClient, database: Database, user: UUID
) -> None:
    headers = {**bearer(user), "Idempotency-Key": "k"}
    assert (await client.post(path_of(), json=BODY, headers=headers)).status_code == 202
    others = [
        client.post(path_of(), json={**BODY, "style": "animated"}, headers=headers),
        client.post(path_of(2), json=BODY, headers=headers),
        client.post(path_of(chapter=uuid4()), json=BODY, headers=headers),
    ]
    for response in await asyncio.gather(*others):
        problem = problem_of(response, 422, "idempotency_key_reused")
        assert problem["errors"][0]["field"] == "Idempotency-Key"
    assert len(await database.fetch("SELECT id FROM image_generations")) == 1


async def test_two_users_may_choose_the_same_key(client: httpx.AsyncClient, database: Database) -> None:
    for someone in (uuid4(), uuid4()):
        headers = {**bearer(someone), "Idempotency-Key": "k"}
        response = await client.post(path_of(), json=BODY, headers=headers)
        assert response.status_code == 202
        assert "idempotency-replayed" not in response.headers
    assert len(await database.fetch("SELECT id FROM image_generations")) == 2


async def test_a_key_of_200_characters_is_fine(client: httpx.AsyncClient, user: UUID) -> None:
    headers = {**bearer(user), "Idempotency-Key": "~" * 200}
    assert (await client.post(path_of(), json=BODY, headers=headers)).status_code == 202


async def test_the_largest_scene_number_is_stored(client: httpx.AsyncClient, user: UUID) -> None:
    assert (await client.post(path_of(2_147_483_647), json=BODY, headers=bearer(user))).status_code == 202


async def test_every_printable_character_arrives(client: httpx.AsyncClient, database: Database, user: UUID) -> None:
    text = "“Take some more tea” 🫖 — Ȧlïçé; DROP TABLE x; 茶 $1 %s"
    assert (await client.post(path_of(), json={"scene_description": text}, headers=bearer(user))).status_code == 202
    (row,) = await database.fetch("SELECT scene_description FROM image_generations")
    assert row.scene_description == text


async def test_the_body_ends_at_64_kb(client: httpx.AsyncClient, user: UUID) -> None:
    def padded(size: int) -> bytes:
        content = json.dumps(BODY).encode()
        return content + b" " * (size - len(content))

    async def streamed(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 1_000):
            yield content[start : start + 1_000]

    for content in (padded(65_536), streamed(padded(65_536))):
        assert (await client.post(path_of(), content=content, headers=bearer(user))).status_code == 202
    for content in (padded(65_537), streamed(padded(65_537))):
        problem_of(await client.post(path_of(), content=content, headers=bearer(user)), 413, "body_too_large")


async def test_a_body_that_is_clearly_not_json_is_415(client: httpx.AsyncClient, user: UUID) -> None:
    content = json.dumps(BODY)
    for kind in ("image/png", "application/xml", "multipart/form-data; boundary=x"):
        response = await client.post(path_of(), content=content, headers={**bearer(user), "Content-Type": kind})
        problem_of(response, 415, "not_json")
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/x-www-form-urlencoded"):
        response = await client.post(path_of(), content=content, headers={**bearer(user), "Content-Type": kind})
        assert response.status_code == 202


async def test_a_kept_foreign_key_is_the_callers_422_and_fails_nobody_else(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    known = uuid4()
    try:
        await connection.execute("CREATE TABLE chapters (id uuid PRIMARY KEY)")
        await connection.execute("INSERT INTO chapters VALUES ($1)", known)
        await connection.execute(
            "ALTER TABLE image_generations ADD CONSTRAINT which FOREIGN KEY (chapter_id) REFERENCES chapters"
        )
    finally:
        await connection.close()
    user = uuid4()
    async with client_of(settings_of(database_url)) as client:
        good, bad = await asyncio.gather(
            client.post(path_of(chapter=known), json=BODY, headers=bearer(user)),
            client.post(path_of(chapter=uuid4()), json=BODY, headers=bearer(user)),
        )
    assert good.status_code == 202
    problem = problem_of(bad, 422, "invalid")
    assert [error["field"] for error in problem["errors"]] == ["chapter_id"]
