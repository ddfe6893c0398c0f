"""How work fails, through the whole consumer: who is tried again, who is not, and how often the provider is asked."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas import topics
from schemas.errors import ErrorClass
from schemas.words import Tier
from tests.connected.steps import request
from tests.flow.working import Held, Line, error, line_of, processing, settings_of, success

pytestmark = [pytest.mark.flow, pytest.mark.connected]

BUSY = "Service temporarily unavailable. Please try again later."
OTHER_MODEL = "Images cannot be generated at the moment, try use another model"


@pytest.fixture
async def line(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Line]:
    """With relay and retry topics, as in life."""
    async with line_of(settings_of(database_url, kafka_servers, namespace, tmp_path / "media")) as line:
        yield line


@pytest.fixture
async def swept(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Line]:
    """Without Kafka's part: what the producer accepted is swept in, and retries wait for dispatch's own turn."""
    settings = settings_of(database_url, kafka_servers, namespace, tmp_path / "media", admit_after=0.001)
    async with line_of(settings, topics=False) as line:
        yield line


@pytest.mark.parametrize(
    ("answer", "error_class"),
    [
        (error("prompt is required", 400), ErrorClass.INVALID),
        (error("Invalid API key", 401), ErrorClass.AUTH),
        (error("Insufficient credits. Please add more credits to continue.", 402), ErrorClass.QUOTA),
        (error("Your prompt was blocked by our content policy", 400), ErrorClass.CONTENT),
        (success("j", nsfw_content_detected=True), ErrorClass.CONTENT),
    ],
    ids=["invalid", "auth", "quota", "content", "nsfw"],
)
async def test_what_another_try_cannot_mend_ends_at_once(swept: Line, answer: Any, error_class: ErrorClass) -> None:
    swept.start()
    swept.provider.scripted(answer)
    record_id = await swept.ask()
    row = await swept.ended(record_id, "failed")
    assert (row.error_class, row.retry_count, len(swept.provider.submits)) == (error_class.value, 0, 1)
    (letter,) = await swept.steps.sql("SELECT * FROM dead_letters")
    assert (letter.record_id, letter.topic) == (record_id, topics.dead(error_class))
    assert await swept.steps.used() == 0


async def test_a_busy_provider_is_asked_again_until_it_answers(line: Line) -> None:
    line.start()
    line.provider.scripted(error(BUSY, 503), httpx.ConnectError("refused"))
    record_id = await line.ask()
    row = await line.ended(record_id)
    assert (row.retry_count, row.attempt, len(line.provider.submits)) == (2, 3, 3)
    assert (row.error_class, row.error_code) == (None, None)
    assert await line.outcomes(record_id) == ["failed", "failed", "success"]
    waits = await line.events(topics.retry(5), 2)
    assert sorted(event["data"]["attempt"] for event in waits) == [2, 3]


async def test_the_fourth_failure_is_the_last(line: Line) -> None:
    line.start()
    line.provider.scripted(*[error(BUSY, 503)] * 10)
    record_id = await line.ask()
    row = await line.ended(record_id, "failed")
    assert (row.error_class, row.error_code, row.retry_count) == ("exhausted", "provider_unavailable", 3)
    assert len(line.provider.submits) == 4
    (letter,) = await line.events(topics.dead(ErrorClass.EXHAUSTED), 1)
    assert letter["data"]["request"]["scene_description"] == "A mad tea party"
    assert letter["headers"]["attempt"] == "4"
    (failed,) = await line.events(topics.FAILED, 1)
    assert failed["data"]["status"] == "failed"


async def test_a_bug_of_ours_has_its_own_dead_letters(swept: Line) -> None:
    swept.start()
    swept.provider.scripted(*[httpx.Response(200, json={"status": "success", "id": 1, "output": []})] * 4)
    record_id = await swept.ask()
    row = await swept.ended(record_id, "failed")
    assert (row.error_class, len(swept.provider.submits)) == ("unexpected", 4)


async def test_a_rate_limit_costs_no_retry(swept: Line) -> None:
    swept.start()
    swept.provider.scripted(error("Rate limit exceeded", 429, retry_after=1))
    record_id = await swept.ask()
    row = await swept.ended(record_id)
    assert (row.retry_count, row.attempt, len(swept.provider.submits)) == (0, 2, 2)
    assert await swept.outcomes(record_id) == ["deferred", "success"]


async def test_the_next_model_is_tried_at_once_and_each_once_a_retry(swept: Line) -> None:
    swept.start()
    swept.provider.scripted(*[error(OTHER_MODEL)] * 4)
    record_id = await swept.ask(request(tier=Tier.PREMIUM))
    row = await swept.ended(record_id)
    models = [call.model for call in swept.provider.submits]
    assert models == ["seedream-4.5", "imagen-4", "seedream-4", "seedream-4.5", "imagen-4"]
    assert (row.retry_count, row.model_id) == (1, "imagen-4")
    assert await swept.outcomes(record_id) == ["handed_over", "handed_over", "failed", "handed_over", "success"]
    assert await swept.steps.used() == 0


async def test_sent_and_not_answered_is_on_record_as_uncertain(swept: Line) -> None:
    swept.start()
    swept.provider.scripted(httpx.ReadTimeout("nothing"))
    record_id = await swept.ask()
    row = await swept.ended(record_id)
    assert (row.retry_count, len(swept.provider.submits)) == (1, 2)
    assert await swept.outcomes(record_id) == ["uncertain", "success"]


async def test_who_would_rather_not_pay_twice_is_not_tried_again(swept: Line) -> None:
    swept.start(uncertain="fail")
    swept.provider.scripted(httpx.ReadError("cut"))
    record_id = await swept.ask()
    row = await swept.ended(record_id, "failed")
    assert (row.error_class, row.error_code) == ("exhausted", "outcome_unknown")
    assert (len(swept.provider.submits), await swept.outcomes(record_id)) == (1, ["uncertain"])


async def test_a_job_that_failed_is_tried_again_and_a_look_that_failed_is_only_repeated(swept: Line) -> None:
    swept.start()
    swept.provider.scripted(
        processing("j1"),
        processing("j2"),
        fetches=(
            httpx.ReadTimeout("nothing"),
            httpx.Response(502, text="<html>"),
            {"status": "failed", "id": "j1", "message": "Failed, Try Again"},
            error("Rate limit exceeded", 429, retry_after=0),
            success("j2"),
        ),
    )
    record_id = await swept.ask()
    row = await swept.ended(record_id)
    assert (row.retry_count, len(swept.provider.submits), len(swept.provider.fetches)) == (1, 2, 5)
    assert await swept.outcomes(record_id) == ["failed", "success"]


async def test_at_its_deadline_a_worker_ends_its_record_itself_and_its_job_is_not_called_failed(line: Line) -> None:
    """A sweep would do it five seconds later. The job may be done yet: its picture is for a replay then."""
    line.start(submit_timeout=5.0, run_deadline=5.1, sweep=60.0, poll_late=0.05)
    done = Held(success("j1"))
    line.provider.scripted(processing("j1"))
    line.provider.otherwise = processing("j1")
    record_id = await line.ask()
    row = await line.ended(record_id, "failed")
    assert (row.error_class, row.error_code, row.retry_count, row.attempt) == ("deadline", "deadline_exceeded", 0, 1)
    assert 0.0 <= (row.completed_at - row.deadline_at).total_seconds() < 5.0
    assert (await line.outcomes(record_id), await line.steps.used()) == ([None], 1)
    line.provider.scripted(fetches=(done,))
    await done.asked.wait()
    done.go.set()

    async def kept() -> bool:
        return await line.outcomes(record_id) == ["late_success"]

    await line.until(kept)
    assert (await line.steps.record(record_id), await line.steps.used()) == (row, 0)
    assert len(line.provider.submits) == 1


async def test_a_record_past_its_deadline_gives_its_slot_back_when_its_job_is_over(swept: Line) -> None:
    """Its worker lives and still follows the job: when that fails nobody but the worker can close the attempt."""
    swept.start(submit_timeout=0.2)
    swept.provider.scripted(processing("j1"))
    swept.provider.otherwise = processing("j1")
    record_id = await swept.ask()
    await swept.reaches(record_id, "generating")
    await swept.steps.sql("UPDATE image_generations SET deadline_at = now() - interval '1 s'")
    row = await swept.ended(record_id, "failed")
    assert row.error_class == "deadline"
    assert (await swept.outcomes(record_id), await swept.steps.used()) == ([None], 1)
    swept.provider.scripted(fetches=({"status": "failed", "id": "j1", "message": "Failed, Try Again"},))

    async def free() -> bool:
        return await swept.steps.used() == 0

    await swept.until(free)
    (outcome,) = await swept.outcomes(record_id)
    assert outcome == "failed"
    assert len(swept.provider.submits) == 1
    assert (await swept.steps.record(record_id)).version == row.version
