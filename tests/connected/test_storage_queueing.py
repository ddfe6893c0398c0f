"""The queue as it is read for estimates: it is the order that dispatch keeps, and the time that attempts took."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from notifier.forecast import Forecast
from schemas.words import Lane, Tier
from storage import takeovers
from storage.queueing import Queue, queue
from storage.reading import Reader, Standing
from tests.connected.steps import Steps, asked, request, steps_of

pytestmark = pytest.mark.connected


@pytest.fixture
async def steps(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url, slots=4) as steps:
        yield steps


async def seen(steps: Steps, *, depth: int = 100) -> Queue:
    return await queue(steps.database, depth=depth)


async def standing(steps: Steps, record_id: UUID) -> Standing | None:
    row = await steps.record(record_id)
    image = await Reader(steps.database).record(row.user_id, record_id)
    assert image is not None
    return image.standing


async def position(steps: Steps, record_id: UUID) -> int | None:
    stands = await standing(steps, record_id)
    return None if stands is None else Forecast(await seen(steps)).position(stands)


async def test_positions_are_the_order_of_dispatch_lane_by_lane(steps: Steps) -> None:
    crowd = uuid4()
    made = [request(crowd, scene=scene) for scene in range(1, 8)] + [request() for _ in range(5)]
    lanes = [Lane.STANDARD] * 9 + [Lane.BULK] * 3
    for new, lane in zip(made, lanes, strict=True):
        await steps.admit(asked(new, lane=lane))
    told = {new.record_id: await position(steps, new.record_id) for new in made}
    assert sorted(told[new.record_id] or 0 for new in made[:9]) == list(range(1, 10))
    assert sorted(told[new.record_id] or 0 for new in made[9:]) == [1, 2, 3]
    worker = await steps.worker()
    order: dict[str, list[UUID]] = {}
    while claims := await steps.claim(worker, limit=1):
        order.setdefault(claims[0].lane, []).append(claims[0].record_id)
        await steps.mark(claims[0])
        await steps.generated(claims[0])
        await steps.stored(claims[0])
    for records in order.values():
        assert [told[record_id] for record_id in records] == list(range(1, len(records) + 1))


async def test_who_waits_for_something_else_stands_in_no_line(steps: Steps) -> None:
    worker = await steps.worker()
    not_admitted = request()
    failed, handed_back, made, paused, alone = await steps.waiting(*(request() for _ in range(5)))
    await steps.accept(not_admitted)
    claims = {claimed.record_id: claimed for claimed in await steps.claim(worker, limit=3)}
    for record_id in (failed, made):
        await steps.mark(claims[record_id])
    await steps.retry(claims[failed], delay=60)
    await takeovers.hand_back(steps.database, [claims[handed_back].claim_token])
    await steps.named(claims[made])
    # nobody works on it, and it needs no slot
    await takeovers.hand_back(steps.database, [claims[made].claim_token])
    await steps.sql("UPDATE image_generations SET stage = 'provider_paused' WHERE id = $1", paused)
    assert await position(steps, handed_back) == 1
    assert await position(steps, alone) == 3
    for record_id in (not_admitted.record_id, failed, made, paused):
        assert await position(steps, record_id) is None
    # a retry keeps its turn: once due it is next
    await steps.due(failed)
    assert await position(steps, failed) == 1
    waits = await standing(steps, failed)
    assert waits is not None
    assert waits.retry_in is not None
    assert waits.retry_in <= 0


async def test_who_waits_for_a_breaker_is_told_no_time(steps: Steps) -> None:
    (record_id,) = await steps.waiting()
    await steps.sql(
        "UPDATE image_generations SET stage = 'retry_wait', retry_at = now() + interval '60 s',"
        " error_code = 'models_unavailable' WHERE id = $1",
        record_id,
    )
    waits = await standing(steps, record_id)
    assert waits is not None
    assert (waits.halted, waits.retry_in) == (True, pytest.approx(60, abs=30))
    assert not (await seen(steps)).paused
    await steps.sql("UPDATE breakers SET opened_at = now() WHERE scope = 'provider'")
    assert (await seen(steps)).paused


async def test_only_the_first_of_a_lane_are_read(steps: Steps) -> None:
    await steps.waiting(*(request() for _ in range(5)))
    lines = (await seen(steps, depth=3)).lines
    assert (len(lines["standard"].places), lines["standard"].whole) == (3, False)
    lines = (await seen(steps, depth=6)).lines
    assert (len(lines["standard"].places), lines["standard"].whole) == (5, True)
    assert (lines["bulk"].places, lines["bulk"].whole) == ([], True)


async def test_slots_are_free_busy_or_resting(steps: Steps) -> None:
    assert not (await seen(steps)).worked_on
    claimed = await steps.sent()
    await steps.sql("UPDATE generation_attempts SET claimed_at = now() - interval '7 s', sent_at = now()")
    await steps.sql("UPDATE provider_slots SET free_at = now() + interval '300 s' WHERE slot = 4")
    line = await seen(steps)
    assert line.worked_on
    # by Postgres' clock, which has gone on since
    (busy,), resting = line.busy, max(line.resting)
    assert 7 <= busy < 60
    assert 0 < resting <= 300
    assert sorted(line.resting) == [0, 0, resting]
    await steps.generated(claimed)
    assert (await seen(steps)).busy == []
    await steps.sql("UPDATE workers SET alive_until = now() - interval '1 s'")
    assert not (await seen(steps)).worked_on


async def test_the_pace_is_that_of_the_newest_attempts(steps: Steps) -> None:
    assert (await seen(steps)).pace is None
    made = [request(tier=Tier.PREMIUM if number % 2 else Tier.FREE) for number in range(4)]
    await steps.waiting(*made)
    worker = await steps.worker()
    claims = {claimed.record_id: claimed for claimed in await steps.claim(worker)}
    for claimed in claims.values():
        await steps.mark(claimed)
    failed = made[0].record_id
    await steps.retry(claims[failed], delay=0)
    # the odd ones took 20 seconds, and 5 more to be stored; the even one half of it; the one that failed 4
    for new in made[1:]:
        await steps.generated(claims[new.record_id])
        await steps.stored(claims[new.record_id])
        seconds = 20.0 if new.tier is Tier.PREMIUM else 10.0
        await steps.sql(
            "UPDATE generation_attempts SET claimed_at = now() - make_interval(secs => $2 * 1.25),"
            " sent_at = now() - make_interval(secs => $2 * 1.25), closed_at = now(),"
            " generated_at = now() - make_interval(secs => $2 * 0.25) WHERE record_id = $1",
            new.record_id,
            seconds,
        )
    await steps.sql(
        "UPDATE generation_attempts SET claimed_at = closed_at - interval '4 s', sent_at = closed_at - interval '4 s',"
        " model_id = 'poor-model' WHERE record_id = $1",
        failed,
    )
    line = await seen(steps)
    assert line.pace is not None
    assert line.pace.slot_held == pytest.approx((20 + 20 + 10 + 4) / 4, abs=0.5)
    assert line.pace.slot_spent == pytest.approx((20 + 20 + 10 + 4) / 4, abs=0.5)
    assert (line.pace.whole, line.pace.made, line.pace.stored) == pytest.approx((25, 20, 5), abs=0.1)
    assert line.by_lane["interactive"].whole == pytest.approx(25, abs=0.1)
    assert line.by_lane["standard"].whole == pytest.approx(12.5, abs=0.1)
    assert line.by_model["first-model"].made == pytest.approx(20, abs=0.1)
    # a model that only failed says how long it held a slot, and nothing of pictures
    poor = line.by_model["poor-model"]
    assert (poor.slot_held, poor.whole, poor.made) == (pytest.approx(4, abs=0.1), None, None)
    # its second attempt succeeds: one record has spent both
    (again,) = await steps.claim(worker)
    await steps.mark(again)
    await steps.generated(again)
    await steps.stored(again)
    # in no time
    await steps.sql(
        "UPDATE generation_attempts SET claimed_at = generated_at, sent_at = generated_at WHERE attempt = 2"
    )
    line = await seen(steps)
    assert line.pace is not None
    assert line.pace.slot_held == pytest.approx(54 / 5, abs=0.5)
    assert line.pace.slot_spent == pytest.approx(54 / 4, abs=0.5)


async def test_what_is_being_made_says_since_when(steps: Steps) -> None:
    worker = await steps.worker()
    claimed = await steps.claimed(worker)
    stands = await standing(steps, claimed.record_id)
    assert stands is not None
    assert (stands.stage, stands.place, stands.model_id) == ("submitting", None, "first-model")
    assert 0 <= stands.made_for < 60
    await steps.mark(claimed)
    await steps.named(claimed)
    await steps.sql(
        "UPDATE generation_attempts SET claimed_at = now() - interval '90 s', sent_at = now() - interval '80 s'"
    )
    stands = await standing(steps, claimed.record_id)
    assert stands is not None
    assert (stands.stage, stands.provider_eta, stands.stored_for) == ("generating", 4.0, None)
    assert stands.made_for == pytest.approx(90, abs=30)
    await steps.generated(claimed)
    stands = await standing(steps, claimed.record_id)
    assert stands is not None
    assert (stands.stage, stands.stored_for) == ("storing", pytest.approx(0, abs=30))
    await steps.stored(claimed)
    assert await standing(steps, claimed.record_id) is None


async def test_rows_of_the_old_system_have_no_standing(steps: Steps) -> None:
    record_id, user_id = uuid4(), uuid4()
    await steps.sql(
        "INSERT INTO image_generations (id, user_id, status, metadata) VALUES ($1, $2, 'in_progress', '{}')",
        record_id,
        user_id,
    )
    assert await standing(steps, record_id) is None
