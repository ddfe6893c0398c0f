"""A submit that is not answered, and the webhook that names its job after all: through the whole consumer and the real
route (PIPELINE S1, W6)."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flow.accepting import client_of
from tests.flow.accepting import settings_of as producer_settings
from tests.flow.working import Call, Held, Line, error, line_of, processing, settings_of, success

pytestmark = [pytest.mark.flow, pytest.mark.connected]

PUBLIC = "https://hooks.scenewire.test"
LOST = httpx.ReadTimeout("no answer")


class Caller:
    """The provider as it calls our webhook."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def __call__(self, call: Call, job: object, **more: Any) -> None:
        """The webhook of this submit says that this job has ended."""
        assert call.webhook.startswith(f"{PUBLIC}/hooks/modelslab/")
        path = call.webhook.removeprefix(PUBLIC)
        answer = await self._client.post(path, json={"status": "success", "id": job, "output": [], **more})
        assert answer.status_code == 200


@pytest.fixture
async def hook(database_url: str) -> AsyncIterator[Caller]:
    async with client_of(producer_settings(database_url)) as client:
        yield Caller(client)


Open = Callable[..., AbstractAsyncContextManager[Line]]


@pytest.fixture
def opened(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> Open:
    """A line with these settings, and a retry that would wait for long: what comes earlier is the late answer."""

    def line_with(**changes: Any) -> AbstractAsyncContextManager[Line]:
        given = {"admit_after": 0.001, "public_url": PUBLIC, "retry_delays": (600.0,) * 3, **changes}
        settings = settings_of(database_url, kafka_servers, namespace, tmp_path / "media", **given)
        return line_of(settings, topics=False)

    return line_with


@pytest.fixture
async def line(opened: Open) -> AsyncIterator[Line]:
    async with opened() as line:
        yield line


async def _uncertain(line: Line, record_id: Any) -> None:
    async def called_so() -> bool:
        return await line.outcomes(record_id) == ["uncertain"]

    await line.until(called_so)


async def test_the_webhook_brings_the_picture_of_a_submit_that_was_not_answered(line: Line, hook: Caller) -> None:
    line.start()
    line.provider.scripted(LOST)
    record_id = await line.ask()
    await _uncertain(line, record_id)
    (submit,) = line.provider.submits
    await hook(submit, 4711)
    row = await line.ended(record_id)
    assert (row.retry_count, row.attempt, row.provider_request_id) == (1, 2, "4711")
    assert ([call.job for call in line.provider.fetches], len(line.provider.submits)) == (["4711"], 1)
    (attempt,) = await line.steps.attempts(record_id)
    assert (attempt.outcome, attempt.provider_request_id, attempt.counted) == ("late_success", "4711", True)
    # duplicates, also of another id, change nothing
    await hook(submit, 4711)
    await hook(submit, 4712)
    assert await line.steps.record(record_id) == row
    await line.steps.check()
    assert await line.steps.used() == 0


async def test_a_webhook_that_overtakes_the_lost_answer_saves_the_retry(line: Line, hook: Caller) -> None:
    line.start()
    held = Held(LOST)
    line.provider.scripted(held, fetches=(processing(5, eta=0.01), success(5)))
    record_id = await line.ask()
    await held.asked.wait()
    await hook(line.provider.submits[0], "5")
    held.go.set()
    row = await line.ended(record_id)
    assert (row.retry_count, row.attempt, len(line.provider.submits)) == (0, 1, 1)
    assert await line.outcomes(record_id) == ["success"]


async def test_an_answer_beats_the_webhook(line: Line, hook: Caller) -> None:
    line.start()
    held = Held(processing("job-1", eta=0.01))
    line.provider.scripted(held)
    record_id = await line.ask()
    await held.asked.wait()
    await hook(line.provider.submits[0], "forged")
    held.go.set()
    row = await line.ended(record_id)
    assert (row.provider_request_id, row.retry_count) == ("job-1", 0)
    assert {call.job for call in line.provider.fetches} == {"job-1"}


@pytest.mark.parametrize(
    "told",
    [
        {"status": "failed", "id": "", "message": "Request not found", "output": ""},
        httpx.Response(404, text="<html>Not Found</html>"),
        error("Something about nothing"),
        success("6", track_id="another-attempt"),
        processing("6") | {"track_id": "another-attempt"},
    ],
    ids=["not found", "404", "no job named", "another's", "another's under way"],
)
async def test_an_id_that_is_not_ours_is_forgotten_and_a_later_one_may_be(line: Line, hook: Caller, told: Any) -> None:
    line.start()
    line.provider.scripted(LOST, fetches=(told,))
    record_id = await line.ask()
    await _uncertain(line, record_id)
    (submit,) = line.provider.submits
    before = await line.steps.record(record_id)
    await hook(submit, "6")

    async def forgotten() -> bool:
        (attempt,) = await line.steps.attempts(record_id)
        return bool(line.provider.fetches) and attempt.webhook_request_id is None

    await line.until(forgotten)
    row = await line.steps.record(record_id)
    assert (row.status, row.stage, row.claim_token, row.retry_at) == (
        "in_progress",
        "retry_wait",
        None,
        before.retry_at,
    )
    assert (await line.outcomes(record_id), row.attempt) == (["uncertain"], 2)
    await hook(submit, "7")
    row = await line.ended(record_id)
    assert (row.provider_request_id, len(line.provider.submits)) == ("7", 1)


async def test_while_an_id_cannot_be_confirmed_nothing_is_submitted(opened: Open, hook: Caller) -> None:
    async with opened() as line:
        line.start()
        refused = error("Invalid API key", 401)
        trouble = [httpx.ConnectError("down"), error("Service temporarily unavailable", 503), refused]
        line.provider.scripted(LOST, fetches=(*trouble * 5, error("Rate limit exceeded", 429), success("8")))
        record_id = await line.ask()
        await _uncertain(line, record_id)
        await hook(line.provider.submits[0], "8")
        await line.steps.due(record_id)
        row = await line.ended(record_id)
        assert (row.provider_request_id, row.retry_count) == ("8", 1)
        assert (len(line.provider.fetches), len(line.provider.submits)) == (17, 1)


async def test_a_job_that_failed_returns_its_record_to_the_retry(opened: Open, hook: Caller) -> None:
    async with opened() as line:
        line.start()
        failed = {"status": "failed", "id": 9, "message": "Failed, Try Again", "output": ""}
        line.provider.scripted(LOST, fetches=(failed,))
        record_id = await line.ask()
        await _uncertain(line, record_id)
        await hook(line.provider.submits[0], 9)

        async def known() -> bool:
            return await line.outcomes(record_id) == ["late_failure"]

        await line.until(known)
        await line.steps.due(record_id)
        row = await line.ended(record_id)
        # counted once, when it became uncertain
        assert (row.retry_count, len(line.provider.submits)) == (1, 2)
        assert await line.outcomes(record_id) == ["late_failure", "success"]


async def test_where_unanswered_means_failed_the_webhook_gets_its_grace(opened: Open, hook: Caller) -> None:
    async with opened(uncertain="fail", uncertain_grace=20.0) as line:
        line.start()
        line.provider.scripted(LOST)
        record_id = await line.ask()

        async def submitted() -> Call | None:
            return line.provider.submits[0] if line.provider.submits else None

        submit = await line.until(submitted)
        assert (await line.steps.record(record_id)).status == "in_progress"
        assert await line.steps.used() == 1
        await hook(submit, 10)
        row = await line.ended(record_id)
        assert (row.retry_count, row.provider_request_id) == (0, "10")
        assert await line.outcomes(record_id) == ["success"]


async def test_where_no_webhook_comes_in_its_grace_the_outcome_stays_unknown(opened: Open) -> None:
    async with opened(uncertain="fail", uncertain_grace=0.6) as line:
        line.start()
        line.provider.scripted(LOST)
        record_id = await line.ask()
        row = await line.ended(record_id, "failed")
        assert (row.error_class, row.error_code) == ("exhausted", "outcome_unknown")
        (attempt,) = await line.steps.attempts(record_id)
        assert (row.completed_at - attempt.sent_at).total_seconds() >= 0.6
        # what it may have cost stays on record
        assert (attempt.outcome, attempt.cost > 0) == ("uncertain", True)
        assert await line.steps.used() == 0


async def test_without_a_public_address_no_webhook_is_asked_for_and_nobody_waits(opened: Open) -> None:
    async with opened(uncertain="fail", uncertain_grace=600.0, public_url=None) as line:
        line.start()
        line.provider.scripted(LOST)
        record_id = await line.ask()
        await line.ended(record_id, "failed")
        (submit,) = line.provider.submits
        assert submit.webhook == ""
        (attempt,) = await line.steps.attempts(record_id)
        assert attempt.webhook_token is None
