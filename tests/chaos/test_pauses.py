"""A consumer that stands still beyond its life (SIGSTOP) and goes on: it writes nothing to what others took over."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from storage.database import Database
from tests.chaos import books
from tests.chaos.people import PATIENCE, Person, person
from tests.chaos.scenes import AT_ONCE, HELD, JOB, attempts, comes_true, reaches, record
from tests.chaos.street import Street

pytestmark = [pytest.mark.chaos, pytest.mark.connected]


async def test_stopped_while_it_follows_a_job(street: Street, database: Database) -> None:
    job: dict[str, Any] = {"text": JOB, "action": {"answer": "processing", "duration": 0.5}}
    await street.script(job, *HELD)
    await street.retire("consumer-2")
    async with person(street) as one:
        (record_id,) = await one.asks(JOB)
        await reaches(database, [record_id], "generating")
        frozen = (await record(database, record_id)).worker_id
        await street.pause("consumer-1")
        await street.script(job)
        await street.start("consumer-2")
        await reaches(database, [record_id], "done")
        before = await record(database, record_id)
        await street.resume("consumer-1")
        await comes_true(database, "SELECT FROM workers WHERE id = $1 AND fenced_at IS NOT NULL", frozen)
        await _alone_it_works_again(street, database, one, "consumer-2")
        assert await record(database, record_id) == before
        balance = await books.close(street, database, one)
    assert balance.faults == []
    assert (balance.submits, balance.uncertain) == (2, 0)


async def test_stopped_before_its_sending_mark_it_submits_nothing(street: Street, database: Database) -> None:
    async with _one_that_stops(street, "before-mark"), person(street) as one:
        (record_id,) = await one.asks(AT_ONCE)
        await _stands_still(street)
        await street.start("consumer-1")
        await reaches(database, [record_id], "done")
        before = await record(database, record_id)
        await street.resume("consumer-brittle")
        await _is_another_now(street, database)
        assert await record(database, record_id) == before
        # what was not sent is not uncertain: the same attempt was sent by who took it over
        assert await attempts(database, record_id) == [(1, "success")]
        balance = await books.close(street, database, one)
    assert balance.faults == []
    assert (balance.submits, balance.uncertain) == (1, 0)


@pytest.mark.lengthy
async def test_stopped_between_mark_and_call_it_submits_nothing(street: Street, database: Database) -> None:
    async with _one_that_stops(street, "after-mark"), person(street) as one:
        (record_id,) = await one.asks(AT_ONCE)
        await _stands_still(street)
        await street.start("consumer-1")
        await reaches(database, [record_id], "done")
        # nobody can know that it was not sent, until it says so
        assert await attempts(database, record_id) == [(1, "uncertain"), (2, "success")]
        before = await record(database, record_id)
        await street.resume("consumer-brittle")
        await comes_true(
            database, "SELECT FROM generation_attempts WHERE record_id = $1 AND outcome = 'not_sent'", record_id
        )
        await _is_another_now(street, database)
        assert await record(database, record_id) == before
        balance = await books.close(street, database, one)
    assert balance.faults == []
    assert (balance.submits, balance.uncertain) == (1, 0)


@asynccontextmanager
async def _one_that_stops(street: Street, at: str) -> AsyncIterator[None]:
    """The only consumer is one that stands still at a certain moment of its first attempt."""
    await street.retire("consumer-1", "consumer-2")
    street.add("consumer-brittle", module="tests.chaos.brittle_consumer", arguments=["--stops-at", at])
    await street.start("consumer-brittle")
    yield


async def _stands_still(street: Street) -> None:
    async def stopped() -> bool:
        return street.is_stopped("consumer-brittle")

    assert await books.until(stopped, PATIENCE), "it did not stop itself"
    assert await street.calls() == []


async def _alone_it_works_again(street: Street, database: Database, one: Person, other: str) -> None:
    """The other goes, and the one that stood still takes new work under its new id."""
    await street.kill(other)
    await reaches(database, await one.asks(AT_ONCE), "done")


async def _is_another_now(street: Street, database: Database) -> None:
    """It has learned that it was taken for dead, and works under a new id."""
    mine = f"%:{street.servers['consumer-brittle'].pid}"
    for fenced in ("IS NOT NULL", "IS NULL AND alive_until > now()"):
        await comes_true(database, f"SELECT FROM workers WHERE name LIKE $1 AND fenced_at {fenced}", mine)
