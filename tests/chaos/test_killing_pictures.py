"""A picture that brings down whoever opens it: it is found, and its neighbours are not held up (PIPELINE W5)."""

import asyncio
import signal

import pytest

from schemas import topics
from schemas.errors import ErrorClass
from storage.database import Database
from tests.chaos import books
from tests.chaos.people import person
from tests.chaos.scenes import SLOW_PICTURE, comes_true, record
from tests.chaos.street import Street

pytestmark = [pytest.mark.chaos, pytest.mark.connected]

_DEADLY = "A scene whose picture kills"
_BRITTLE = ("consumer-brittle-1", "consumer-brittle-2")


async def test_a_picture_that_kills_its_workers_is_buried_and_the_others_complete(
    street: Street, database: Database
) -> None:
    await street.script(
        {"text": _DEADLY, "action": {"answer": "success", "picture": "webp"}},
        # in the same worker's hands when it dies
        {"call": "picture", "text": SLOW_PICTURE, "first": 4, "action": {"answer": "success", "latency": 1}},
        pictures="drawn",
    )
    await street.retire("consumer-1", "consumer-2")
    for name in _BRITTLE:
        street.add(name, module="tests.chaos.brittle_consumer", arguments=["--dies-of", "webp"])
    await street.start(*_BRITTLE)
    deaths: list[int | None] = []
    keeping = [asyncio.create_task(_keep(street, name, deaths)) for name in _BRITTLE]
    try:
        async with person(street) as one:
            await one.asks(SLOW_PICTURE, 4)
            (deadly,) = await one.asks(_DEADLY)
            await comes_true(database, "SELECT FROM image_generations WHERE id = $1 AND status = 'failed'", deadly)
            await one.asks(SLOW_PICTURE, 2)
            balance = await books.close(street, database, one)
            row = await record(database, deadly)
    finally:
        for keeper in keeping:
            keeper.cancel()
        await asyncio.wait(keeping)
    assert balance.faults == []
    assert (balance.completed, balance.failed) == (6, {"kills_workers": 1})
    assert (row.error_class, row.takeovers) == (ErrorClass.UNEXPECTED, 3)
    assert deaths == [-signal.SIGKILL] * 3
    # made once: its bytes were at fault, not the provider
    assert (balance.submits, len(balance.attempts[deadly])) == (7, 1)
    (letter,) = await database.fetch("SELECT topic, error_code FROM dead_letters WHERE record_id = $1", deadly)
    assert (letter.topic, letter.error_code) == (topics.dead(ErrorClass.UNEXPECTED), "kills_workers")


async def _keep(street: Street, name: str, deaths: list[int | None]) -> None:
    """As a supervisor does: what has died is started again."""
    server = street.servers[name]
    while True:
        if await street.do(server.wait_stopped, 0.5):
            deaths.append(server.exit_code)
            # not until it is ready: it may take the picture over, and die of it, before
            await street.do(server.launch)
