"""Attempts on real Postgres (PIPELINE S, T, F): paid once, told exactly, and nothing written without the claim."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from schemas import topics
from schemas.errors import ErrorClass
from schemas.words import Tier
from storage import deadlines, settling
from storage.answers import Answer, learn
from storage.database import Transaction
from storage.dispatching import Claimed, Draft
from storage.sending import Mark, Sending
from storage.settling import Failure
from tests.connected.steps import BUSY, FACTS, SILENT, Steps, claim_of, request, statuses, steps_of

pytestmark = pytest.mark.connected

NEXT = Draft("second-model", "again", "/api/v7/images/text-to-image", {"model_id": "second-model"}, 0.044)
MODEL_GONE = Failure(ErrorClass.MODEL_UNAVAILABLE, "model_busy", "The model is busy.")
REFUSED = Failure(ErrorClass.CONTENT, "content_refused", "Please change the description.", "policy")


@pytest.fixture
async def steps(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url) as steps:
        yield steps


async def _late(steps: Steps, claimed: Claimed) -> Claimed:
    """An attempt that became uncertain and whose id came afterwards; its record waits for the next one."""
    await steps.mark(claimed)
    assert await steps.retry(claimed, SILENT, uncertain=True)
    assert not await steps.named(claimed, "late-job")
    return claimed


# --- S: sending


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
    assert replace(again, seconds_left=0) == replace(other, seconds_left=0)
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


# --- S3, T: answers


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


# --- verdicts


async def test_a_retry_is_counted_and_told_with_when_and_which(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.told()
    assert await steps.retry(claimed, delay=12)
    wait, status = sorted(await steps.told(), key=lambda one: one.topic)
    assert (wait.topic, wait.key) == (topics.retry(10), str(claimed.record_id))
    assert wait.data == {"record_id": str(claimed.record_id), "attempt": 2}
    row = await steps.record(claimed.record_id)
    not_before = int(wait.headers["not-before"]) / 1000
    # never before: who wakes too early finds nothing due
    assert 0 <= not_before - row.retry_at.timestamp() < 0.001 + 1e-6
    assert wait.headers["attempt"] == "2"
    assert status.data == await steps.status(claimed.record_id)
    wanted = {
        "status": "in_progress",
        "stage": "retry_wait",
        "progress": 0,
        "attempt": 2,
        "retry_count": 1,
        "version": 3,
    }
    assert {name: status.data[name] for name in wanted} == wanted
    assert status.data["error_message"] == BUSY.message
    assert (row.claim_token, row.worker_id) == (None, None)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.counted, attempt.error_class) == ("failed", True, "unavailable")
    assert attempt.error_detail == "HTTP 503: later"
    assert await steps.used() == 0


async def test_a_deferral_costs_no_retry_and_its_slot_rests(steps: Steps) -> None:
    claimed = await steps.sent()
    why = Failure(ErrorClass.RATE_LIMITED, "rate_limited", "busy")
    await steps.told()
    assert await settling.defer(steps.database, claim_of(claimed), why, delay=75)
    await steps.check()
    told = await steps.told()
    assert sorted(one.topic for one in told) == [topics.retry(60), topics.STATUS]
    (status,) = statuses(told)
    assert (status["retry_count"], status["attempt"], status["version"]) == (0, 2, 3)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.counted) == ("deferred", False)
    (row,) = await steps.sql("SELECT count(*) AS resting FROM provider_slots WHERE free_at > now() + interval '74 s'")
    assert row.resting == 1


async def test_the_next_model_has_the_same_claim_and_slot(steps: Steps) -> None:
    claimed = await steps.sent()
    (slot,) = [slot for slot, held in (await steps.slots()).items() if held is not None]
    await steps.told()
    following = await settling.next_model(steps.database, claim_of(claimed), MODEL_GONE, NEXT)
    await steps.check()
    assert following is not None
    assert (following.claim_token, following.attempt, following.model_id) == (claimed.claim_token, 2, "second-model")
    assert (following.retry_count, following.sent, following.payload) == (0, False, NEXT.payload)
    assert (await steps.slots())[slot] == following.attempt_id
    (status,) = await steps.told()
    assert status.data == await steps.status(claimed.record_id)
    assert (status.data["stage"], status.data["version"]) == ("submitting", 3)
    first, second = await steps.attempts(claimed.record_id)
    assert (first.outcome, first.counted, second.outcome) == ("handed_over", False, None)
    assert await settling.tried_models(steps.database, claimed.claim_token) == {"first-model", "second-model"}
    # the same once more, as after a lost answer: nothing, and the claim is still there to be handed back
    assert await settling.next_model(steps.database, claim_of(claimed), MODEL_GONE, NEXT) is None
    assert await steps.mark(following) is Mark.SENT


async def test_after_a_retry_the_chain_is_gone_through_again(steps: Steps) -> None:
    claimed = await steps.sent()
    following = await settling.next_model(steps.database, claim_of(claimed), MODEL_GONE, NEXT)
    assert following is not None
    await steps.mark(following)
    await steps.retry(following)
    await steps.due(claimed.record_id)
    (again,) = await steps.claim(await steps.worker())
    assert (again.attempt, again.model_id, again.retry_count) == (3, "first-model", 1)
    assert await settling.tried_models(steps.database, again.claim_token) == {"first-model"}


async def test_the_end_is_told_to_all_who_must_know_with_all_that_a_replay_needs(steps: Steps) -> None:
    new = request(tier=Tier.PREMIUM, scene=9)
    claimed = await steps.sent(None, new)
    await steps.told()
    assert await settling.die(steps.database, claim_of(claimed), REFUSED, dead_class=ErrorClass.CONTENT)
    await steps.check()
    told = {one.topic: one for one in await steps.told()}
    assert set(told) == {topics.STATUS, topics.FAILED, topics.dead(ErrorClass.CONTENT)}
    status, fact, letter = told[topics.STATUS], told[topics.FAILED], told[topics.dead(ErrorClass.CONTENT)]
    assert status.data == await steps.status(new.record_id)
    wanted = {"status": "failed", "stage": "done", "error_class": "content", "version": 3, "retry_at": None}
    assert {name: status.data[name] for name in wanted} == wanted
    assert (fact.key, fact.data["cost"], fact.data["prompt"]) == (str(new.chapter_id), 0.033, claimed.prompt)
    assert (letter.key, letter.data["attempt"], letter.data["error_code"]) == (str(new.record_id), 1, "content_refused")
    assert letter.data["request"] == {
        "user_id": str(new.user_id),
        "chapter_id": str(new.chapter_id),
        "scene_number": 9,
        "image_type": "scene",
        "scene_description": "A mad tea party",
        "style": "cinematic",
        "aspect_ratio": "16:9",
        "user_tier": "premium",
        "lane": "interactive",
    }
    headers = dict(letter.headers)
    assert headers.pop("first-failed-at")[:10] == headers.pop("failed-at")[:10]
    assert headers == {
        "origin-topic": "scene-images.requested.interactive.v1",
        "attempt": "1",
        "error-class": "content",
        "error-code": "content_refused",
        "error-message": REFUSED.message,
    }
    (row,) = await steps.sql("SELECT * FROM dead_letters")
    assert (row.record_id, row.error_class, row.topic, row.attempt) == (new.record_id, "content", letter.topic, 1)
    (attempt,) = await steps.attempts(new.record_id)
    assert (attempt.outcome, attempt.counted) == ("failed", True)
    assert await steps.used() == 0


async def test_the_dead_letter_of_several_attempts_says_when_it_first_failed(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.retry(claimed)
    await steps.sql("UPDATE generation_attempts SET closed_at = '2024-01-02T03:04:05Z'")
    await steps.due(claimed.record_id)
    (second,) = await steps.claim(await steps.worker())
    await steps.mark(second)
    await steps.told()
    why = Failure(ErrorClass.UNAVAILABLE, "provider_unavailable", "x" * 3000)
    assert await settling.die(steps.database, claim_of(second), why, dead_class=ErrorClass.EXHAUSTED)
    (letter,) = await steps.told(topics.dead(ErrorClass.EXHAUSTED))
    assert letter.headers["first-failed-at"] == "2024-01-02T03:04:05.000000Z"
    assert (len(letter.headers["error-message"]), letter.headers["attempt"]) == (1024, "2")


@pytest.mark.parametrize("final", [False, True], ids=["retry", "fail"])
async def test_an_attempt_whose_id_came_in_the_last_moment_is_not_called_uncertain(steps: Steps, final: bool) -> None:
    claimed = await steps.sent()
    await steps.named(claimed)
    before = await steps.record(claimed.record_id)
    if final:
        claim = claim_of(claimed)
        assert not await settling.die(steps.database, claim, SILENT, dead_class=ErrorClass.EXHAUSTED, uncertain=True)
    else:
        assert not await steps.retry(claimed, SILENT, uncertain=True)
    assert await steps.record(claimed.record_id) == before
    await steps.generated(claimed)
    assert await steps.stored(claimed)


async def test_an_uncertain_attempt_that_failed_late_only_returns_to_its_retry(steps: Steps) -> None:
    first = await steps.claimed()
    await _late(steps, first)
    (late,) = (await steps.take_over(await steps.worker())).resumed
    assert (late.attempt_id, late.outcome, late.provider_request_id) == (first.attempt_id, "uncertain", "late-job")
    await steps.told()
    before = await steps.record(first.record_id)
    assert await settling.back_to_retry(steps.database, claim_of(late), BUSY)
    await steps.check()
    after = await steps.record(first.record_id)
    assert (after.attempt, after.retry_count, after.retry_at) == (before.attempt, before.retry_count, before.retry_at)
    assert (after.stage, after.claim_token, after.version) == ("retry_wait", None, before.version + 1)
    (attempt,) = await steps.attempts(first.record_id)
    assert (attempt.outcome, attempt.counted) == ("late_failure", True)
    assert [one.topic for one in await steps.told()] == [topics.STATUS]
    await steps.due(first.record_id)
    (second,) = await steps.claim(await steps.worker())
    assert (second.attempt, await steps.mark(second)) == (2, Mark.SENT)


async def test_a_superseded_number_is_not_sent_again(steps: Steps) -> None:
    first = await steps.claimed()
    await steps.mark(first)
    await steps.retry(first, SILENT, uncertain=True)
    await steps.due(first.record_id)
    (second,) = await steps.claim(await steps.worker())
    await steps.named(first, "late-job")
    assert await steps.mark(second) is Mark.SUPERSEDED
    other = await settling.supersede(steps.database, claim_of(second), SILENT)
    assert other is not None
    assert await settling.back_to_retry(steps.database, claim_of(other), BUSY)
    (third,) = await steps.claim(await steps.worker())
    assert (third.attempt, third.retry_count, await steps.mark(third)) == (3, 1, Mark.SENT)


# --- F: fencing


async def test_without_the_claim_no_verdict_is_written(steps: Steps) -> None:
    stale = await steps.sent()
    await steps.named(stale)
    await steps.sql("UPDATE image_generations SET claim_token = gen_random_uuid()")
    before = [await steps.record(stale.record_id), *await steps.attempts(stale.record_id), await steps.slots()]
    await steps.told()
    claim = claim_of(stale)
    assert not await steps.retry(stale)
    assert not await steps.retry(stale, SILENT, uncertain=True)
    assert not await settling.defer(steps.database, claim, BUSY, delay=5)
    assert await settling.next_model(steps.database, claim, MODEL_GONE, NEXT) is None
    assert await settling.supersede(steps.database, claim, SILENT) is None
    assert not await settling.back_to_retry(steps.database, claim, BUSY)
    assert not await settling.die(steps.database, claim, REFUSED, dead_class=ErrorClass.CONTENT)
    assert not await steps.generated(stale)
    assert not await steps.stored(stale)
    assert not await steps.answers.progress(stale.claim_token, 60)
    assert not await deadlines.close_after_the_end(steps.database, stale.attempt_id, succeeded=False)
    assert [await steps.record(stale.record_id), *await steps.attempts(stale.record_id), await steps.slots()] == before
    assert await steps.told() == []


async def test_a_terminal_record_is_not_written_to(steps: Steps) -> None:
    claimed = await steps.sent()
    await settling.die(steps.database, claim_of(claimed), REFUSED, dead_class=ErrorClass.CONTENT)
    before, _ = await steps.record(claimed.record_id), await steps.told()
    assert before.claim_token is None
    assert not await steps.retry(claimed)
    assert not await steps.generated(claimed)
    assert not await steps.stored(claimed)
    assert await deadlines.end_overdue(steps.database, claimed_grace=-1e9) == 0
    assert await steps.record(claimed.record_id) == before
    assert await steps.told() == []


async def test_each_told_change_raises_the_version_by_one(steps: Steps) -> None:
    new = request()
    claimed = await steps.sent(None, new)
    await steps.retry(claimed)
    await steps.due(new.record_id)
    (second,) = await steps.claim(await steps.worker())
    await steps.mark(second)
    await steps.named(second)
    await steps.answers.progress(second.claim_token, 50)
    await steps.generated(second)
    await steps.stored(second)
    versions = [status["version"] for status in statuses(await steps.told())]
    assert versions == list(range(1, len(versions) + 1))
    assert (await steps.record(new.record_id)).version == versions[-1] == 8


# --- deadlines


async def test_what_nobody_works_on_ends_at_its_deadline(steps: Steps) -> None:
    waiting, retrying = request(), request()
    claimed = await steps.sent(None, retrying)
    await steps.retry(claimed)
    await steps.waiting(waiting)
    await steps.told()
    assert await deadlines.end_overdue(steps.database, claimed_grace=120) == 0
    await steps.sql("UPDATE image_generations SET deadline_at = now()")
    assert await deadlines.end_overdue(steps.database, claimed_grace=120) == 2
    await steps.check()
    told = await steps.told()
    assert {one.topic for one in told} == {topics.STATUS, topics.FAILED, topics.dead(ErrorClass.DEADLINE)}
    assert {(one["error_class"], one["error_code"]) for one in statuses(told)} == {("deadline", "deadline_exceeded")}
    assert await deadlines.end_overdue(steps.database, claimed_grace=120) == 0


async def test_a_claimed_record_has_the_grace_on_top_and_an_unsent_attempt_closes_with_it(steps: Steps) -> None:
    claimed = await steps.claimed()
    await steps.sql("UPDATE image_generations SET deadline_at = now() - interval '100 s'")
    assert await deadlines.end_overdue(steps.database, claimed_grace=120) == 0
    assert await deadlines.end_overdue(steps.database, claimed_grace=90) == 1
    await steps.check()
    assert await steps.used() == 0
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.counted) == ("cancelled", False)


async def test_a_sent_attempt_keeps_its_slot_until_it_has_been_followed(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.sql("UPDATE image_generations SET deadline_at = now() - interval '1 h'")
    assert await deadlines.end_overdue(steps.database, claimed_grace=120) == 1
    await steps.check()
    assert await steps.used() == 1
    before = await steps.record(claimed.record_id)
    # its worker learns the id, follows it, and notes the end; the record is not touched
    assert not await steps.named(claimed, "job-1")
    assert await steps.used() == 1
    assert await deadlines.close_after_the_end(
        steps.database, claimed.attempt_id, succeeded=True, output_urls='["https://pictures.test/1.png"]'
    )
    await steps.check()
    assert await steps.used() == 0
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.provider_request_id, attempt.outcome) == ("job-1", "late_success")
    assert attempt.output_urls == '["https://pictures.test/1.png"]'
    assert await steps.record(claimed.record_id) == before


async def test_a_picture_that_could_not_be_stored_in_time_says_so(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.generated(claimed)
    await steps.sql("UPDATE image_generations SET deadline_at = now() - interval '1 h'")
    await steps.told()
    assert await deadlines.end_overdue(steps.database, claimed_grace=120) == 1
    await steps.check()
    (status,) = statuses(await steps.told())
    assert (status["error_class"], status["error_code"]) == ("deadline", "storing_failed")


async def test_while_the_breaker_is_open_nobody_is_ended(steps: Steps) -> None:
    await steps.waiting()
    await steps.sql("UPDATE image_generations SET deadline_at = now()")
    await steps.sql("UPDATE breakers SET opened_at = now() WHERE scope = 'provider'")
    assert await deadlines.end_overdue(steps.database, claimed_grace=0) == 0


async def test_old_keys_are_forgotten(steps: Steps) -> None:
    user = uuid4()
    await steps.accept(request(user, key="old"), request(user, key="new"))
    await steps.sql("UPDATE idempotency_keys SET created_at = now() - interval '49 h' WHERE key = 'old'")
    await deadlines.purge_keys(steps.database, after=48 * 3600)
    assert [row.key for row in await steps.sql("SELECT key FROM idempotency_keys")] == ["new"]


async def test_statements_over_many_rows_do_not_deadlock(steps: Steps) -> None:
    """Answers, marks and ends of the same records, in any order, from several connections at once."""
    await steps.sql("INSERT INTO provider_slots (slot) SELECT generate_series(10, 40)")
    await steps.waiting(*(request() for _ in range(20)))
    claims = await steps.claim(await steps.worker())
    answers = [steps.answers.answered(_named(one)) for one in claims]
    marks = [steps.marks.mark(Sending(one.claim_token, one.attempt_id)) for one in reversed(claims)]
    # straight at the transaction, where a deadlock is not repeated
    ends = [_lock_all(steps, [one.record_id for one in claims]) for _ in range(3)]
    await asyncio.gather(*answers, *marks, *ends)


async def _lock_all(steps: Steps, records: list[UUID]) -> None:
    async def work(tx: Transaction) -> None:
        await tx.fetch("SELECT FROM image_generations WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE", records)

    await steps.database.run(work)


def _named(claimed: Claimed) -> Answer:
    return Answer(claimed.claim_token, claimed.attempt_id, f"job-{claimed.attempt_id}")
