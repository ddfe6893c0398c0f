"""Pictures that come after their requests have ended: kept, and what a replay makes of them, through the whole consumer
and the real route (PIPELINE F3, T2, W6)."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Row

from schemas import topics
from storage import deadlines
from tests.flow.accepting import client_of
from tests.flow.accepting import settings_of as producer_settings
from tests.flow.working import PNG, Held, Line, line_of, processing, settings_of, success

pytestmark = [pytest.mark.flow, pytest.mark.connected]

PUBLIC = "https://hooks.scenewire.test"
LOST = httpx.ReadTimeout("no answer")

Open = Callable[..., AbstractAsyncContextManager[Line]]


@pytest.fixture
def opened(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> Open:
    def line_with(*, topics: bool = False, **changes: Any) -> AbstractAsyncContextManager[Line]:
        given = {"admit_after": 0.001, "public_url": PUBLIC, **changes}
        settings = settings_of(database_url, kafka_servers, namespace, tmp_path / "media", **given)
        return line_of(settings, topics=topics)

    return line_with


@pytest.fixture
async def line(opened: Open) -> AsyncIterator[Line]:
    async with opened() as line:
        yield line


async def _attempt(line: Line, record_id: UUID) -> Row[Any]:
    (attempt,) = await line.steps.attempts(record_id)
    return attempt


async def _outcome(line: Line, record_id: UUID, outcome: str) -> Row[Any]:
    """The record's only attempt, once it has ended so."""

    async def so() -> bool:
        return await line.outcomes(record_id) == [outcome]

    await line.until(so)
    return await _attempt(line, record_id)


async def _overdue(line: Line, *, store: Path | None = None, **changes: Any) -> UUID:
    """A record whose time is over while its picture cannot be had, in the hands of a worker with these settings; with
    `store` it is that which fails, until the file in its place is gone."""
    first = line.start()
    line.pictures.answers.extend([404] * 1_000)
    record_id = await line.ask()
    await line.reaches(record_id, "storing")
    await first.stopped()
    await line.steps.sql("UPDATE image_generations SET deadline_at = now()")
    line.start(**changes)
    if store is not None:
        line.pictures.answers.clear()
        shutil.rmtree(store)
        # neither a folder nor something that a folder can be made of
        store.write_bytes(b"")  # noqa: ASYNC240 - a page of memory
    return record_id


async def test_the_webhook_of_a_failed_request_keeps_its_picture_and_a_replay_is_completed_from_it(
    opened: Open, database_url: str, tmp_path: Path
) -> None:
    """On real topics: what is told is told by Kafka."""
    async with (
        opened(topics=True, uncertain="fail", uncertain_grace=0.0) as line,
        client_of(producer_settings(database_url)) as client,
    ):
        line.start()
        line.provider.scripted(LOST)
        record_id = await line.ask()
        failed = await line.ended(record_id, "failed")
        assert failed.error_code == "outcome_unknown"
        (submit,) = line.provider.submits
        for job in (4711, 4711, 4712):
            answer = await client.post(submit.webhook.removeprefix(PUBLIC), json={"status": "success", "id": job})
            assert answer.status_code == 200
        attempt = await _outcome(line, record_id, "late_success")
        assert attempt.provider_request_id == "4711"
        assert (tmp_path / "media" / attempt.image_key).read_bytes() == PNG
        # of the record not a trace
        assert await line.steps.record(record_id) == failed
        assert await line.steps.used() == 0
        await line.steps.again(record_id)
        row = await line.ended(record_id)
        assert (row.image_key, row.image_url) == (attempt.image_key, attempt.image_url)
        assert (row.model_id, row.provider_request_id) == (attempt.model_id, None)
        assert (len(line.provider.submits), len(await line.steps.attempts(record_id))) == (1, 1)
        (completed,) = await line.events(topics.COMPLETED, 1)
        assert completed["data"]["picture"]["bytes"] == len(PNG)
        assert completed["data"]["image_url"] == row.image_url
        await line.steps.check()


