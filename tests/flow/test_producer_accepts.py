"""The accepting process through its own `build`, on real Postgres."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from local.postgres import Postgres
from producer.app import build
from producer.settings import ProducerSettings
from storage.database import Database
from storage.settings import DatabaseSettings

pytestmark = [pytest.mark.flow, pytest.mark.connected]

SECRET = "0123456789abcdef0123456789abcdef"
CHAPTER = "5b0f6c1e-2d3a-4b58-8e0f-2a7c5d9e1f30"
BODY: dict[str, Any] = {"scene_description": "A long table under a tree in front of the house"}
API, PUSH = "https://api.scenewire.test", "https://push.scenewire.test"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def _settings(database_url: str, **changes: Any) -> ProducerSettings:
    given = {"database_url": database_url, "jwt_secret": SECRET, "api_url": API, "push_url": f"{PUSH}/", **changes}
    return ProducerSettings.model_validate(given)


def _bearer(user: UUID | str, **claims: Any) -> dict[str, str]:
    token = jwt.encode({"sub": str(user), "exp": int(time.time()) + 600, **claims}, SECRET, algorithm="HS256")
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def _client(settings: ProducerSettings) -> AsyncIterator[httpx.AsyncClient]:
    app = build(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=API) as client:
            yield client


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with _client(_settings(database_url)) as client:
        yield client


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(DatabaseSettings(database_url=database_url), application="test")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def user() -> UUID:
    return uuid4()


def _path(scene: object = 1, chapter: object = CHAPTER) -> str:
    return f"/chapters/{chapter}/images/scenes/{scene}"


def _problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    assert (problem["status"], problem["code"]) == (status, code)
    return problem


def _fields(response: httpx.Response) -> list[str]:
    return [error["field"] for error in _problem(response, 422, "invalid")["errors"]]


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
    headers = {**_bearer(user, user_tier="premium"), "traceparent": TRACEPARENT}
    response = await client.post(_path(7), json=body, headers=headers)
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
    response = await client.post(_path(), json={**BODY, "custom_prompt": None}, headers=_bearer(user))
    assert response.status_code == 202
    (row,) = await database.fetch("SELECT * FROM image_generations")
    assert (row.style, row.aspect_ratio, row.custom_prompt, row.lane) == ("cinematic", "16:9", None, "standard")
    assert row.traceparent.startswith("00-")


async def test_without_a_key_each_call_is_a_new_request(
    client: httpx.AsyncClient, database: Database, user: UUID
) -> None:
    answers = [(await client.post(_path(), json=BODY, headers=_bearer(user))).json() for _ in range(2)]
    assert answers[0]["record_id"] != answers[1]["record_id"]
    assert len(await database.fetch("SELECT id FROM image_generations")) == 2


async def test_one_key_twenty_times_at_once_is_one_record(
    client: httpx.AsyncClient, database: Database, user: UUID
) -> None:
    headers = {**_bearer(user), "Idempotency-Key": "chapter 7, scene 1"}
    answers = await asyncio.gather(*(client.post(_path(), json=BODY, headers=headers) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count("true") == 19
    assert len(await database.fetch("SELECT id FROM image_generations")) == 1
    assert len(await database.fetch("SELECT id FROM outbox")) == 2


async def test_a_replay_is_of_the_meaning_not_of_the_bytes(client: httpx.AsyncClient, user: UUID) -> None:
    headers = {**_bearer(user), "Idempotency-Key": "k"}
    first = await client.post(_path(), json={**BODY, "aspect_ratio": "widescreen"}, headers=headers)
    spelled_out = {"aspect_ratio": "16:9", "style": "cinematic", "custom_prompt": None, **BODY}
    again = await client.post(_path("0001"), content=json.dumps(spelled_out, indent=3), headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]


async def test_a_key_for_another_body_or_path_is_refused(
    client: httpx.AsyncClient, database: Database, user: UUID
) -> None:
    headers = {**_bearer(user), "Idempotency-Key": "k"}
    assert (await client.post(_path(), json=BODY, headers=headers)).status_code == 202
    others = [
        client.post(_path(), json={**BODY, "style": "animated"}, headers=headers),
        client.post(_path(2), json=BODY, headers=headers),
        client.post(_path(chapter=uuid4()), json=BODY, headers=headers),
    ]
    for response in await asyncio.gather(*others):
        problem = _problem(response, 422, "idempotency_key_reused")
        assert problem["errors"][0]["field"] == "Idempotency-Key"
    assert len(await database.fetch("SELECT id FROM image_generations")) == 1


async def test_two_users_may_choose_the_same_key(client: httpx.AsyncClient, database: Database) -> None:
    for someone in (uuid4(), uuid4()):
        headers = {**_bearer(someone), "Idempotency-Key": "k"}
        response = await client.post(_path(), json=BODY, headers=headers)
        assert response.status_code == 202
        assert "idempotency-replayed" not in response.headers
    assert len(await database.fetch("SELECT id FROM image_generations")) == 2


@pytest.mark.parametrize("key", ["", "x" * 201, "tab\there"])
async def test_a_key_must_be_printable_and_short(client: httpx.AsyncClient, user: UUID, key: str) -> None:
    headers = {**_bearer(user), "Idempotency-Key": key}
    assert _fields(await client.post(_path(), json=BODY, headers=headers)) == ["Idempotency-Key"]


async def test_a_key_of_200_characters_is_fine(client: httpx.AsyncClient, user: UUID) -> None:
    headers = {**_bearer(user), "Idempotency-Key": "~" * 200}
    assert (await client.post(_path(), json=BODY, headers=headers)).status_code == 202


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (_path(0), "scene_number"),
        (_path(-1), "scene_number"),
        (_path(2_147_483_648), "scene_number"),
        (_path("9" * 40), "scene_number"),
        (_path("1.0"), "scene_number"),
        (_path("%D9%A1"), "scene_number"),
        (_path(chapter="seven"), "chapter_id"),
        (_path(chapter="%7B" + CHAPTER + "%7D"), "chapter_id"),
        (_path(chapter="%00"), "chapter_id"),
    ],
)
async def test_the_path_is_checked_by_field(client: httpx.AsyncClient, user: UUID, path: str, field: str) -> None:
    assert _fields(await client.post(path, json=BODY, headers=_bearer(user))) == [field]


async def test_the_largest_scene_number_is_stored(client: httpx.AsyncClient, user: UUID) -> None:
    assert (await client.post(_path(2_147_483_647), json=BODY, headers=_bearer(user))).status_code == 202


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scene_description": None}, "scene_description"),
        ({"scene_description": "   "}, "scene_description"),
        ({"scene_description": 7}, "scene_description"),
        ({"scene_description": "x" * 4_001}, "scene_description"),
        ({"scene_description": "a\x00b"}, "scene_description"),
        ({"custom_prompt": "a\x00b"}, "custom_prompt"),
        ({"custom_prompt": "x" * 2_001}, "custom_prompt"),
        ({"style": "noir"}, "style"),
        ({"aspect_ratio": "5:4"}, "aspect_ratio"),
        ({"aspect_ratio": ["1:1"]}, "aspect_ratio"),
        ({"script_id": "seven"}, "script_id"),
        ({"character_ids": "alice"}, "character_ids"),
        ({"character_ids": ["a", "b\x00"]}, "character_ids.1"),
        ({"scene": 1}, "scene"),
        ({"user_id": str(uuid4())}, "user_id"),
    ],
)
async def test_the_body_is_checked_by_field(
    client: httpx.AsyncClient, user: UUID, change: dict[str, Any], field: str
) -> None:
    assert _fields(await client.post(_path(), json={**BODY, **change}, headers=_bearer(user))) == [field]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"scene_description": "\\ud800"}',
        b'{"scene_description": "\xed\xa0\x80"}',
        b"[" * 10_000,
        b'{"scene_description": 1e999}',
    ],
)
async def test_what_is_no_request_in_json_is_422(client: httpx.AsyncClient, user: UUID, content: bytes) -> None:
    assert len(_fields(await client.post(_path(), content=content, headers=_bearer(user)))) == 1


async def test_a_thousand_faults_make_a_short_answer(client: httpx.AsyncClient, user: UUID) -> None:
    body = {f"{'x' * 20}{number}": 1 for number in range(1_000)}
    response = await client.post(_path(), json=body, headers=_bearer(user))
    assert len(_fields(response)) == 20
    assert len(response.content) < 10_000


async def test_every_printable_character_arrives(client: httpx.AsyncClient, database: Database, user: UUID) -> None:
    text = "“Take some more tea” 🫖 — Ȧlïçé; DROP TABLE x; 茶 $1 %s"
    assert (await client.post(_path(), json={"scene_description": text}, headers=_bearer(user))).status_code == 202
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
        assert (await client.post(_path(), content=content, headers=_bearer(user))).status_code == 202
    for content in (padded(65_537), streamed(padded(65_537))):
        _problem(await client.post(_path(), content=content, headers=_bearer(user)), 413, "body_too_large")


async def test_a_body_that_is_clearly_not_json_is_415(client: httpx.AsyncClient, user: UUID) -> None:
    content = json.dumps(BODY)
    for kind in ("image/png", "application/xml", "multipart/form-data; boundary=x"):
        response = await client.post(_path(), content=content, headers={**_bearer(user), "Content-Type": kind})
        _problem(response, 415, "not_json")
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/x-www-form-urlencoded"):
        response = await client.post(_path(), content=content, headers={**_bearer(user), "Content-Type": kind})
        assert response.status_code == 202


async def test_who_calls_must_be_known_before_anything_is_checked(client: httpx.AsyncClient) -> None:
    nobody = await client.post(_path("x"), content=b"{")
    _problem(nobody, 401, "token_missing")
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    _problem(await client.post(_path(), json=BODY, headers=_bearer("auth0|7")), 401, "subject_not_uuid")
    _problem(await client.post(_path(), json=BODY, headers={"Authorization": "Bearer x.y.z"}), 401, "token_invalid")
    _problem(await client.post(_path(), json=BODY, headers=_bearer(uuid4(), exp=1)), 401, "token_expired")


async def test_unknown_addresses_and_methods_are_problems_too(client: httpx.AsyncClient) -> None:
    for path in ("/", "/chapters", _path() + "/", "/%00", "/chapters//images/scenes/1"):
        _problem(await client.post(path, json=BODY), 404, "not_found")
    refused = await client.get(_path())
    _problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"


async def test_pages_of_the_own_origins_may_call_and_read_errors(client: httpx.AsyncClient, user: UUID) -> None:
    for origin, wanted in ((PUSH, PUSH), (API, API), ("https://evil.test", None)):
        for headers in ({}, _bearer(user)):
            response = await client.post(_path(), json=BODY, headers={"Origin": origin, **headers})
            assert response.headers.get("access-control-allow-origin") == wanted
            assert "access-control-allow-credentials" not in response.headers
            assert "Origin" in response.headers["vary"]
            if wanted:
                exposed = response.headers["access-control-expose-headers"]
                assert exposed == "ETag, Location, Retry-After, Preference-Applied"


async def test_a_preflight_is_answered_without_a_token(client: httpx.AsyncClient) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    allowed = await client.options(_path(), headers={"Origin": PUSH, **asked})
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-origin"] == PUSH
    assert "POST" in allowed.headers["access-control-allow-methods"]
    names = allowed.headers["access-control-allow-headers"].lower().split(", ")
    assert {"authorization", "content-type", "idempotency-key", "traceparent", "prefer"} <= set(names)
    refused = await client.options(_path(), headers={"Origin": "https://evil.test", **asked})
    _problem(refused, 403, "origin_not_allowed")
    assert "access-control-allow-origin" not in refused.headers


async def test_health_readiness_and_metrics(client: httpx.AsyncClient, user: UUID) -> None:
    assert (await client.get("/healthz")).json()["status"] == "alive"
    ready = await client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["dependencies"]["postgres"]["status"] == "up"
    assert ready.json()["dependencies"]["postgres"]["since"]
    await client.post(_path(), json=BODY, headers=_bearer(user))
    shown = (await client.get("/metrics")).text
    assert 'scenewire_accepted_total{lane="standard"}' in shown
    assert 'route="/chapters/{chapter_id}/images/scenes/{scene_number}",status="202"' in shown
    assert CHAPTER not in shown


async def test_the_api_describes_itself(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert document["servers"] == [{"url": API}]
    post = document["paths"]["/chapters/{chapter_id}/images/scenes/{scene_number}"]["post"]
    assert {"202", "401", "413", "422", "503"} <= set(post["responses"])
    body = document["components"]["schemas"]["SceneImageRequest"]
    assert body["required"] == ["scene_description"]
    docs = await client.get("/docs")
    assert docs.headers["content-type"].startswith("text/html")
    assert "https://" not in docs.text


async def test_postgres_away_is_503_at_once_and_said_by_readyz(tmp_path: Any, user: UUID) -> None:
    async with _client(_settings(f"postgresql://x@/x?host={tmp_path}", accept_timeout=2, retry_after=3)) as client:
        started = time.monotonic()
        response = await client.post(_path(), json=BODY, headers={**_bearer(user), "Origin": PUSH})
        assert time.monotonic() - started < 2.5
        _problem(response, 503, "unavailable")
        assert response.headers["retry-after"] == "3"
        assert response.headers["access-control-allow-origin"] == PUSH
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["dependencies"]["postgres"]["status"] == "down"
        assert (await client.get("/healthz")).status_code == 200


async def test_a_postgres_that_hangs_is_503_within_the_limit_and_then_works_again(
    private_postgres: Postgres, user: UUID
) -> None:
    settings = _settings(private_postgres.url(), accept_timeout=0.5, database_timeout=1)
    headers = {**_bearer(user), "Idempotency-Key": "k"}
    async with _client(settings) as client:
        assert (await client.post(_path(), json=BODY, headers=_bearer(user))).status_code == 202
        private_postgres.pause()
        try:
            started = time.monotonic()
            answers = await asyncio.gather(*(client.post(_path(), json=BODY, headers=headers) for _ in range(5)))
            assert time.monotonic() - started < 2
        finally:
            private_postgres.resume()
        for response in answers:
            _problem(response, 503, "unavailable")
        async with asyncio.timeout(30):
            while response.status_code == 503:
                response = await client.post(_path(), json=BODY, headers=headers)
        assert response.status_code == 202
