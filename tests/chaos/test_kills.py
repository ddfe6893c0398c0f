"""SIGKILL in mid-call, one of two and all at once: all that was accepted ends and is shown, and is paid once."""

import asyncio
import random
import signal

import pytest

from storage.database import Database
from tests.chaos import books
from tests.chaos.people import Person, person
from tests.chaos.scenes import JOB, MIXED, SLOW_ANSWER, SLOW_PICTURE, comes_true, in_mid_call
from tests.chaos.street import Street

pytestmark = [pytest.mark.chaos, pytest.mark.connected]


@pytest.mark.parametrize("kind", ["relay", "producer", "notifier"])
async def test_one_of_two_is_killed(street: Street, database: Database, kind: str) -> None:
    await street.script(*MIXED)
    async with person(street) as one, person(street, "premium") as other:
        asking = asyncio.create_task(_all_ask(one, other))
        await in_mid_call(database, one, other)
        victim = await street.active_relay() if kind == "relay" else f"{kind}-1"
        await street.kill(victim)
        assert street.servers[victim].exit_code == -signal.SIGKILL
        await asyncio.gather(asking, _all_ask(one, other))
        # the one that is left does it all; the other comes back meanwhile
        back = asyncio.create_task(street.start(victim))
        balance = await books.close(street, database, one, other)
        await back
    assert balance.faults == []
    assert (balance.accepted, balance.completed) == (20, 20)
    assert balance.submits <= 20 + balance.uncertain


async def test_everything_is_killed_at_once(street: Street, database: Database) -> None:
    await street.script(*MIXED)
    everything = [name for name in street.servers if name != "simulator"]
    async with person(street) as one, person(street, "premium") as other:
        asking = asyncio.gather(_all_ask(one, other))
        await in_mid_call(database, one, other)
        await street.kill(*everything)
        asking = asyncio.gather(asking, _all_ask(one, other))
        # our own processes do not wait for Kafka and Postgres to be there
        await street.start(*everything)
        await asking
        balance = await books.close(street, database, one, other)
    assert balance.faults == []
    assert (balance.accepted, balance.completed) == (20, 20)
    assert balance.submits <= 20 + balance.uncertain


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.lengthy)])
async def test_consumers_are_killed_and_the_slots_are_never_exceeded(
    street: Street, database: Database, kills: int
) -> None:
    await street.script(
        {"probability": 0.4, "action": {"answer": "success", "latency": {"low": 0.2, "high": 2}}},
        {"action": {"answer": "processing", "duration": {"low": 0.2, "high": 3}}},
    )
    chance = random.Random(7)
    async with person(street) as one, person(street, "premium") as other:
        killed = 0
        backs: list[asyncio.Task[None]] = []
        while killed < kills:
            asking = asyncio.gather(one.asks(JOB, 2), other.asks(JOB, 2))
            victim = chance.choice(["consumer-1", "consumer-2"])
            if street.servers[victim].is_running:
                await comes_true(database, _WORKS, one.user_id, other.user_id)
                await street.kill(victim)
                killed += 1
                backs.append(asyncio.create_task(street.start(victim)))
            await asking
            # one of them is there again at least
            await asyncio.wait(backs, return_when=asyncio.FIRST_COMPLETED)
            backs = [back for back in backs if not back.done()]
        await asyncio.gather(*backs)
        balance = await books.close(street, database, one, other)
    assert balance.faults == []
    assert balance.completed == balance.accepted
    assert balance.submits <= balance.accepted + balance.uncertain


_WORKS = """
SELECT FROM image_generations
WHERE user_id IN ($1, $2) AND claim_token IS NOT NULL AND stage IN ('submitting', 'generating')
"""


async def _all_ask(*people: Person) -> None:
    wishes = ((JOB, 3), (SLOW_ANSWER, 1), (SLOW_PICTURE, 1))
    await asyncio.gather(*(one.asks(text, count) for one in people for text, count in wishes))
