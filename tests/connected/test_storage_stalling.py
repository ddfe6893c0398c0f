"""What dispatch should have taken: shown only where nothing says that it is to wait."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from schemas.words import Tier
from storage import stalling
from tests.connected.steps import Steps, request, steps_of

pytestmark = pytest.mark.connected


@pytest.fixture
async def steps(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url, slots=2) as steps:
        yield steps


async def _seen(steps: Steps) -> set[UUID]:
    return set(await stalling.undispatched(steps.database))


async def test_the_first_of_each_lane_while_a_slot_is_free(steps: Steps) -> None:
    assert await _seen(steps) == set()
    first, second, premium = request(), request(), request(tier=Tier.PREMIUM)
    await steps.waiting(first)
    await steps.waiting(second, premium)
    assert await _seen(steps) == {first.record_id, premium.record_id}
    worker = await steps.worker()
    claims = await steps.claim(worker)
    assert {one.record_id for one in claims} == {first.record_id, premium.record_id}
    # no slot is free
    assert await _seen(steps) == set()
    await steps.sql("UPDATE provider_slots SET attempt_id = NULL WHERE slot = 1")
    assert await _seen(steps) == {second.record_id}
    # it rests after a rate limit
    await steps.sql("UPDATE provider_slots SET free_at = now() + interval '1 h' WHERE slot = 1")
    assert await _seen(steps) == set()


async def test_nothing_while_it_is_right_to_wait(steps: Steps) -> None:
    (record_id,) = await steps.waiting()
    assert await _seen(steps) == {record_id}
    await steps.sql("UPDATE image_generations SET retry_at = now() + interval '5 s'")
    assert await _seen(steps) == set()
    await steps.sql("UPDATE image_generations SET retry_at = now(), admitted_at = NULL")
    assert await _seen(steps) == set()
    await steps.sql("UPDATE image_generations SET admitted_at = now()")
    assert await _seen(steps) == {record_id}
    await steps.sql(
        "INSERT INTO breakers (scope, opened_at) VALUES ('provider', now())"
        " ON CONFLICT (scope) DO UPDATE SET opened_at = now()"
    )
    assert await _seen(steps) == set()
    await steps.sql("UPDATE breakers SET opened_at = NULL")
    assert await _seen(steps) == {record_id}


async def test_nothing_while_too_much_is_being_stored(steps: Steps) -> None:
    worker = await steps.worker()
    for _ in range(8):
        await steps.waiting()
        (claimed,) = await steps.claim(worker, limit=1)
        await steps.mark(claimed)
        await steps.named(claimed)
        assert await steps.generated(claimed)
    (record_id,) = await steps.waiting()
    assert await _seen(steps) == set()
    assert await steps.claim(worker) == []
    await steps.stored(claimed)
    assert await _seen(steps) == {record_id}
