"""Stops, outages and lost lines in the middle of a call: nothing is lost, and nobody pays twice (PIPELINE S, W, X)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import DBAPIError

from local.postgres import Postgres
from storage.workers import provide_slots
from telemetry import metrics
from tests.flow.wire import Wire, wire_to
from tests.flow.working import Held, Line, error, line_of, processing, settings_of, success

pytestmark = [pytest.mark.flow, pytest.mark.connected]


@pytest.fixture
async def line(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Line]:
    settings = settings_of(database_url, kafka_servers, namespace, tmp_path / "media", admit_after=0.001)
    async with line_of(settings, topics=False) as line:
        yield line


@pytest.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    async with wire_to(database_url) as wire:
        yield wire


async def test_a_stop_waits_for_an_open_submit(line: Line) -> None:
    first = line.start(drain=10.0)
    held = Held(success("j1"))
    line.provider.scripted(held)
    record_id = await line.ask()
    await held.asked.wait()
    first.stop.set()
    held.go.set()
    await first.stopped()
    row = await line.ended(record_id)
    assert (row.attempt, len(line.provider.submits)) == (1, 1)


async def test_a_submit_still_open_when_the_grace_ends_is_uncertain(line: Line) -> None:
    first = line.start(drain=0.2)
    held = Held(success("j1"))
    line.provider.scripted(held)
    record_id = await line.ask()
    await held.asked.wait()
    await first.stopped()
    assert await line.outcomes(record_id) == ["uncertain"]
    assert await line.steps.used() == 0
    line.start()
    row = await line.ended(record_id)
    assert (row.retry_count, len(line.provider.submits)) == (1, 2)
    assert await line.outcomes(record_id) == ["uncertain", "success"]


async def test_a_stop_hands_back_what_has_an_id_and_the_next_goes_on_with_it(line: Line) -> None:
    first = line.start(poll_interval=60.0)
    line.provider.scripted(processing("j1", eta=60))
    record_id = await line.ask()
    await line.reaches(record_id, "generating")
    await first.stopped()
    row = await line.steps.record(record_id)
    assert (row.claim_token, row.status, row.takeovers) == (None, "in_progress", 0)
    # taken over it is looked at at once: how old its estimate is nobody knows
    line.start()
    row = await line.ended(record_id)
    assert (row.attempt, row.retry_count, row.takeovers) == (1, 0, 0)
    assert (len(line.provider.submits), len(line.provider.fetches)) == (1, 1)


async def test_a_dead_workers_job_is_looked_at_when_its_life_ends_and_not_a_sweep_later(line: Line) -> None:
    # before anybody is there who might dispatch it
    await provide_slots(line.steps.database, 3)
    worker = await line.steps.worker()
    sent = await line.steps.sent(worker)
    await line.steps.named(sent)
    await line.steps.sql("UPDATE generation_attempts SET eta = 600")
    swept = _sweeps()
    line.start(sweep=60.0)

    async def sweeps() -> bool:
        return _sweeps() > swept

    await line.until(sweeps)
    await line.steps.sql("UPDATE workers SET alive_until = clock_timestamp() + interval '1 s' WHERE id = $1", worker)
    row = await line.ended(sent.record_id, within=20.0)
    assert (row.attempt, row.retry_count, row.takeovers) == (1, 0, 0)
    assert (len(line.provider.submits), len(line.provider.fetches)) == (0, 1)


def _sweeps() -> float:
    return metrics.of_process().value("sweeps", outcome="done")


async def test_a_submit_that_gets_its_id_while_stopping_is_handed_back(line: Line) -> None:
    first = line.start(drain=10.0, poll_interval=60.0)
    held = Held(processing("j1", eta=0.01))
    line.provider.scripted(held, fetches=tuple([processing("j1")] * 3))
    record_id = await line.ask()
    await held.asked.wait()
    first.stop.set()
    held.go.set()
    await first.stopped()
    row = await line.steps.record(record_id)
    assert (row.claim_token, row.provider_request_id) == (None, "j1")
    line.start()
    await line.ended(record_id)
    assert len(line.provider.submits) == 1


@pytest.mark.chaos
async def test_postgres_dies_while_a_submit_is_open(
    private_postgres: Postgres, kafka_servers: str, namespace: str, tmp_path: Path
) -> None:
    settings = settings_of(private_postgres.url(), kafka_servers, namespace, tmp_path / "media", admit_after=0.001)
    async with line_of(settings, topics=False) as line:
        line.start()
        synchronous, job = Held(success("j1")), Held(processing("j2"))
        line.provider.scripted(synchronous, job)
        records = [await line.ask(), await line.ask()]
        await synchronous.asked.wait()
        await job.asked.wait()
        await asyncio.to_thread(private_postgres.kill)
        synchronous.go.set()
        job.go.set()
        await asyncio.to_thread(private_postgres.start)
        for record_id in records:
            row = await line.ended(record_id)
            assert (row.attempt, row.retry_count) == (1, 0)
        assert len(line.provider.submits) == 2
        await line.steps.check()


async def test_a_worker_cut_off_while_it_follows_is_taken_over_and_comes_back_as_another(
    line: Line, wire: Wire
) -> None:
    cut_off = line.start(database_url=wire.url, worker_life=0.5, worker_beat=0.1, mark_life=0.4)
    line.provider.scripted(processing("j1", eta=0.01), fetches=tuple([processing("j1")] * 1000))
    record_id = await line.ask()
    await line.reaches(record_id, "generating")
    await wire.cut()
    line.start(worker_life=0.5, worker_beat=0.1, mark_life=0.4)

    async def taken() -> bool:
        (row,) = await line.steps.sql("SELECT count(*) AS fenced FROM workers WHERE fenced_at IS NOT NULL")
        return bool(row.fenced)

    await line.until(taken)
    await wire.mend()

    async def back() -> bool:
        (row,) = await line.steps.sql("SELECT count(*) AS alive FROM workers WHERE fenced_at IS NULL")
        return bool(row.alive == 2)

    await line.until(back)
    line.provider.fetch_answers.clear()
    row = await line.ended(record_id)
    assert (row.attempt, row.retry_count, len(line.provider.submits)) == (1, 0, 1)
    assert not cut_off.task.done()


async def test_the_id_that_a_cut_off_worker_learned_is_followed_and_not_paid_again(line: Line, wire: Wire) -> None:
    """Its submit is called uncertain by others; the id is written when the line is back, and the next attempt sends
    nothing."""
    line.start(database_url=wire.url, worker_life=0.5, worker_beat=0.1, mark_life=0.4)
    held = Held(processing("j1", eta=0.01))
    line.provider.scripted(held)
    record_id = await line.ask()
    await held.asked.wait()
    await wire.cut()
    held.go.set()
    line.start(worker_life=0.5, worker_beat=0.1, mark_life=0.4, retry_delays=(600.0,))

    async def called_uncertain() -> bool:
        return await line.outcomes(record_id) == ["uncertain"]

    await line.until(called_uncertain)
    await wire.mend()
    # not when its retry is due: as soon as the id is known
    row = await line.ended(record_id)
    assert (row.retry_count, len(line.provider.submits)) == (1, 1)
    assert (await line.outcomes(record_id))[0] == "late_success"


@pytest.mark.parametrize(
    ("statement", "submits"),
    [
        ("INSERT INTO generation_attempts AS t", 1),
        ("SET sent_at = clock_timestamp()", 1),
        ("AS s(attempt_id, token, request_id", 1),
    ],
    ids=["claim", "mark", "id"],
)
async def test_a_commit_whose_answer_was_lost_leaves_nothing_lying_about(
    line: Line, wire: Wire, statement: str, submits: int
) -> None:
    wire.lose_the_answer_to(statement)
    line.start(database_url=wire.url)
    line.provider.scripted(processing("j1"))
    record_id = await line.ask()
    row = await line.ended(record_id)
    assert wire.lost.is_set()
    assert (row.attempt, row.retry_count, len(line.provider.submits)) == (1, 0, submits)
    await line.steps.check()


@pytest.mark.parametrize(
    ("statement", "answer", "retries", "submits"),
    [
        ("'handed_over'", error("Model not found: x", 404), 0, 2),
        ("retry_wait", error("Service temporarily unavailable", 503), 1, 2),
        ("AS s(attempt_id, token, image_key", success("j1"), 0, 1),
    ],
    ids=["next model", "retry", "completed"],
)
async def test_a_statement_whose_answer_was_lost_leaves_nothing_lying_about(
    line: Line, wire: Wire, statement: str, answer: Any, retries: int, submits: int
) -> None:
    wire.lose_the_answer_to(statement, transaction=False)
    line.start(database_url=wire.url)
    line.provider.scripted(answer)
    record_id = await line.ask()
    row = await line.ended(record_id)
    assert wire.lost.is_set()
    assert (row.retry_count, len(line.provider.submits)) == (retries, submits)
    await line.steps.check()


async def test_a_bug_after_the_provider_took_the_job_does_not_pay_again(line: Line) -> None:
    line.start()

    async def broken(call: Any) -> httpx.Response:
        raise RuntimeError("a bug of ours")

    line.provider.scripted(processing("j1", eta=0.01), fetches=(broken, success("j1")))
    line.pictures.answers.append(500)
    record_id = await line.ask()
    row = await line.ended(record_id)
    assert (row.retry_count, len(line.provider.submits)) == (0, 1)


async def test_two_consumers_share_the_work_and_the_slots(line: Line) -> None:
    line.provider.scripted(*[error("Service temporarily unavailable", 503)] * 4)
    # all are there when the work begins: one alone would meet all the failures
    records = [await line.ask() for _ in range(12)]
    line.start()
    line.start()
    for record_id in records:
        await line.ended(record_id)
    assert len(line.provider.submits) == 16
    assert line.provider.most_open <= 3
    await line.steps.check()


async def test_a_consumer_stops_in_time_with_postgres_gone(line: Line, wire: Wire) -> None:
    running = line.start(database_url=wire.url, poll_interval=60.0)
    line.provider.scripted(processing("j1", eta=60))
    record_id = await line.ask()
    await line.reaches(record_id, "generating")
    await wire.cut()
    await running.stopped(within=20)
    # its claim dies with it
    await line.steps.sql("UPDATE generation_attempts SET eta = 0")
    line.start()
    await line.ended(record_id)
    assert len(line.provider.submits) == 1


async def test_a_consumer_that_cannot_work_ends_instead_of_idling(line: Line) -> None:
    await line.steps.sql("DROP TABLE provider_slots")
    running = line.start()
    async with asyncio.timeout(20):
        with pytest.raises(DBAPIError):
            await running.task
