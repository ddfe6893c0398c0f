"""One user who asks a running notifier over HTTP."""

import asyncio
from uuid import UUID

import httpx

from tests.flow.pushing import PATIENCE, House


class Caller:
    """One user, who asks."""

    def __init__(self, here: House, user: UUID) -> None:
        self._here = here
        self._bearer = here.bearer(user)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._here.http.get(path, headers={**self._bearer, **named})

    async def held(self, path: str, **headers: str) -> "asyncio.Task[httpx.Response]":
        """A poll that has been registered."""
        before = len(self._here.notifier.polls)
        poll = asyncio.create_task(self.get(path, **headers))
        async with asyncio.timeout(PATIENCE):
            while len(self._here.notifier.polls) == before and not poll.done():
                # asks something, so that the loop turns
                await self._here.http.get("/healthz")
        return poll


def status_path(chapter: UUID, scene: int = 1) -> str:
    return f"/chapters/{chapter}/images/scenes/{scene}/status"


def problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == code