async def test_what_was_cancelled_in_mid_call_is_followed_and_kept(line: Line) -> None:
    line.start()
    held = Held(processing("j1", eta=0.01))
    line.provider.scripted(held)
    record_id = await line.ask()
    await held.asked.wait()
    assert await deadlines.cancel(line.steps.database, record_id)
    cancelled = await line.steps.record(record_id)
    assert await line.steps.used() == 1
    held.go.set()
    attempt = await _outcome(line, record_id, "late_success")
    assert attempt.image_key is not None
    assert await line.steps.record(record_id) == cancelled
    assert await line.steps.used() == 0
    # and while its picture is on its way to the store
    line.pictures.answers.extend([404] * 1_000)
    second = await line.ask()
    await line.reaches(second, "storing")
    assert await deadlines.cancel(line.steps.database, second)
    line.pictures.answers.clear()
    assert (await _outcome(line, second, "late_success")).image_key is not None


async def test_a_call_that_fails_after_its_records_end_frees_the_slot(line: Line) -> None:
    line.start()
    held = Held(success("j1", nsfw_content_detected=True))
    lost = Held(LOST)
    line.provider.scripted(held, lost)
    flagged, unanswered = await line.ask(), await line.ask()
    await held.asked.wait()
    await lost.asked.wait()
    tracks = {UUID(call.track_id) for call in line.provider.submits}
    for record_id in (flagged, unanswered):
        assert await deadlines.cancel(line.steps.database, record_id)
    held.go.set()
    lost.go.set()

    async def both() -> list[str]:
        rows = await line.steps.sql("SELECT id, outcome FROM generation_attempts WHERE outcome IS NOT NULL")
        assert {row.id for row in rows} <= tracks
        return sorted(row.outcome for row in rows) if len(rows) == 2 else []

    assert await line.until(both) == ["failed", "uncertain"]
    assert await line.steps.used() == 0


async def test_a_picture_that_was_not_stored_in_time_is_stored_when_the_store_is_back(
    opened: Open, tmp_path: Path
) -> None:
    async with opened() as line:
        media = tmp_path / "media"
        record_id = await _overdue(line, store=media)
        failed = await line.ended(record_id, "failed")
        assert (failed.error_class, failed.error_code) == ("deadline", "storing_failed")
        # its worker stops in the middle of it, and the next one goes on
        await line.running[-1].stopped()
        media.unlink()
        line.start()
        attempt = await _outcome(line, record_id, "late_success")
        assert attempt.image_key is not None
        # a stop is no death
        assert await line.steps.record(record_id) == failed
        await line.steps.again(record_id)
        row = await line.ended(record_id)
        assert (row.image_key, len(line.provider.submits)) == (attempt.image_key, 1)


async def test_a_stop_is_no_death_for_a_picture_whose_request_ended_meanwhile(line: Line) -> None:
    """Its worker has not heard of the end. Three deaths, and it would count as what kills workers."""
    first = line.start()
    line.pictures.answers.extend([404] * 1_000)
    record_id = await line.ask()
    await line.reaches(record_id, "storing")
    assert await deadlines.cancel(line.steps.database, record_id)
    cancelled = await line.steps.record(record_id)
    await first.stopped()
    line.pictures.answers.clear()
    line.start()
    assert (await _outcome(line, record_id, "late_success")).image_key is not None
    assert await line.steps.record(record_id) == cancelled


async def test_a_replay_takes_over_what_is_still_being_stored(opened: Open, tmp_path: Path) -> None:
    async with opened() as line:
        media = tmp_path / "media"
        record_id = await _overdue(line, store=media, storing_retry_longest=0.2)
        await line.ended(record_id, "failed")
        await line.steps.again(record_id)
        await line.reaches(record_id, "storing")
        assert (await line.steps.record(record_id)).status == "in_progress"
        media.unlink()
        row = await line.ended(record_id)
        assert (len(line.provider.submits), await line.outcomes(record_id)) == (1, ["success"])
        assert (media / row.image_key).read_bytes() == PNG


async def test_a_picture_that_is_gone_for_good_is_not_looked_for_for_ever(opened: Open) -> None:
    async with opened(late_storing=0.5) as line:
        record_id = await _overdue(line, download_fresh_for=0.05)
        await line.ended(record_id, "failed")
        attempt = await _outcome(line, record_id, "late_success")
        assert (attempt.image_key, attempt.output_urls) == (None, '["https://pictures.test/job-1.png"]')
        # of addresses that lead nowhere nothing can be completed: the replay makes another
        line.pictures.answers.clear()
        await line.steps.again(record_id)
        await line.ended(record_id)
        assert await line.outcomes(record_id) == ["late_success", "success"]
