"""How tests talk to the accepting process, built whole and called in this process."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import jwt

from producer.app import build
from producer.settings import ProducerSettings

SECRET = "0123456789abcdef0123456789abcdef"
CHAPTER = "5b0f6c1e-2d3a-4b58-8e0f-2a7c5d9e1f30"
BODY: dict[str, Any] = {"scene_description": "A long table under a tree in front of the house"}
API, PUSH = "https://api.scenewire.test", "https://push.scenewire.test"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def settings_of(database_url: str, **changes: Any) -> ProducerSettings:
    given = {"database_url": database_url, "jwt_secret": SECRET, "api_url": API, "push_url": f"{PUSH}/", **changes}
    return ProducerSettings.model_validate(given)


def bearer(user: UUID | str, **claims: Any) -> dict[str, str]:
    token = jwt.encode({"sub": str(user), "exp": int(time.time()) + 600, **claims}, SECRET, algorithm="HS256")
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def client_of(settings: ProducerSettings) -> AsyncIterator[httpx.AsyncClient]:
    app = build(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=API) as client:
            yield client


def path_of(scene: object = 1, chapter: object = CHAPTER) -> str:
    return f"/chapters/{chapter}/images/scenes/{scene}"


def problem_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    assert (problem["status"], problem["code"]) == (status, code)
    return problem


def fields_of(response: httpx.Response) -> list[str]:
    return [error["field"] for error in problem_of(response, 422, "invalid")["errors"]]
