"""An attempt before and after its call, on real Postgres (PIPELINE S, T): sent once, and its answer kept."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from schemas import topics
from schemas.errors import ErrorClass
from storage import settling, takeovers
from storage.answers import Answer, learn
from storage.sending import Mark, Sending
from storage.settling import Failure
from tests.connected.steps import FACTS, SILENT, Steps, claim_of, request, statuses

pytestmark = pytest.mark.connected


async def test_a_mark_holds_once(steps: Steps) -> None:
    claimed = await steps.claimed()
    assert await steps.mark(claimed) is Mark.SENT
    (attempt,) = await steps.attempts(claimed.record_id)
    assert attempt.sent_at is not None
    # a second task with the same claim, which must not be, sends nothing
    assert await steps.mark(claimed) is Mark.LOST


async def test_a_mark_whose_answer_was_lost_may_be_asked_for_again(steps: Steps) -> None:
    claimed = await steps.sent()
    assert await steps.mark(claimed, again=True) is Mark.SENT
    await steps.named(claimed)
    assert await steps.mark(claimed, again=True) is Mark.LOST


async def test_without_the_claim_nothing_is_marked(steps: Steps) -> None:
    claimed = await steps.claimed()
    await steps.sql("UPDATE image_generations SET claim_token = gen_random_uuid()")
    assert await steps.marks.mark(Sending(claimed.claim_token, claimed.attempt_id)) is Mark.LOST
    (attempt,) = await steps.attempts(claimed.record_id)
    assert attempt.sent_at is None


async def test_past_the_deadline_nothing_is_marked(steps: Steps) -> None:
    claimed = await steps.claimed()
    await steps.sql("UPDATE image_generations SET deadline_at = now()")
    assert await steps.mark(claimed) is Mark.DEADLINE


async def test_many_marks_in_one_flush_each_have_their_own_fate(steps: Steps) -> None:
    await steps.waiting(request(), request(), request())
    good, late, lost = await steps.claim(await steps.worker())
    await steps.sql("UPDATE image_generations SET deadline_at = now() WHERE id = $1", late.record_id)
    await steps.sql("UPDATE image_generations SET claim_token = gen_random_uuid() WHERE id = $1", lost.record_id)
    marks = await asyncio.gather(
        *(steps.marks.mark(Sending(one.claim_token, one.attempt_id)) for one in (lost, good, late))
    )
    assert marks == [Mark.LOST, Mark.SENT, Mark.DEADLINE]


@pytest.mark.parametrize("how", ["provider_request_id", "webhook_request_id"])
async def test_beside_an_attempt_that_has_an_id_nothing_is_sent(steps: Steps, how: str) -> None:
    first = await steps.sent()
    await steps.retry(first, SILENT, uncertain=True)
    await steps.due(first.record_id)
    (second,) = await steps.claim(await steps.worker())
    # the id comes in the very moment between claim and mark
    await steps.sql(f"UPDATE generation_attempts SET {how} = 'late' WHERE id = $1", first.attempt_id)
    assert await steps.mark(second) is Mark.SUPERSEDED
    why = Failure(ErrorClass.TIMEOUT, "superseded", "superseded")
    other = await settling.supersede(steps.database, claim_of(second), why)
    assert other is not None
    assert (other.attempt_id, other.claim_token, other.outcome) == (first.attempt_id, second.claim_token, "uncertain")
    assert other.provider_request_id == "late"
    await steps.check()
    assert await steps.used() == 0
    uncertain, superseded = await steps.attempts(first.record_id)
    assert (superseded.outcome, superseded.counted) == ("superseded", False)
    assert (await steps.record(first.record_id)).retry_count == 1
    # asked again, as after a lost answer, it says the same
    again = await settling.supersede(steps.database, claim_of(second), why)
    assert again is not None
    assert replace(again, seconds_left=0, sent_for=0) == replace(other, seconds_left=0, sent_for=0)
    await steps.generated(other)
    assert await steps.stored(other)
    uncertain, _ = await steps.attempts(first.record_id)
    assert (uncertain.outcome, uncertain.counted) == ("late_success", True)


async def test_an_id_that_comes_while_the_mark_waits_is_seen(steps: Steps) -> None:
    first = await steps.sent()
    await steps.retry(first, SILENT, uncertain=True)
    await steps.due(first.record_id)
    (second,) = await steps.claim(await steps.worker())
    async with steps.database.transaction() as tx:
        await tx.fetch("SELECT FROM image_generations WHERE id = $1 FOR UPDATE", first.record_id)
        marking = asyncio.create_task(steps.marks.mark(Sending(second.claim_token, second.attempt_id)))
        await _somebody_waits(steps)
        await tx.fetch("UPDATE generation_attempts SET provider_request_id = 'late' WHERE id = $1", first.attempt_id)
    assert await marking is Mark.SUPERSEDED


async def _somebody_waits(steps: Steps, count: int = 1) -> None:
    async with asyncio.timeout(10):
        while True:
            (row,) = await steps.sql(
                "SELECT count(*) AS waiting FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if row.waiting >= count:
                return
            await asyncio.sleep(0)


async def test_too_late_to_send_the_mark_is_taken_back_while_the_claim_holds(steps: Steps) -> None:
    claimed = await steps.sent()
    sending = Sending(claimed.claim_token, claimed.attempt_id)
    assert await steps.marks.unmark(sending)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.sent_at, attempt.outcome) == (None, None)
    await steps.check()
    assert await steps.mark(claimed) is Mark.SENT


async def test_too_late_and_without_the_claim_it_is_on_record_that_nothing_was_sent(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.retry(claimed, SILENT, uncertain=True)
    assert not await steps.marks.unmark(Sending(claimed.claim_token, claimed.attempt_id))
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.counted) == ("not_sent", False)
    await steps.check()


async def test_a_task_that_ends_between_mark_and_call_says_that_nothing_was_sent(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.retry(claimed, SILENT, uncertain=True)
    before = await steps.record(claimed.record_id)
    await takeovers.hand_back(steps.database, [claimed.claim_token])
    assert [row.outcome for row in await steps.attempts(claimed.record_id)] == ["uncertain"]
    await takeovers.hand_back(steps.database, [claimed.claim_token], nothing_sent=True)
    assert [row.outcome for row in await steps.attempts(claimed.record_id)] == ["not_sent"]
    assert await steps.record(claimed.record_id) == before
    await steps.check()


async def test_an_attempt_that_another_has_sent_since_is_not_called_unsent(steps: Steps) -> None:
    first = await steps.worker()
    gone = await steps.claimed(first)
    await steps.die(first)
    await steps.take_over(await steps.worker())
    (mine,) = await steps.claim(await steps.worker())
    assert mine.attempt_id == gone.attempt_id
    await steps.mark(mine)
    await takeovers.hand_back(steps.database, [gone.claim_token], nothing_sent=True)
    await steps.marks.unmark(Sending(gone.claim_token, gone.attempt_id))
    (attempt,) = await steps.attempts(gone.record_id)
    assert attempt.sent_at is not None
    assert attempt.outcome is None
    await steps.check()


async def test_the_id_is_on_record_before_anything_else_and_the_slot_stays(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.told()
    assert await steps.named(claimed, "job-7")
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.provider_request_id, attempt.outcome, float(attempt.eta)) == ("job-7", None, 4.0)
    assert attempt.fetch_url == "https://provider.test/fetch/job-7"
    (status,) = await steps.told()
    assert status.data == await steps.status(claimed.record_id)
    assert (status.data["stage"], status.data["version"], status.data["progress"]) == ("generating", 3, 15)
    assert await steps.used() == 1
    # an id is written once
    await steps.named(claimed, "job-8")
    (attempt,) = await steps.attempts(claimed.record_id)
    assert attempt.provider_request_id == "job-7"


async def test_without_the_claim_only_the_id_is_kept(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.retry(claimed, SILENT, uncertain=True)
    before, _ = await steps.record(claimed.record_id), await steps.told()
    said = Answer(claimed.claim_token, claimed.attempt_id, "job-1", output_urls=["https://pictures.test/1.png"])
    assert not await steps.answers.answered(said)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.provider_request_id, attempt.output_urls, attempt.outcome) == ("job-1", None, "uncertain")
    assert await steps.record(claimed.record_id) == before
    assert await steps.told() == []
    await steps.check()


async def test_ids_held_in_memory_are_written_first_after_an_outage(steps: Steps) -> None:
    claimed = await steps.sent()
    await learn(steps.database, [Answer(uuid4(), claimed.attempt_id, "job-3", "https://provider.test/3")])
    await learn(steps.database, [Answer(uuid4(), claimed.attempt_id, "job-4")])
    await learn(steps.database, [])
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.provider_request_id, attempt.fetch_url) == ("job-3", "https://provider.test/3")


async def test_the_slot_falls_free_with_the_pictures_addresses(steps: Steps) -> None:
    claimed = await steps.sent()
    assert await steps.used() == 1
    await steps.named(claimed)
    assert await steps.used() == 1
    await steps.told()
    await steps.generated(claimed)
    assert await steps.used() == 0
    (status,) = statuses(await steps.told())
    assert (status["stage"], status["progress"], status["version"]) == ("storing", 85, 4)


async def test_a_completed_record_is_told_with_its_picture_and_its_cost(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.generated(claimed)
    await steps.told()
    assert await steps.stored(claimed)
    status, fact = sorted(await steps.told(), key=lambda one: one.topic, reverse=True)
    assert (status.topic, fact.topic) == (topics.STATUS, topics.COMPLETED)
    assert status.data == await steps.status(claimed.record_id)
    assert (status.data["status"], status.data["stage"], status.data["progress"]) == ("completed", "done", 100)
    assert (status.data["image_url"], status.data["version"]) == ("https://push.test/p.png", 4)
    assert (fact.data["cost"], fact.data["prompt"], fact.data["picture"]) == (0.033, claimed.prompt, FACTS)
    assert {name: fact.data[name] for name in status.data} == status.data
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.counted, attempt.image_key) == ("success", True, "aa/picture.png")
    # the answer to the same write once more: the claim is gone, and nothing is told twice
    assert not await steps.stored(claimed)
    assert await steps.told() == []


async def test_progress_only_rises_and_only_while_the_provider_works(steps: Steps) -> None:
    claimed = await steps.sent()
    assert not await steps.answers.progress(claimed.claim_token, 40)
    await steps.named(claimed)
    await steps.told()
    assert await steps.answers.progress(claimed.claim_token, 40)
    assert not await steps.answers.progress(claimed.claim_token, 30)
    assert not await steps.answers.progress(uuid4(), 50)
    (status,) = statuses(await steps.told())
    assert (status["progress"], status["version"]) == (40, 4)
