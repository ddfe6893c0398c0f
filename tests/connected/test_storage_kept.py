"""What comes after a record's end, and what a replay makes of it, on real Postgres (PIPELINE F3, T2, W5, W6)."""

import asyncio
from uuid import UUID, uuid4

import pytest

from schemas import topics
from schemas.errors import ErrorClass
from storage import abandoned, deadlines, hooks, kept, settling, takeovers, workers
from storage.dispatching import Claimed
from storage.sending import Mark
from tests.connected.steps import BUSY, FACTS, LIFE, SILENT, Steps, claim_of, request, statuses

pytestmark = pytest.mark.connected


async def _overdue(steps: Steps, record_id: UUID) -> None:
    """The record ends at its deadline, whoever holds it."""
    await steps.sql("UPDATE image_generations SET deadline_at = now() - interval '1 h' WHERE id = $1", record_id)
    assert await deadlines.end_overdue(steps.database, claimed_grace=0) == 1
    await steps.check()


async def _storing_failed(steps: Steps, worker: UUID | None = None) -> Claimed:
    """A record that ended while its picture was being stored."""
    claimed = await steps.sent(worker)
    await steps.generated(claimed)
    await _overdue(steps, claimed.record_id)
    return claimed


async def _kept(steps: Steps) -> Claimed:
    """A failed record whose picture came late and is stored."""
    worker = await steps.worker()
    claimed = await steps.sent(worker)
    await steps.named(claimed, "job-1")
    await _overdue(steps, claimed.record_id)
    assert await steps.made_late(claimed)
    assert await steps.kept(claimed)
    return claimed


async def test_a_picture_that_was_not_stored_in_time_is_kept_under_the_attempts_own_claim(steps: Steps) -> None:
    dead, other = await steps.worker(), await steps.worker()
    claimed = await _storing_failed(steps, dead)
    # its own task goes on while it lives
    assert await steps.adopt(other) == []
    assert await steps.adopt(dead, claimed) == []
    before = await steps.record(claimed.record_id)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.claim_token) == (None, claimed.claim_token)
    assert await steps.made_late(claimed)
    assert await steps.kept(claimed)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.image_key, attempt.counted) == ("late_success", "aa/late.png", True)
    assert await steps.record(claimed.record_id) == before
    # once is enough
    assert not await steps.kept(claimed)


async def test_addresses_are_believed_for_a_while_from_when_they_were_given(steps: Steps) -> None:
    dead, other = await steps.worker(), await steps.worker()
    claimed = await _storing_failed(steps, dead)
    await steps.sql("UPDATE generation_attempts SET generated_at = now() - interval '10 min'")
    await steps.die(dead)
    (orphan,) = await steps.adopt(other, keep_trying=3600)
    assert orphan.output_urls == ["https://pictures.test/1.png"]
    assert orphan.seconds_left == pytest.approx(3000, abs=30)
    assert await kept.close(steps.database, claim_of(orphan), "late_success")
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.image_key) == ("late_success", None)
    assert attempt.output_urls == '["https://pictures.test/1.png"]'
    assert await steps.adopt(other) == []


async def test_the_picture_that_kills_its_workers_is_not_followed_for_ever_after_its_end(steps: Steps) -> None:
    worker = await steps.worker()
    first = await _storing_failed(steps, worker)
    second = await _storing_failed(steps, worker)
    for deaths in range(1, takeovers.MOST_TAKEOVERS + 1):
        await steps.die(worker)
        worker = await steps.worker()
        # one suspect at a time
        (orphan,) = await steps.adopt(worker)
        assert orphan.record_id == min(first.record_id, second.record_id)
        assert orphan.takeovers == deaths
        assert await steps.adopt(worker, orphan) == []
    assert await kept.close(steps.database, claim_of(orphan), "failed")
    (innocent,) = await steps.adopt(worker)
    assert (innocent.record_id, innocent.takeovers) == (max(first.record_id, second.record_id), 1)


async def test_what_was_given_up_is_adopted_at_once_and_costs_nobody_a_death(steps: Steps) -> None:
    living, other = await steps.worker(), await steps.worker()
    claimed = await _storing_failed(steps, living)
    await kept.let_go(steps.database, claim_of(claimed))
    (orphan,) = await steps.adopt(other)
    assert orphan.takeovers == 0
    assert not await steps.kept(claimed)
    assert await steps.kept(orphan)


