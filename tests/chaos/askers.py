"""Users whose scenes are accepted by storage's own statement, without the producer between: many of them, at little
cost; and how it stands with what they asked for."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import jwt
from pydantic_core import from_json

from schemas.requests import SceneImageRequest
from schemas.words import Tier
from storage.accepting import Acceptor, NewRequest
from storage.database import Database, Unavailable
from storage.fragments import STATUS_JSON
from tests.chaos.books import until
from tests.chaos.storm import Viewer
from tests.chaos.street import SECRET

_RECORDS = f"SELECT id, user_id, status, {STATUS_JSON} AS body FROM image_generations g WHERE user_id = ANY($1)"
_OPEN = "SELECT 1 FROM image_generations WHERE user_id = ANY($1) AND status IN ('pending', 'in_progress') LIMIT 1"
_LEFT = """SELECT id, status, stage, attempt, retry_at, admitted_at, worker_id, updated_at, now() FROM image_generations
    WHERE user_id = ANY($1) AND status IN ('pending', 'in_progress')"""
_OUTBOX = "SELECT id, topic FROM outbox LIMIT 1"


def _somebody() -> Viewer:
    user_id = uuid4()
    claims = {"sub": str(user_id), "exp": time.time() + 3600}
    return Viewer(user_id, uuid4(), jwt.encode(claims, SECRET, algorithm="HS256"))


@dataclass
class Asker:
    """One who asks for scenes of one chapter. `accepted`: the records that were promised."""

    viewer: Viewer = field(default_factory=_somebody)
    accepted: set[UUID] = field(default_factory=set)
    _asked: int = 0

    async def ask(self, acceptor: Acceptor) -> None:
        """One scene more, tried until Postgres takes it."""
        self._asked += 1
        body = SceneImageRequest(scene_description="a table under a tree")
        request = NewRequest(uuid4(), self.viewer.user_id, self.viewer.chapter_id, self._asked, body, Tier.PREMIUM)
        while True:
            try:
                self.accepted.add((await acceptor.accept(request)).record_id)
                return
            except Unavailable:
                await asyncio.sleep(0.05)


async def asking(askers: Sequence[Asker], acceptor: Acceptor, chance: random.Random, every: float) -> None:
    """Until cancelled, one scene after another."""
    while True:
        await chance.choice(askers).ask(acceptor)
        await asyncio.sleep(every)


async def images(
    database: Database, askers: Sequence[Asker], *, ended: bool = True
) -> dict[UUID, dict[str, dict[str, Any]]]:
    """By user what Postgres has, once all has been sent to Kafka (and has `ended`). What was accepted is there."""
    ids = [one.viewer.user_id for one in askers]

    async def all_told() -> bool:
        return not (ended and await database.fetch(_OPEN, ids)) and not await database.fetch(_OUTBOX)

    if not await until(all_told, 60.0):
        left = [*await database.fetch(_LEFT, ids), *await database.fetch(_OUTBOX)]
        raise AssertionError(f"it has not all ended and been sent: {left}")
    found: dict[UUID, dict[str, dict[str, Any]]] = {user_id: {} for user_id in ids}
    for row in await database.fetch(_RECORDS, ids):
        found[row.user_id][str(row.id)] = {**from_json(row.body), "status": row.status}
    for one in askers:
        assert {str(record_id) for record_id in one.accepted} <= found[one.viewer.user_id].keys()
    return found
