"""SIGTERM in mid-call, and consumers that come and go: nobody notices, and nothing is submitted twice."""

import asyncio
from datetime import datetime

import pytest

from storage.database import Database
from tests.chaos import books
from tests.chaos.people import PATIENCE, Person, person
from tests.chaos.scenes import JOB, SLOW_ANSWER, comes_true, in_mid_call
from tests.chaos.street import Street

pytestmark = [pytest.mark.chaos, pytest.mark.connected]

_MANY = 50
_WORK = 1.0
_LATE = 3.0
"""Seconds beyond its own work, of which a scene waits for nobody's stop or start."""

_ALL_SENT = """
SELECT FROM generation_attempts a JOIN image_generations g ON g.id = a.record_id
WHERE g.user_id = $1 AND a.sent_at IS NOT NULL HAVING count(*) = $2
"""


async def test_sigterm_with_fifty_in_flight(street: Street, database: Database) -> None:
    await street.script(
        {"text": SLOW_ANSWER, "action": {"answer": "success", "latency": 5}},
        {"text": JOB, "action": {"answer": "processing", "duration": 6}},
    )
    await street.retire("consumer-1", "consumer-2")
    for name in ("consumer-wide", "consumer-heir"):
        street.add(name, SCENEWIRE_PROVIDER_SLOTS=str(_MANY))
    async with person(street) as one:
        await asyncio.gather(one.asks(SLOW_ANSWER, _MANY // 2), one.asks(JOB, _MANY // 2))
        # all of them wait for it: they are sent together
        await street.start("consumer-wide")
        await comes_true(database, _ALL_SENT, one.user_id, _MANY)
        heir = asyncio.create_task(street.start("consumer-heir"))
        # open submits get their answers; what has an id is handed back at once
        assert await street.stop("consumer-wide") == 0
        await heir
        balance = await books.close(street, database, one, slots=_MANY)
    assert balance.faults == []
    assert street.in_flight_max == _MANY
    assert (balance.completed, balance.submits, balance.uncertain) == (_MANY, _MANY, 0)
    assert {len(attempts) for attempts in balance.attempts.values()} == {1}


async def test_consumers_are_restarted_one_by_one_join_and_leave_under_load(street: Street, database: Database) -> None:
    await street.script(
        {"text": SLOW_ANSWER, "action": {"answer": "success", "latency": _WORK}},
        {"text": JOB, "action": {"answer": "processing", "duration": _WORK}},
    )
    street.add("consumer-3")
    over = asyncio.Event()
    async with person(street) as one, person(street, "premium") as other:
        load = [asyncio.create_task(_one_after_another(who, text, over)) for who in (one, other) for text in _WISHES]
        await in_mid_call(database, one, other)
        # the third joins, each is restarted, and it leaves again
        await street.start("consumer-3")
        for name in ("consumer-1", "consumer-2", "consumer-3"):
            assert await street.stop(name) == 0
            await street.start(name)
        assert await street.stop("consumer-3") == 0
        over.set()
        await asyncio.gather(*load)
        balance = await books.close(street, database, one, other)
    assert balance.faults == []
    assert (balance.submits, balance.uncertain) == (balance.accepted, 0)
    assert {len(attempts) for attempts in balance.attempts.values()} == {1}
    took = sorted(_seconds(record["created_at"], record["completed_at"]) for record in balance.records.values())
    assert took[-1] <= _WORK + _LATE, took[-5:]


_WISHES = (JOB, SLOW_ANSWER)


async def _one_after_another(who: Person, text: str, over: asyncio.Event) -> None:
    """The next scene is asked for when the page shows the one before."""
    while not over.is_set():
        (record_id,) = await who.asks(text)
        assert await who.watcher.until(lambda i=str(record_id): _is_shown(who, i), PATIENCE)  # type: ignore[misc]


def _is_shown(who: Person, record_id: str) -> bool:
    return bool(who.watcher.seen.get(record_id, {}).get("status") == "completed")


def _seconds(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
