"""What each verdict writes and tells, on real Postgres (DESIGN 7, PIPELINE S5, W6)."""

import pytest

from schemas import topics
from schemas.errors import ErrorClass
from schemas.words import Tier
from storage import settling
from storage.dispatching import Claimed, Draft
from storage.sending import Mark
from storage.settling import Failure
from tests.connected.steps import BUSY, SILENT, Steps, claim_of, request, statuses

pytestmark = pytest.mark.connected

NEXT = Draft("second-model", "again", "/api/v7/images/text-to-image", {"model_id": "second-model"}, 0.044)
MODEL_GONE = Failure(ErrorClass.MODEL_UNAVAILABLE, "model_busy", "The model is busy.")
REFUSED = Failure(ErrorClass.CONTENT, "content_refused", "Please change the description.", "policy")


async def _late(steps: Steps, claimed: Claimed) -> Claimed:
    """An attempt that became uncertain and whose id came afterwards; its record waits for the next one."""
    await steps.mark(claimed)
    assert await steps.retry(claimed, SILENT, uncertain=True)
    assert not await steps.named(claimed, "late-job")
    return claimed


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
    (row,) = await steps.sql("SELECT count(*) AS resting FROM provider_slots WHERE free_at > now() + interval '15 s'")
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


async def test_of_an_attempt_that_was_handed_over_nothing_more_counts(steps: Steps) -> None:
    claimed = await steps.sent()
    following = await settling.next_model(steps.database, claim_of(claimed), MODEL_GONE, NEXT)
    assert following is not None
    assert not await steps.generated(claimed)
    row = await steps.record(claimed.record_id)
    assert (row.stage, row.attempt, row.provider_request_id) == ("submitting", 2, None)
    await steps.check()
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
