"""Breakers on real Postgres: rows of failures, epochs, probes, and what those who wait are told (PIPELINE K)."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from schemas.errors import ErrorClass
from schemas.words import Tier
from storage import breakers, deadlines, pausing, settling
from storage.breakers import PROVIDER, Failing, Noted, Rules, model_scope
from storage.dispatching import Claimed, Dispatcher, Waiting
from storage.settling import Failure
from tests.connected.steps import BUSY, SILENT, Steps, claim_of, draft, request, statuses, steps_of

pytestmark = pytest.mark.connected

RULES = Rules(denials=3, outages=4, span=0.0, records=2, probe=60.0)
DENIED = Failure(ErrorClass.AUTH, "api_key_refused", "A problem with our account.")


@pytest.fixture
async def steps(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url, slots=5) as steps:
        yield steps


async def fail(steps: Steps, claimed: Claimed, failing: Failing = Failing.AUTH, rules: Rules = RULES) -> Noted:
    return await breakers.failed(steps.database, claimed.attempt_id, failing, rules)


async def sent(steps: Steps, count: int, worker: UUID | None = None) -> list[Claimed]:
    """So many claims, marked as sending."""
    worker = worker or await steps.worker()
    await steps.waiting(*(request() for _ in range(count)))
    claims = await steps.claim(worker)
    for claimed in claims:
        await steps.mark(claimed)
    return claims


async def is_open(steps: Steps, scope: str = PROVIDER) -> bool:
    states = await breakers.states(steps.database)
    return scope in states and states[scope].open


async def opened(steps: Steps) -> None:
    """The provider's breaker, by three refusals."""
    for claimed in await sent(steps, 3):
        await fail(steps, claimed)
        assert await settling.die(steps.database, claim_of(claimed), DENIED, dead_class=ErrorClass.AUTH)
    assert await is_open(steps)


async def probe_now(steps: Steps) -> None:
    await steps.sql("UPDATE breakers SET probe_until = now()")


async def test_three_refusals_in_a_row_open_and_the_third_knows_it(steps: Steps) -> None:
    first, second, third, fourth = await sent(steps, 4)
    assert await fail(steps, first) == Noted(paused=False)
    assert not (await fail(steps, second)).paused
    assert await fail(steps, third) == Noted(paused=True, opened=(PROVIDER,))
    # it was on its way when the breaker opened: paused like all, and counted no more
    assert await fail(steps, fourth) == Noted(paused=True)
    (row,) = await steps.sql("SELECT * FROM breakers WHERE scope = 'provider'")
    assert row.failures == 3


async def test_the_same_answer_counts_once(steps: Steps) -> None:
    (claimed,) = await sent(steps, 1)
    for _ in range(5):
        assert not (await fail(steps, claimed)).paused


async def test_another_kind_of_failure_or_an_answer_begins_anew(steps: Steps) -> None:
    first, second, third, fourth, fifth = await sent(steps, 5)
    await fail(steps, first)
    await fail(steps, second)
    assert not (await fail(steps, third, Failing.QUOTA)).paused
    await fail(steps, fourth, Failing.QUOTA)
    assert await breakers.answered(steps.database, fifth.attempt_id, model=False) == [PROVIDER]
    # an answer, not a failure of the row: its own number is still there
    assert not (await fail(steps, fifth, Failing.QUOTA)).paused


async def test_an_id_ends_a_row_of_failures(steps: Steps) -> None:
    first, second, third, fourth = await sent(steps, 4)
    await fail(steps, first)
    await fail(steps, second)
    assert await steps.named(third)
    assert not (await fail(steps, fourth)).paused


async def test_an_outage_opens_by_several_records_or_by_all_there_are(steps: Steps) -> None:
    first, second = await sent(steps, 2)
    rules = Rules(outages=2, span=0.0, records=5)
    assert not (await fail(steps, first, Failing.OUTAGE, rules)).paused
    # the two are all that is open
    assert (await fail(steps, second, Failing.OUTAGE, rules)).paused


async def test_a_lone_failing_scene_beside_others_opens_nothing(steps: Steps) -> None:
    first, *_ = await sent(steps, 3)
    rules = Rules(outages=1, span=0.0, records=5)
    assert not (await fail(steps, first, Failing.OUTAGE, rules)).paused


async def test_an_outage_must_last(steps: Steps) -> None:
    first, second, third = await sent(steps, 3)
    rules = Rules(outages=2, span=3_600.0, records=1)
    await fail(steps, first, Failing.OUTAGE, rules)
    assert not (await fail(steps, second, Failing.OUTAGE, rules)).paused
    await steps.sql("UPDATE breakers SET failing_since = failing_since - interval '2 hours'")
    assert (await fail(steps, third, Failing.OUTAGE, rules)).paused


