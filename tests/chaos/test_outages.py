"""Kafka and Postgres are gone for a while, killed and not stopped: nothing is lost and no hand is needed."""

import asyncio
from uuid import uuid4

import pytest

from storage.database import Database
from tests.chaos import books
from tests.chaos.people import person
from tests.chaos.periods import MINUTE
from tests.chaos.scenes import AT_ONCE, JOB, MIXED, SLOW_ANSWER, in_mid_call, reaches
from tests.chaos.street import Street

pytestmark = [pytest.mark.chaos, pytest.mark.connected]


@pytest.mark.parametrize(
    "gone",
    [("kafka",), ("postgres",), pytest.param(("kafka", "postgres"), marks=pytest.mark.lengthy)],
    ids="+".join,
)
async def test_gone_for_a_minute(street: Street, database: Database, gone: tuple[str, ...]) -> None:
    await street.script(*MIXED)
    async with person(street) as one, person(street, "premium") as other:
        asking = asyncio.gather(one.asks(JOB, 4), other.asks(SLOW_ANSWER, 3))
        await in_mid_call(database, one, other)
        await street.kill(*gone)
        seen = asyncio.Event()
        back = asyncio.create_task(_back_after(street, MINUTE, seen, *gone))
        if "postgres" in gone:
            answer = await one.post(AT_ONCE, scene=1_000, key=str(uuid4()))
            assert answer is not None
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        else:
            # accepted as ever, and made: only the news waits
            await reaches(database, await one.asks(AT_ONCE, 2), "done")
        seen.set()
        await asyncio.gather(asking, one.asks(JOB, 2), other.asks(SLOW_ANSWER, 2))
        await back
        balance = await books.close(street, database, one, other)
    assert balance.faults == []
    assert balance.completed == balance.accepted
    # our own house being down is no failure of an attempt: what the provider answered meanwhile was kept in memory
    assert (balance.submits, balance.uncertain) == (balance.accepted, 0)
    assert {len(attempts) for attempts in balance.attempts.values()} == {1}


async def _back_after(street: Street, seconds: float, seen: asyncio.Event, *names: str) -> None:
    """Not before `seen` either: what the test looks at while they are gone."""
    await asyncio.sleep(seconds)
    await seen.wait()
    await street.start(*names)
