"""Dispatch on real Postgres (PIPELINE D): fair, never over the slots, and nothing that is not due or not ours."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from schemas.words import Lane, Tier
from storage import abandoned, admitting, deadlines, takeovers, workers
from storage.dispatching import Claimed
from tests.connected.steps import Steps, asked, database_of, dispatcher_of, request, statuses, steps_of

pytestmark = pytest.mark.connected


@pytest.fixture
async def steps(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url, slots=12) as steps:
        yield steps


async def _crowd(steps: Steps, *lanes: Lane, each: int = 15) -> None:
    """Requests of many users in each of these lanes."""
    for lane in lanes:
        await steps.admit(*(asked(request(), lane=lane) for _ in range(each)))


async def _finished(steps: Steps, claims: list[Claimed]) -> None:
    """All of these are made and stored, and their slots free."""
    for claimed in claims:
        await steps.mark(claimed)
        await steps.generated(claimed)
        await steps.stored(claimed)


async def test_lanes_are_served_eight_to_three_to_one_over_any_stretch(steps: Steps) -> None:
    await _crowd(steps, *Lane, each=20)
    worker = await steps.worker()
    assert Counter(one.lane for one in await steps.claim(worker)) == {"interactive": 8, "standard": 3, "bulk": 1}
    # and by ones, as slots fall free in life: the credit is kept between the claims
    await steps.sql("UPDATE provider_slots SET attempt_id = NULL")
    await steps.sql("UPDATE generation_attempts SET outcome = 'success'")
    lanes: Counter[str] = Counter()
    for _ in range(12):
        (one,) = await steps.claim(worker, limit=1)
        lanes[one.lane] += 1
    assert lanes == {"interactive": 8, "standard": 3, "bulk": 1}


async def test_an_empty_lanes_share_goes_to_the_others(steps: Steps) -> None:
    await _crowd(steps, Lane.STANDARD, Lane.BULK)
    claims = await steps.claim(await steps.worker())
    assert Counter(one.lane for one in claims) == {"standard": 9, "bulk": 3}


async def test_one_users_thousand_scenes_leave_the_others_their_turns(steps: Steps) -> None:
    crowd = uuid4()
    await steps.admit(*(asked(request(crowd, scene=i)) for i in range(1, 301)))
    others = [request() for _ in range(5)]
    await steps.admit(*(asked(one) for one in others))
    claims = await steps.claim(await steps.worker())
    assert {one.record_id for one in others} <= {one.record_id for one in claims[:6]}
    rows = await steps.sql(
        "SELECT scene_number FROM image_generations WHERE claim_token IS NOT NULL AND user_id = $1", crowd
    )
    assert sorted(row.scene_number for row in rows) == list(range(1, 8))


async def test_dispatchers_at_once_never_exceed_the_slots_and_claim_nothing_twice(
    steps: Steps, database_url: str
) -> None:
    await _crowd(steps, *Lane, each=20)
    async with AsyncExitStack() as stack:
        dispatchers = [dispatcher_of(await stack.enter_async_context(database_of(database_url))) for _ in range(4)]
        ids = [await steps.worker() for _ in dispatchers]
        claims = await asyncio.gather(
            *(
                dispatcher.claim(worker, limit=5)
                for dispatcher, worker in zip(dispatchers, ids, strict=True)
                for _ in range(3)
            )
        )
    claimed = [one.record_id for some in claims for one in some]
    assert len(claimed) == len(set(claimed))
    await steps.check()
    # whoever found all free slots locked left them to those who had them: a next look takes what is left
    claimed += [one.record_id for one in await steps.claim(ids[0])]
    assert len(claimed) == len(set(claimed)) == await steps.used() == 12


async def test_a_record_that_somebody_works_on_is_passed_over(steps: Steps, database_url: str) -> None:
    first, second = await steps.waiting(request(), request())
    async with database_of(database_url) as other, other.transaction() as held:
        await held.fetch("SELECT FROM image_generations WHERE id = $1 FOR UPDATE", first)
        (claimed,) = await steps.claim(await steps.worker())
    assert claimed.record_id == second


async def test_only_what_is_due_admitted_and_in_time_is_dispatched(steps: Steps) -> None:
    worker = await steps.worker()
    not_admitted, later, late, ready = (request() for _ in range(4))
    await steps.accept(not_admitted, later, late, ready)
    await steps.admit(*(asked(one) for one in (later, late, ready)))
    await steps.sql("UPDATE image_generations SET retry_at = now() + interval '1 h' WHERE id = $1", later.record_id)
    await steps.sql("UPDATE image_generations SET deadline_at = now() WHERE id = $1", late.record_id)
    assert [one.record_id for one in await steps.claim(worker)] == [ready.record_id]
    await steps.due(later.record_id)
    assert [one.record_id for one in await steps.claim(worker)] == [later.record_id]
    assert not await steps.claim(worker)


async def test_a_slot_that_rests_after_a_rate_limit_is_not_used(steps: Steps) -> None:
    await _crowd(steps, Lane.STANDARD)
    await steps.sql("UPDATE provider_slots SET free_at = now() + interval '30 s' WHERE slot > 2")
    assert len(await steps.claim(await steps.worker())) == 2


async def test_nothing_of_the_old_system_is_ever_touched(steps: Steps) -> None:
    await steps.sql(
        "INSERT INTO image_generations (id, user_id, status, created_at, scene_description, metadata)"
        " SELECT gen_random_uuid(), gen_random_uuid(), status, now() - interval '3 days', 'a tea party', '{}'"
        " FROM generate_series(1, 50), unnest(ARRAY['pending', 'in_progress']) AS status"
    )
    before = await steps.sql("SELECT id, xmin::text FROM image_generations ORDER BY id")
    worker, dead = await steps.worker(), await steps.worker()
    await steps.die(dead, ago=60)
    assert await admitting.admit_overdue(steps.database, after=30) == 0
    assert await steps.claim(worker) == []
    taken = await steps.take_over(worker)
    assert (taken.resumed, taken.released) == ([], 0)
    await workers.fence_silent(steps.database, after=20)
    assert await abandoned.unanswered(steps.database, after=20) == []
    assert await steps.adopt(worker) == []
    assert await takeovers.forgotten(steps.database, worker, []) == []
    assert await deadlines.end_overdue(steps.database, claimed_grace=0) == 0
    assert await steps.sql("SELECT id, xmin::text FROM image_generations ORDER BY id") == before
    assert await steps.told() == []


async def test_nothing_new_while_four_times_the_slots_are_being_stored(steps: Steps) -> None:
    await workers.provide_slots(steps.database, 2)
    await _crowd(steps, Lane.STANDARD, each=12)
    worker = await steps.worker()
    storing: list[Claimed] = []
    while claims := await steps.claim(worker):
        for claimed in claims:
            await steps.mark(claimed)
            await steps.generated(claimed)
        storing += claims
    assert len(storing) == 8
    assert await steps.used() == 0
    await steps.stored(storing[0])
    assert len(await steps.claim(worker)) == 2


async def test_what_was_handed_back_unsent_keeps_its_attempt_as_it_was(steps: Steps) -> None:
    first = await steps.claimed()
    await steps.told()
    assert await takeovers.hand_back(steps.database, [first.claim_token]) == 1
    await steps.check()
    assert await steps.used() == 0
    row = await steps.record(first.record_id)
    assert (row.status, row.stage, row.claim_token, row.worker_id) == ("in_progress", "queued", None, None)
    (status,) = statuses(await steps.told())
    assert (status["version"], status["stage"], status["attempt"]) == (3, "queued", 1)
    # the request's own words may change in between: what was frozen is sent
    await steps.sql("UPDATE image_generations SET scene_description = 'other words'")
    (again,) = await steps.claim(await steps.worker())
    assert (again.attempt_id, again.attempt, again.payload) == (first.attempt_id, 1, first.payload)
    assert again.claim_token != first.claim_token
    assert len(await steps.attempts(first.record_id)) == 1


async def test_the_first_dispatch_sets_the_time_in_which_a_record_must_end(steps: Steps) -> None:
    soon, bulk = request(), request()
    await steps.admit(asked(soon), asked(bulk, lane=Lane.BULK))
    claims = {one.record_id: one for one in await steps.claim(await steps.worker())}
    assert claims[soon.record_id].seconds_left == pytest.approx(900, abs=30)
    assert claims[bulk.record_id].seconds_left == pytest.approx(86_400, abs=30)
    before = await steps.record(soon.record_id)
    await steps.mark(claims[soon.record_id])
    await steps.retry(claims[soon.record_id])
    await steps.due(soon.record_id)
    await steps.claim(await steps.worker())
    after = await steps.record(soon.record_id)
    assert (after.first_dispatched_at, after.deadline_at) == (before.first_dispatched_at, before.deadline_at)


async def test_a_dispatch_is_told_as_every_reader_sees_it(steps: Steps) -> None:
    new = request(tier=Tier.PREMIUM)
    await steps.accept(new)
    await steps.admit(asked(new))
    await steps.told()
    (claimed,) = await steps.claim(await steps.worker())
    (status,) = await steps.told()
    assert status.key == str(new.chapter_id)
    assert status.data == await steps.status(new.record_id)
    expected = ("in_progress", "submitting", 2, 1, "first-model", 5)
    assert (
        tuple(status.data[name] for name in ("status", "stage", "version", "attempt", "model_id", "progress"))
        == expected
    )
    assert (claimed.lane, claimed.user_tier, claimed.sent, claimed.outcome) == ("interactive", "premium", False, None)


async def test_more_slots_come_at_once_and_fewer_as_they_fall_free(steps: Steps) -> None:
    await _crowd(steps, Lane.STANDARD)
    claims = await steps.claim(await steps.worker())
    await workers.provide_slots(steps.database, 2)
    assert len(await steps.slots()) == 12
    await _finished(steps, claims[:5])
    await workers.provide_slots(steps.database, 2)
    held = [slot for slot, attempt in (await steps.slots()).items() if attempt is not None]
    assert len(held) == 7
    assert set(await steps.slots()) == {1, 2, *held}
