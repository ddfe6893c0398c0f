"""The breaker through the whole consumer: a provider that fails everybody costs nobody a scene (PIPELINE K)."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from schemas.words import Tier
from tests.connected.steps import request
from tests.flow.working import Answer, Held, Line, error, line_of, processing, settings_of

pytestmark = [pytest.mark.flow, pytest.mark.connected]

DENIED = error("Invalid API key", 401)
NO_CREDITS = error("Insufficient credits. Please add more credits to continue.", 402)
BUSY = error("Service temporarily unavailable. Please try again later.", 503)
OTHER_MODEL = error("Images cannot be generated at the moment, try use another model")


@pytest.fixture
async def line(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Line]:
    settings = settings_of(
        database_url,
        kafka_servers,
        namespace,
        tmp_path / "media",
        admit_after=0.001,
        probe=0.3,
        breaker_span=0.2,
        # long enough that the breaker opens before anybody is exhausted, as 10 s are against 35
        retry_delays=(0.3, 0.6, 1.2),
    )
    async with line_of(settings, topics=False) as line:
        yield line


async def ask(line: Line, count: int) -> list[UUID]:
    return [await line.ask(request(scene=number)) for number in range(1, count + 1)]


async def stages(line: Line) -> Counter[str]:
    return Counter(row.stage for row in await line.steps.sql("SELECT stage FROM image_generations"))


async def is_open(line: Line) -> bool:
    return bool(await line.steps.sql("SELECT scope FROM breakers WHERE scope = 'provider' AND opened_at IS NOT NULL"))


async def probed(line: Line, times: int = 2) -> None:
    """Until the provider was asked so many times more."""
    asked = len(line.provider.submits)

    async def more() -> bool:
        return len(line.provider.submits) >= asked + times

    await line.until(more)


@pytest.mark.parametrize("answer", [DENIED, NO_CREDITS], ids=["auth", "quota"])
async def test_a_key_that_is_refused_costs_two_scenes_and_the_rest_wait_for_a_better_one(
    line: Line, answer: Answer
) -> None:
    line.provider.otherwise = answer
    records = await ask(line, 20)
    line.start()
    await line.until(lambda: is_open(line))
    await probed(line)

    async def told() -> bool:
        return (await stages(line))["provider_paused"] >= 17

    await line.until(told)
    rows = [await line.steps.record(record_id) for record_id in records]
    dead = [row for row in rows if row.status == "failed"]
    # those whose refusals opened it, but for the one that opened it
    assert len(dead) == 2
    assert len(await line.steps.sql("SELECT id FROM dead_letters")) == 2
    assert all(row.retry_count == 0 for row in rows)
    line.provider.otherwise = None
    for row in rows:
        if row not in dead:
            assert (await line.ended(row.id)).retry_count == 0
    assert not await is_open(line)
    assert await line.steps.used() == 0


@pytest.mark.parametrize("answer", [httpx.ConnectError("refused"), BUSY], ids=["refused", "503"])
async def test_an_outage_exhausts_nobody_and_everything_completes_after_it(line: Line, answer: Answer) -> None:
    line.provider.otherwise = answer
    records = await ask(line, 12)
    line.start()
    await line.until(lambda: is_open(line))
    asked = len(line.provider.submits)
    await probed(line, 3)
    # one at a time from here on
    assert line.provider.most_open <= line.settings.provider_slots
    assert len({call.track_id for call in line.provider.submits[asked:]}) == len(line.provider.submits) - asked
    line.provider.otherwise = None
    for record_id in records:
        row = await line.ended(record_id)
        assert row.retry_count <= 3
    assert await line.steps.sql("SELECT id FROM dead_letters") == []
    assert await line.steps.used() == 0


async def test_one_bad_scene_among_good_ones_opens_nothing(line: Line) -> None:
    line.start()
    line.provider.scripted(*[BUSY] * 4)
    bad = await line.ask(request(scene=1))
    assert (await line.ended(bad, "failed")).error_class == "exhausted"
    assert not await is_open(line)


async def test_a_model_that_is_gone_costs_a_round_trip_a_few_times_and_then_none(line: Line) -> None:
    gone = "seedream-t2i"

    async def by_model(call: object) -> object:
        return OTHER_MODEL if call.model == gone else await _made(call)  # type: ignore[attr-defined]

    line.provider.otherwise = by_model
    # probed once and never again in this test
    line.start(probe=600.0, provider_slots=1)
    for number in range(1, 9):
        record_id = await line.ask(request(scene=number, tier=Tier.FREE))
        assert (await line.ended(record_id)).model_id != gone
    assert sum(call.model == gone for call in line.provider.submits) == 3


async def _made(call: object) -> object:
    track_id = call.track_id  # type: ignore[attr-defined]
    return {"status": "success", "id": track_id, "output": [f"https://pictures.test/{track_id}.png"]}


async def test_a_worker_that_leaves_open_submits_says_nothing_of_the_provider(line: Line) -> None:
    held = [Held(_made) for _ in range(3)]
    line.provider.scripted(*held)
    records = await ask(line, 3)
    # one more of its failures would open it, if these were the provider's
    running = line.start(breaker_outages=2, breaker_span=0.0, drain=0.0)
    for one in held:
        await one.asked.wait()
    await running.stopped()
    for one in held:
        one.go.set()
    assert [row.outcome for record_id in records for row in await line.steps.attempts(record_id)] == ["uncertain"] * 3
    assert await line.steps.sql("SELECT scope FROM breakers WHERE failures > 0") == []
    line.start()
    for record_id in records:
        await line.ended(record_id)


async def test_a_job_is_followed_past_its_deadline_while_the_breaker_is_open(line: Line) -> None:
    line.provider.scripted(processing("j1"))
    line.provider.otherwise = processing("j1")
    record_id = await line.ask()
    first = line.start(submit_timeout=0.2)
    await line.reaches(record_id, "generating")
    await first.stopped()
    await line.steps.sql("UPDATE breakers SET opened_at = now(), epoch = 1, probe_until = now() + interval '1 hour'")
    # for whoever takes it over: neither it nor a sweep ends the record
    await line.steps.sql("UPDATE image_generations SET deadline_at = now() - interval '1 s'")
    looks = len(line.provider.fetches)
    line.start(submit_timeout=0.2, poll_interval=0.02)

    async def looked_at() -> bool:
        return len(line.provider.fetches) > looks + 10

    await line.until(looked_at)
    line.provider.otherwise = None
    row = await line.ended(record_id)
    assert (row.attempt, row.retry_count, len(line.provider.submits)) == (1, 0, 1)