async def test_an_adoption_whose_answer_was_lost_is_found_again_by_its_worker(steps: Steps) -> None:
    worker = await steps.worker()
    claimed = await steps.sent(worker)
    await steps.named(claimed)
    await _overdue(steps, claimed.record_id)
    # it has no task that holds this claim
    (orphan,) = await steps.adopt(worker)
    assert orphan.claim_token != claimed.claim_token
    assert await steps.adopt(worker, orphan) == []


async def test_whoever_adopts_fences(steps: Steps) -> None:
    stale, other = await steps.worker(), await steps.worker()
    claimed = await steps.sent(stale)
    await steps.named(claimed)
    await _overdue(steps, claimed.record_id)
    await steps.die(stale)
    await steps.adopt(other)
    assert not await workers.beat(steps.database, stale, life=LIFE)


async def test_at_its_deadline_a_record_that_is_being_stored_leaves_its_attempt_open(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.generated(claimed)
    left = await deadlines.end_claimed(steps.database, claimed.claim_token)
    assert left is not None
    assert (left.ended, left.seconds_left) == (False, pytest.approx(900, abs=30))
    await steps.sql("UPDATE image_generations SET deadline_at = now() - interval '1 s'")
    await steps.sql("UPDATE breakers SET opened_at = now() WHERE scope = 'provider'")
    # nobody is ended by a deadline while the breaker is open
    left = await deadlines.end_claimed(steps.database, claimed.claim_token)
    assert left is not None
    assert not left.ended
    await steps.sql("UPDATE breakers SET opened_at = NULL")
    await steps.told()
    left = await deadlines.end_claimed(steps.database, claimed.claim_token)
    assert left is not None
    assert left.ended
    await steps.check()
    told = await steps.told()
    assert {one.topic for one in told} == {topics.STATUS, topics.FAILED, topics.dead(ErrorClass.DEADLINE)}
    (status,) = statuses(told)
    assert (status["error_code"], status["status"]) == ("storing_failed", "failed")
    # the picture was paid for
    (failed,) = [one for one in told if one.topic == topics.FAILED]
    assert (failed.data["cost"], failed.data["prompt"]) == (0.033, claimed.prompt)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert attempt.outcome is None
    assert await deadlines.end_claimed(steps.database, claimed.claim_token) is None


async def test_an_attempt_called_uncertain_at_its_records_end_stays_so(steps: Steps) -> None:
    """The answer to the verdict was lost, and it is carried out again."""
    claimed = await steps.sent()
    claim = claim_of(claimed)
    assert await settling.die(steps.database, claim, SILENT, dead_class=ErrorClass.EXHAUSTED, uncertain=True)
    assert not await settling.die(steps.database, claim, SILENT, dead_class=ErrorClass.EXHAUSTED, uncertain=True)
    assert not await kept.close(steps.database, claim, "uncertain")
    (attempt,) = await steps.attempts(claimed.record_id)
    assert attempt.outcome == "uncertain"


class TestCancel:
    async def test_what_waits_ends_at_once(self, steps: Steps) -> None:
        new = request()
        (record_id,) = await steps.waiting(new)
        await steps.told()
        assert not await deadlines.cancel(steps.database, record_id, uuid4())
        assert await deadlines.cancel(steps.database, record_id, new.user_id)
        await steps.check()
        (told,) = await steps.told()
        assert told.data == await steps.status(record_id)
        assert (told.data["status"], told.data["stage"], told.data["version"]) == ("cancelled", "done", 2)
        assert told.data["completed_at"] is not None
        # cancelled once, and nothing dispatches it
        assert not await deadlines.cancel(steps.database, record_id)
        assert await steps.claim(await steps.worker()) == []
        assert not await deadlines.cancel(steps.database, uuid4())

    async def test_an_unsent_attempt_ends_with_it_and_its_task_sends_nothing(self, steps: Steps) -> None:
        claimed = await steps.claimed()
        assert await deadlines.cancel(steps.database, claimed.record_id)
        await steps.check()
        assert await steps.used() == 0
        (attempt,) = await steps.attempts(claimed.record_id)
        assert (attempt.outcome, attempt.counted, attempt.error_class) == ("cancelled", False, None)
        assert await steps.mark(claimed) is Mark.LOST

    async def test_a_sent_one_keeps_its_slot_until_it_has_been_followed(self, steps: Steps) -> None:
        claimed = await steps.sent()
        assert await deadlines.cancel(steps.database, claimed.record_id)
        await steps.check()
        assert await steps.used() == 1
        before = await steps.record(claimed.record_id)
        assert not await steps.named(claimed, "job-1")
        assert await steps.made_late(claimed)
        assert await steps.used() == 0
        assert await steps.kept(claimed)
        assert await steps.record(claimed.record_id) == before

    async def test_what_was_handed_back_is_followed_by_whoever_sweeps(self, steps: Steps) -> None:
        living, other = await steps.worker(), await steps.worker()
        claimed = await steps.sent(living)
        await steps.named(claimed)
        assert await takeovers.hand_back(steps.database, [claimed.claim_token]) == 1
        assert await deadlines.cancel(steps.database, claimed.record_id)
        await steps.check()
        assert await steps.used() == 1
        (orphan,) = await steps.adopt(other)
        assert await kept.close(steps.database, claim_of(orphan), "failed", BUSY)
        assert await steps.used() == 0
        (attempt,) = await steps.attempts(claimed.record_id)
        assert (attempt.outcome, attempt.error_code) == ("failed", BUSY.code)

    async def test_rows_of_the_old_system_are_not_ours_to_cancel(self, steps: Steps) -> None:
        record_id = uuid4()
        await steps.sql("INSERT INTO image_generations (id, status, metadata) VALUES ($1, 'pending', '{}')", record_id)
        assert not await deadlines.cancel(steps.database, record_id)


class TestReplay:
    async def test_a_kept_picture_completes_it_without_a_claim(self, steps: Steps) -> None:
        claimed = await _kept(steps)
        assert list(await kept.complete_replayed(steps.database)) == []
        await steps.again(claimed.record_id)
        await steps.told()
        assert await steps.claim(await steps.worker()) == []
        taken = await steps.take_over(await steps.worker())
        assert (taken.resumed, taken.released) == ([], 0)
        (completed,) = await kept.complete_replayed(steps.database)
        assert completed.lane == "standard"
        await steps.check()
        status, fact = sorted(await steps.told(), key=lambda one: one.topic, reverse=True)
        assert (status.topic, fact.topic) == (topics.STATUS, topics.COMPLETED)
        assert status.data == await steps.status(claimed.record_id)
        assert (status.data["status"], status.data["image_url"]) == ("completed", "https://push.test/late.png")
        assert (status.data["model_id"], status.data["progress"]) == (claimed.model_id, 100)
        assert (fact.data["cost"], fact.data["prompt"], fact.data["picture"]) == (0.033, claimed.prompt, FACTS)
        row = await steps.record(claimed.record_id)
        assert (row.image_key, row.claim_token, len(await steps.attempts(claimed.record_id))) == (
            "aa/late.png",
            None,
            1,
        )
        assert list(await kept.complete_replayed(steps.database)) == []

    async def test_two_sweeps_complete_it_once(self, steps: Steps) -> None:
        claimed = await _kept(steps)
        await steps.again(claimed.record_id)
        await steps.told()
        found = await asyncio.gather(*(kept.complete_replayed(steps.database) for _ in range(4)))
        assert sum(len(rows) for rows in found) == 1
        assert len(await steps.told(topics.COMPLETED)) == 1

    async def test_beside_a_kept_picture_nothing_is_sent(self, steps: Steps) -> None:
        """However it came to be claimed."""
        claimed = await _kept(steps)
        await steps.again(claimed.record_id)
        await steps.sql("UPDATE generation_attempts SET outcome = 'failed'")
        (second,) = await steps.claim(await steps.worker())
        await steps.sql("UPDATE generation_attempts SET outcome = 'late_success' WHERE id = $1", claimed.attempt_id)
        assert await steps.mark(second) is Mark.LOST
        assert await takeovers.hand_back(steps.database, [second.claim_token]) == 1
        assert await steps.claim(await steps.worker()) == []
        assert len(await kept.complete_replayed(steps.database)) == 1
        await steps.check()

    @pytest.mark.parametrize("made", [True, False])
    async def test_an_answered_attempt_is_resumed(self, steps: Steps, made: bool) -> None:
        worker = await steps.worker()
        claimed = await steps.sent(worker)
        await steps.named(claimed, "job-1")
        if made:
            await steps.generated(claimed)
        await _overdue(steps, claimed.record_id)
        await steps.again(claimed.record_id)
        await steps.told()
        assert await steps.claim(await steps.worker()) == []
        (resumed,) = (await steps.take_over(await steps.worker(), judge=False)).resumed
        assert (resumed.attempt_id, resumed.provider_request_id) == (claimed.attempt_id, "job-1")
        (status,) = statuses(await steps.told())
        assert status == await steps.status(claimed.record_id)
        assert (status["status"], status["stage"]) == ("in_progress", "storing" if made else "generating")
        assert status["attempt"] == 2
        # whoever followed it after the end has lost it
        assert not await steps.kept(claimed)
        assert not await kept.close(steps.database, claim_of(claimed), "late_success")
        await steps.generated(resumed)
        assert await steps.stored(resumed)

    async def test_what_a_webhook_named_is_resumed_too_and_returns_to_the_replay_when_refuted(
        self, steps: Steps
    ) -> None:
        claimed = await steps.sent()
        await settling.die(steps.database, claim_of(claimed), SILENT, dead_class=ErrorClass.EXHAUSTED, uncertain=True)
        await steps.sql("UPDATE generation_attempts SET webhook_request_id = '5'")
        await steps.again(claimed.record_id)
        (resumed,) = (await steps.take_over(await steps.worker())).resumed
        assert resumed.unconfirmed
        refuted = await hooks.refute(steps.database, resumed.claim_token, resumed.attempt_id, "5")
        assert refuted is hooks.Refuted.UNCERTAIN
        (second,) = await steps.claim(await steps.worker())
        assert (second.attempt, await steps.mark(second)) == (2, Mark.SENT)

    async def test_a_resumed_replay_that_fails_goes_on_as_a_replay(self, steps: Steps) -> None:
        claimed = await steps.sent()
        await steps.named(claimed, "job-1")
        await _overdue(steps, claimed.record_id)
        await steps.again(claimed.record_id)
        worker = await steps.worker()
        (resumed,) = (await steps.take_over(worker)).resumed
        # its number has no row yet, and it can be handed back all the same
        assert await takeovers.hand_back(steps.database, [resumed.claim_token]) == 1
        (resumed,) = (await steps.take_over(worker)).resumed
        assert await steps.retry(resumed, BUSY, delay=0)
        (third,) = await steps.claim(worker)
        assert (third.attempt, await steps.mark(third)) == (3, Mark.SENT)

    async def test_while_its_old_call_is_open_it_waits_and_then_goes_on_alone(self, steps: Steps) -> None:
        living = await steps.worker()
        claimed = await steps.sent(living)
        await _overdue(steps, claimed.record_id)
        await steps.again(claimed.record_id)
        assert await steps.claim(await steps.worker()) == []
        # not answered in the end: the attempt is its own task's to close, though the record has not ended
        assert not await steps.retry(claimed, SILENT, uncertain=True)
        assert await kept.close(steps.database, claim_of(claimed), "uncertain", SILENT)
        await steps.check()
        assert await steps.used() == 0
        (second,) = await steps.claim(await steps.worker())
        assert second.attempt == 2

    async def test_the_open_call_of_a_dead_worker_does_not_hold_it_up_for_ever(self, steps: Steps) -> None:
        dead = await steps.worker()
        claimed = await steps.sent(dead)
        await _overdue(steps, claimed.record_id)
        await steps.again(claimed.record_id)
        await steps.die(dead, ago=21)
        assert await abandoned.unanswered(steps.database, after=20) == []
        await steps.check()
        (second,) = await steps.claim(await steps.worker())
        first, _ = await steps.attempts(claimed.record_id)
        assert (first.outcome, second.attempt) == ("uncertain", 2)

    async def test_a_picture_is_kept_before_the_replay_or_not_at_all(self, steps: Steps) -> None:
        """While one is being kept the replay waits, and while it is replayed the other finds nothing to keep."""
        claimed = await _storing_failed(steps)
        async with steps.database.transaction() as tx:
            await tx.fetch(
                "UPDATE image_generations SET status = 'pending', attempt = attempt + 1, replay_attempt = attempt + 1,"
                " deadline_at = now() + interval '1 day' WHERE id = $1",
                claimed.record_id,
            )
            steps._terminal.pop(claimed.record_id)
            keeping = asyncio.create_task(steps.kept(claimed))
            async with asyncio.timeout(10):
                while True:
                    (row,) = await steps.sql(
                        "SELECT count(*) AS waiting FROM pg_stat_activity"
                        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                    )
                    if row.waiting:
                        break
                    await asyncio.sleep(0)
        assert not await keeping
        (resumed,) = (await steps.take_over(await steps.worker())).resumed
        assert await steps.stored(resumed)
