"""SIGKILL in mid-call, one of two and all at once: all that was accepted ends and is shown, and is paid once."""

import asyncio
import signal

import pytest

from storage.database import Database
from tests.chaos import books
from tests.chaos.people import Person, person
from tests.chaos.scenes import JOB, MIXED, SLOW_ANSWER, SLOW_PICTURE, in_mid_call
from tests.chaos.street import Street

pytestmark = [pytest.mark.chaos, pytest.mark.connected]


@pytest.mark.parametrize("kind", ["consumer", "relay", "producer", "notifier"])
async def test_one_of_two_is_killed(street: Street, database: Database, kind: str) -> None:
    await street.script(*MIXED)
    async with person(street) as one, person(street, "premium") as other:
        await _all_ask(one, other)
        await in_mid_call(database, one, other)
        victim = await street.active_relay() if kind == "relay" else f"{kind}-1"
        await street.kill(victim)
        assert street.servers[victim].exit_code == -signal.SIGKILL
        await _all_ask(one, other)
        back = asyncio.create_task(street.start(victim))
        balance = await books.close(street, database, one, other)
        await back
    assert balance.faults == []
    assert (balance.accepted, balance.completed) == (20, 20)
    assert balance.submits <= 20 + balance.uncertain


async def _all_ask(*people: Person) -> None:
    await asyncio.gather(
        *(one.asks(text, n) for one in people for text, n in ((JOB, 3), (SLOW_ANSWER, 1), (SLOW_PICTURE, 1)))
    )
