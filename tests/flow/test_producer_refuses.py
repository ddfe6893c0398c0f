"""The accepting process through its own `build`: every refusal, by field and by code."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.flow.accepting import BODY, CHAPTER, bearer, client_of, fields_of, path_of, problem_of, settings_of

pytestmark = pytest.mark.flow


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    # nothing here may get as far as Postgres: where it did, the answer would be 503
    async with client_of(settings_of("postgresql://x@/x?host=/nowhere")) as client:
        yield client


@pytest.mark.parametrize("key", ["", "x" * 201, "tab\there"])
async def test_a_key_must_be_printable_and_short(client: httpx.AsyncClient, user: UUID, key: str) -> None:
    headers = {**bearer(user), "Idempotency-Key": key}
    assert fields_of(await client.post(path_of(), json=BODY, headers=headers)) == ["Idempotency-Key"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (path_of(0), "scene_number"),
        (path_of(-1), "scene_number"),
        (path_of(2_147_483_648), "scene_number"),
        (path_of("9" * 40), "scene_number"),
        (path_of("1.0"), "scene_number"),
        (path_of("%D9%A1"), "scene_number"),
        (path_of(chapter="seven"), "chapter_id"),
        (path_of(chapter="%7B" + CHAPTER + "%7D"), "chapter_id"),
        (path_of(chapter="%00"), "chapter_id"),
    ],
)
async def test_the_path_is_checked_by_field(client: httpx.AsyncClient, user: UUID, path: str, field: str) -> None:
    assert fields_of(await client.post(path, json=BODY, headers=bearer(user))) == [field]


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
    assert fields_of(await client.post(path_of(), json={**BODY, **change}, headers=bearer(user))) == [field]


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
    assert len(fields_of(await client.post(path_of(), content=content, headers=bearer(user)))) == 1


async def test_a_thousand_faults_make_a_short_answer(client: httpx.AsyncClient, user: UUID) -> None:
    body = {f"{'x' * 20}{number}": 1 for number in range(1_000)}
    response = await client.post(path_of(), json=body, headers=bearer(user))
    assert len(fields_of(response)) == 20
    assert len(response.content) < 10_000


async def test_who_calls_must_be_known_before_anything_is_checked(client: httpx.AsyncClient) -> None:
    nobody = await client.post(path_of("x"), content=b"{")
    problem_of(nobody, 401, "token_missing")
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    problem_of(await client.post(path_of(), json=BODY, headers=bearer("auth0|7")), 401, "subject_not_uuid")
    problem_of(await client.post(path_of(), json=BODY, headers={"Authorization": "Bearer x.y.z"}), 401, "token_invalid")
    problem_of(await client.post(path_of(), json=BODY, headers=bearer(uuid4(), exp=1)), 401, "token_expired")


async def test_unknown_addresses_and_methods_are_problems_too(client: httpx.AsyncClient) -> None:
    for path in ("/", "/chapters", path_of() + "/", "/%00", "/chapters//images/scenes/1"):
        problem_of(await client.post(path, json=BODY), 404, "not_found")
    refused = await client.get(path_of())
    problem_of(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"
