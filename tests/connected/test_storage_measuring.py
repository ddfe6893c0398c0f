"""What the gauges show is what stands in Postgres, and a completion is timed from its request."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from schemas.requests import SceneImageRequest
from schemas.words import Lane, Tier
from storage import workers
from storage.accepting import Acceptor, NewRequest
from storage.answers import Answers, Stored
from storage.database import Database
from storage.measuring import measure
from storage.settings import DatabaseSettings
from telemetry import metrics

pytestmark = pytest.mark.connected


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(DatabaseSettings(database_url=database_url), application="test")
    yield opened
    await opened.close()


def _request(tier: Tier) -> NewRequest:
    return NewRequest(uuid4(), uuid4(), uuid4(), 1, SceneImageRequest(scene_description="A mad tea party"), tier)


async def test_an_empty_line_shows_zeros_in_every_lane(database: Database) -> None:
    line = await measure(database)
    assert (line.workers_alive, line.slots) == (0, {"free": 0, "used": 0, "resting": 0})
    assert line.waiting == line.oldest_waiting == dict.fromkeys((lane.value for lane in Lane), 0)


async def test_a_line_at_work(database: Database) -> None:
    accept = Acceptor(database, deadline=3600)
    requests = [_request(tier) for tier in (Tier.FREE, Tier.FREE, Tier.PREMIUM, Tier.PREMIUM)]
    for one in requests:
        await accept.accept(one)
    old, claimed = requests[0].record_id, requests[3].record_id
    await database.fetch("UPDATE image_generations SET created_at = now() - interval '90 s' WHERE id = $1", old)
    attempt, token = uuid4(), uuid4()
    await database.fetch(
        """UPDATE image_generations SET claim_token = $2, status = 'in_progress',
        created_at = now() - interval '40 s' WHERE id = $1""",
        claimed,
        token,
    )
    await database.fetch(
        """INSERT INTO generation_attempts (id, record_id, attempt, model_id, prompt, path, payload)
        VALUES ($1, $2, 1, 'a-model', 'tea', '/', '{}')""",
        attempt,
        claimed,
    )
    # what the older system left is nobody's work
    await database.fetch("INSERT INTO image_generations (id, status) VALUES ($1, 'pending')", uuid4())
    await workers.provide_slots(database, 4)
    await database.fetch("UPDATE provider_slots SET attempt_id = $1 WHERE slot = 1", attempt)
    await database.fetch("UPDATE provider_slots SET free_at = now() + interval '1 h' WHERE slot = 2")
    for life in (3600.0, 3600.0, -1.0):
        await workers.register(database, uuid4(), "worker", life=life)

    line = await measure(database)
    assert (line.workers_alive, line.slots) == (2, {"free": 2, "used": 1, "resting": 1})
    assert line.waiting == {"interactive": 1, "standard": 2, "bulk": 0}
    assert 90 <= line.oldest_waiting["standard"] < 3600
    assert line.oldest_waiting["interactive"] < 90
    assert line.oldest_waiting["bulk"] == 0

    stored = Stored(token, attempt, "key", "http://pictures.test/a.png", {})
    took = metrics.of_process().histogram("generation_seconds", lane="interactive")
    before = _sum(took)
    assert await Answers(database).stored(stored)
    assert 40 <= _sum(took) - before < 3600
    assert not await Answers(database).stored(stored)
    assert 40 <= _sum(took) - before < 3600


def _sum(histogram: metrics.Histogram) -> float:
    return next(sample.value for sample in histogram.collect()[0].samples if sample.name.endswith("_sum"))
