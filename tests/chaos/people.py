"""Somebody who asks for scenes and looks at a page, and does not give up when a process is not there."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt

from tests.chaos.street import SECRET, Street
from tests.chaos.watching import Watcher, watching

PATIENCE = 90.0
"""Seconds; the machine may be busy with something else."""

_PAUSE_FIRST, _PAUSE_LONGEST = 0.05, 1.0
_LIFE_SECONDS = 6 * 3600


@dataclass
class Person:
    """One user: `accepted` are the records that were promised, by the text of their scene."""

    client: httpx.AsyncClient
    producers: Sequence[str]
    user_id: UUID
    token: str
    watcher: Watcher
    chapter: UUID = field(default_factory=uuid4)
    accepted: dict[UUID, str] = field(default_factory=dict)
    #: answers that were no 202, by status; 0 stands for no answer at all
    refused: dict[int, int] = field(default_factory=dict)
    _scene: int = 0

    async def asks(self, text: str, count: int = 1) -> list[UUID]:
        """`count` scenes of this text, side by side; each is asked for until it is accepted."""
        first, self._scene = self._scene + 1, self._scene + count
        asked = [self.ask(text, scene=first + n, key=str(uuid4())) for n in range(count)]
        async with asyncio.timeout(PATIENCE):
            return list(await asyncio.gather(*asked))

    async def ask(self, text: str, *, scene: int, key: str, chapter: UUID | None = None) -> UUID:
        """One scene, from one producer after the other, until one accepts it. The same key gives the same record."""
        # the next chapter may be opened before this one's request is accepted: the same key is for the same path
        chapter = chapter or self.chapter
        pause = _PAUSE_FIRST
        tries = 0
        while True:
            answer = await self.post(text, scene=scene, key=key, producer=tries, chapter=chapter)
            tries += 1
            if answer is not None and answer.status_code == 202:
                record_id = UUID(answer.json()["record_id"])
                self.accepted[record_id] = text
                return record_id
            assert answer is None or answer.status_code == 503, answer.text
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_LONGEST)

    async def post(
        self, text: str, *, scene: int, key: str, producer: int = 0, chapter: UUID | None = None
    ) -> httpx.Response | None:
        """One try; None without an answer."""
        url = self.producers[(scene + producer) % len(self.producers)]
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": key}
        answer: httpx.Response | None = None
        with suppress(httpx.TransportError):
            answer = await self.client.post(
                f"{url}/chapters/{chapter or self.chapter}/images/scenes/{scene}",
                json={"scene_description": text},
                headers=headers,
            )
        if answer is None or answer.status_code != 202:
            status = 0 if answer is None else answer.status_code
            self.refused[status] = self.refused.get(status, 0) + 1
        return answer


@asynccontextmanager
async def person(street: Street, tier: str = "standard", *, notifiers: Sequence[str] = ()) -> AsyncIterator[Person]:
    """Somebody new, whose page is open."""
    user_id = uuid4()
    claims: dict[str, Any] = {"sub": str(user_id), "exp": time.time() + _LIFE_SECONDS, "user_tier": tier}
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    urls = notifiers or street.urls("notifier")
    # no line is kept: one that a killed process left behind would look like a refusal
    limits = httpx.Limits(max_keepalive_connections=0)
    async with (
        httpx.AsyncClient(timeout=15.0, limits=limits) as client,
        watching(urls, token) as watcher,
    ):
        yield Person(client, street.urls("producer"), user_id, token, watcher)
