"""The accepting process around its one endpoint: CORS, health, description, and Postgres away."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import httpx
import pytest

from local.postgres import Postgres
from tests.flow.accepting import API, BODY, CHAPTER, PUSH, bearer, client_of, path_of, problem_of, settings_of

pytestmark = [pytest.mark.flow, pytest.mark.connected]

T = TypeVar("T")


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(settings_of(database_url)) as client:
        yield client


async def test_pages_of_the_own_origins_may_call_and_read_errors(client: httpx.AsyncClient, user: UUID) -> None:
    for origin, wanted in ((PUSH, PUSH), (API, API), ("https://evil.test", None)):
        for headers in ({}, bearer(user)):
            response = await client.post(path_of(), json=BODY, headers={"Origin": origin, **headers})
            assert response.headers.get("access-control-allow-origin") == wanted
            assert "access-control-allow-credentials" not in response.headers
            assert "Origin" in response.headers["vary"]
            if wanted:
                exposed = response.headers["access-control-expose-headers"]
                assert exposed == "ETag, Location, Retry-After, Preference-Applied"


async def test_a_preflight_is_answered_without_a_token(client: httpx.AsyncClient) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    allowed = await client.options(path_of(), headers={"Origin": PUSH, **asked})
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-origin"] == PUSH
    assert "POST" in allowed.headers["access-control-allow-methods"]
    names = allowed.headers["access-control-allow-headers"].lower().split(", ")
    assert {"authorization", "content-type", "idempotency-key", "traceparent", "prefer"} <= set(names)
    refused = await client.options(path_of(), headers={"Origin": "https://evil.test", **asked})
    problem_of(refused, 403, "origin_not_allowed")
    assert "access-control-allow-origin" not in refused.headers


async def test_health_readiness_and_metrics(client: httpx.AsyncClient, user: UUID) -> None:
    assert (await client.get("/healthz")).json()["status"] == "alive"
    ready = await client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["dependencies"]["postgres"]["status"] == "up"
    assert ready.json()["dependencies"]["postgres"]["since"]
    await client.post(path_of(), json=BODY, headers=bearer(user))
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


async def _within(seconds: float, ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` gives in less than so long; asked again where it took longer, for the machine may stand still."""
    for _ in range(3):
        started = time.monotonic()
        answer = await ask()
        if time.monotonic() - started < seconds:
            return answer
    raise AssertionError(f"three times it took more than {seconds:g} s")


async def test_postgres_away_is_503_at_once_and_said_by_readyz(tmp_path: Any, user: UUID) -> None:
    async with client_of(settings_of(f"postgresql://x@/x?host={tmp_path}", accept_timeout=2, retry_after=3)) as client:
        headers = {**bearer(user), "Origin": PUSH}
        response = await _within(2.5, lambda: client.post(path_of(), json=BODY, headers=headers))
        problem_of(response, 503, "unavailable")
        assert response.headers["retry-after"] == "3"
        assert response.headers["access-control-allow-origin"] == PUSH
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["dependencies"]["postgres"]["status"] == "down"
        assert (await client.get("/healthz")).status_code == 200


async def test_a_postgres_that_hangs_is_503_within_the_limit_and_then_works_again(
    private_postgres: Postgres, user: UUID
) -> None:
    settings = settings_of(private_postgres.url(), accept_timeout=0.5, database_timeout=1)
    headers = {**bearer(user), "Idempotency-Key": "k"}
    async with client_of(settings) as client:
        # half a second is not much for the first of all, nor for the first after a pause
        await _accepted(client, bearer(user))
        private_postgres.pause()
        try:
            answers = await _within(
                2, lambda: asyncio.gather(*(client.post(path_of(), json=BODY, headers=headers) for _ in range(5)))
            )
        finally:
            private_postgres.resume()
        for response in answers:
            problem_of(response, 503, "unavailable")
        await _accepted(client, headers)


async def _accepted(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    async with asyncio.timeout(30):
        while (response := await client.post(path_of(), json=BODY, headers=headers)).status_code == 503:
            pass
    assert response.status_code == 202