async def test_while_it_is_open_nothing_new_is_dispatched_but_admission_and_resuming_go_on(steps: Steps) -> None:
    worker = await steps.worker()
    (begun,) = await sent(steps, 1, worker)
    assert await steps.named(begun)
    await opened(steps)
    await steps.waiting(request(), request())
    assert await steps.claim(worker) == []
    await steps.die(worker)
    (resumed,) = (await steps.take_over(await steps.worker())).resumed
    assert resumed.record_id == begun.record_id
    # what it answers was sent before: it closes nothing
    assert await steps.generated(resumed)
    assert await is_open(steps)


async def test_one_record_probes_and_only_one(steps: Steps) -> None:
    await opened(steps)
    await steps.waiting(request(), request(), request())
    await probe_now(steps)
    (probe,) = await steps.claim(await steps.worker())
    assert await steps.claim(await steps.worker()) == []
    (row,) = await steps.sql("SELECT * FROM breakers WHERE scope = 'provider'")
    assert row.probe_attempt == probe.attempt_id
    # it never came back: another may, when its time is over
    await probe_now(steps)
    (second,) = await steps.claim(await steps.worker())
    assert second.record_id != probe.record_id


async def test_the_probes_answer_closes_and_all_go_on(steps: Steps) -> None:
    await opened(steps)
    worker = await steps.worker()
    await steps.waiting(request(), request(), request())
    await probe_now(steps)
    (probe,) = await steps.claim(worker)
    await steps.mark(probe)
    assert await steps.named(probe)
    assert not await is_open(steps)
    assert len(await steps.claim(worker)) == 2
    (row,) = await steps.sql("SELECT * FROM breakers WHERE scope = 'provider'")
    assert (row.failures, row.failing_class, row.probe_attempt) == (0, None, None)
    assert row.open_seconds > 0


async def test_a_probe_that_fails_waits_behind_those_who_were_tried_less(steps: Steps) -> None:
    await opened(steps)
    worker = await steps.worker()
    first, second = await steps.waiting(request(), request())
    await probe_now(steps)
    (probe,) = await steps.claim(worker)
    assert probe.record_id == first
    await steps.mark(probe)
    assert (await fail(steps, probe)).paused
    assert await settling.put_off(steps.database, claim_of(probe), DENIED, delay=0)
    row = await steps.record(first)
    assert (row.status, row.stage, row.attempt, row.retry_count) == ("in_progress", "provider_paused", 2, 0)
    (attempt,) = await steps.attempts(first)
    assert (attempt.outcome, attempt.counted) == ("deferred", False)
    await probe_now(steps)
    (next_probe,) = await steps.claim(worker)
    assert next_probe.record_id == second
    assert await steps.used() == 1


async def test_what_may_have_been_charged_is_on_record_as_uncertain_though_it_costs_no_retry(steps: Steps) -> None:
    claimed = await steps.sent()
    assert await settling.put_off(steps.database, claim_of(claimed), SILENT, delay=0, uncertain=True)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.counted, float(attempt.cost)) == ("uncertain", False, 0.033)
    assert (await steps.record(claimed.record_id)).retry_count == 0


async def test_who_waits_is_told_and_told_again_when_it_goes_on(steps: Steps) -> None:
    retries = await steps.sent()
    assert await steps.retry(retries, BUSY, delay=3_600)
    await opened(steps)
    (waits,) = await steps.waiting(request())
    retrying = retries.record_id
    await steps.told()
    assert await pausing.pause(steps.database, await pausing.untold(steps.database)) == 2
    assert {(s["record_id"], s["stage"]) for s in statuses(await steps.told())} == {
        (str(waits), "provider_paused"),
        (str(retrying), "provider_paused"),
    }
    assert await pausing.untold(steps.database) == []
    # too early: the breaker is open
    assert await pausing.go_on(steps.database, await pausing.told(steps.database)) == 0
    await steps.sql("UPDATE breakers SET opened_at = NULL")
    assert await pausing.pause(steps.database, [waits]) == 0
    assert await pausing.go_on(steps.database, await pausing.told(steps.database)) == 2
    assert {(s["record_id"], s["stage"]) for s in statuses(await steps.told())} == {
        (str(waits), "queued"),
        (str(retrying), "retry_wait"),
    }
    assert await pausing.told(steps.database) == []


async def test_nobody_is_ended_by_a_deadline_while_it_is_open_and_deadlines_move_once_by_the_time_open(
    steps: Steps,
) -> None:
    await opened(steps)
    (record_id,) = await steps.waiting(request())
    await steps.sql("UPDATE breakers SET opened_at = now() - interval '1 hour'")
    # accepted before it opened, and over since a minute
    await steps.sql(
        "UPDATE image_generations SET deadline_at = now() - interval '1 minute', paused_seconds = 0,"
        " first_dispatched_at = now() - interval '16 minutes' WHERE id = $1",
        record_id,
    )
    before = (await steps.record(record_id)).deadline_at
    assert await deadlines.end_overdue(steps.database, claimed_grace=0) == 0
    await probe_now(steps)
    (probe,) = await steps.claim(await steps.worker())
    assert probe.seconds_left > 0
    await steps.mark(probe)
    assert await steps.named(probe)
    assert not await is_open(steps)
    # not moved yet, and already known
    assert await deadlines.end_overdue(steps.database, claimed_grace=0) == 0
    assert await pausing.move_deadlines(steps.database, await pausing.late(steps.database)) >= 1
    moved = (await steps.record(record_id)).deadline_at
    assert 3_600 <= (moved - before).total_seconds() < 3_660
    assert await pausing.late(steps.database) == []
    assert await pausing.move_deadlines(steps.database, [record_id]) == 0
    assert (await steps.record(record_id)).deadline_at == moved


async def test_a_deadline_that_was_set_while_it_was_open_moves_by_the_rest(steps: Steps) -> None:
    await opened(steps)
    await steps.sql("UPDATE breakers SET opened_at = now() - interval '1 hour'")
    (record_id,) = await steps.waiting(request())
    before = (await steps.record(record_id)).deadline_at
    await steps.sql("UPDATE breakers SET open_seconds = 3700, opened_at = NULL")
    await pausing.move_deadlines(steps.database, await pausing.late(steps.database))
    moved = ((await steps.record(record_id)).deadline_at - before).total_seconds()
    assert 90 < moved <= 100


class TestModels:
    @staticmethod
    async def dispatcher(steps: Steps) -> Dispatcher:
        chain = ("first-model", "second-model")

        def choose(waiting: Waiting, without: object) -> object:
            left = [model for model in chain if model not in without]  # type: ignore[operator]
            return draft(waiting, (), left[0]) if left else None

        return Dispatcher(
            steps.database,
            choose,  # type: ignore[arg-type]
            run_deadline=900,
            bulk_deadline=900,
            models=lambda _: chain,
            rules=RULES,
        )

    @staticmethod
    async def shut(steps: Steps, model: str) -> None:
        await steps.sql(
            "INSERT INTO breakers (scope, epoch, failures, opened_at, probe_until) SELECT $1, max(epoch) + 1, 3, now(),"
            " now() + interval '1 minute' FROM breakers",
            model_scope(model),
        )

    async def test_a_model_that_refuses_three_opens_its_own_breaker_and_is_an_answer_of_the_provider(
        self, steps: Steps
    ) -> None:
        first, second, third, fourth = await sent(steps, 4)
        await fail(steps, first, Failing.AUTH)
        for claimed in (second, third):
            assert (await fail(steps, claimed, Failing.MODEL)).shut == {}
        noted = await fail(steps, fourth, Failing.MODEL)
        assert noted.opened == (model_scope("first-model"),)
        assert 0 < noted.shut["first-model"] <= RULES.probe
        assert not noted.paused
        (row,) = await steps.sql("SELECT * FROM breakers WHERE scope = 'provider'")
        assert row.failures == 0

    async def test_a_shut_model_is_passed_over_and_one_record_probes_it(self, steps: Steps) -> None:
        dispatcher = await self.dispatcher(steps)
        worker = await steps.worker()
        await self.shut(steps, "first-model")
        await steps.waiting(request(), request())
        assert [c.model_id for c in await dispatcher.claim(worker)] == ["second-model", "second-model"]
        await steps.sql("UPDATE breakers SET probe_until = now() WHERE scope <> 'provider'")
        await steps.waiting(request(), request())
        models = [claimed.model_id for claimed in await dispatcher.claim(worker)]
        assert models == ["first-model", "second-model"]

    async def test_its_answer_opens_the_door(self, steps: Steps) -> None:
        dispatcher = await self.dispatcher(steps)
        await self.shut(steps, "first-model")
        await steps.sql("UPDATE breakers SET probe_until = now() WHERE scope <> 'provider'")
        await steps.waiting(request())
        (probe,) = await dispatcher.claim(await steps.worker())
        await steps.mark(probe)
        assert await steps.named(probe)
        assert not await is_open(steps, model_scope("first-model"))

    async def test_a_chain_that_is_shut_altogether_waits_without_an_attempt_and_holds_up_nobody(
        self, steps: Steps
    ) -> None:
        dispatcher = await self.dispatcher(steps)
        await self.shut(steps, "first-model")
        await self.shut(steps, "second-model")
        (record_id,) = await steps.waiting(request(tier=Tier.FREE))
        await steps.told()
        assert await dispatcher.claim(await steps.worker()) == []
        row = await steps.record(record_id)
        assert (row.status, row.stage, row.attempt, row.error_code) == (
            "pending",
            "retry_wait",
            1,
            "models_unavailable",
        )
        (status,) = statuses(await steps.told())
        assert status["version"] == row.version == 2
        (left,) = await steps.sql(
            "SELECT extract(epoch FROM retry_at - now())::float8 AS seconds FROM image_generations WHERE id = $1",
            record_id,
        )
        assert 50 < left.seconds <= 60
        assert await steps.attempts(record_id) == []
        assert await steps.used() == 0


async def test_an_unknown_attempt_opens_nothing(steps: Steps) -> None:
    assert await breakers.failed(steps.database, uuid4(), Failing.AUTH, RULES) == Noted(paused=False)
