"""Without the claim nothing is written, and a deadline ends what it must (PIPELINE F), on real Postgres."""

import asyncio
import json
from uuid import UUID, uuid4

import pytest

from schemas import topics
from schemas.errors import ErrorClass
from storage import deadlines, kept, settling
from storage.answers import Answer
from storage.database import Transaction
from storage.dispatching import Claimed, Draft
from storage.sending import Sending
from storage.settling import Failure
from tests.connected.steps import BUSY, FACTS, SILENT, Steps, claim_of, request, statuses

pytestmark = pytest.mark.connected

NEXT = Draft("second-model", "again", "/api/v7/images/text-to-image", {"model_id": "second-model"}, 0.044)
MODEL_GONE = Failure(ErrorClass.MODEL_UNAVAILABLE, "model_busy", "The model is busy.")
REFUSED = Failure(ErrorClass.CONTENT, "content_refused", "Please change the description.", "policy")


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
    assert not await kept.close(steps.database, claim, "failed")
    assert not await steps.made_late(stale)
    assert not await steps.kept(stale)
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
    assert await steps.made_late(claimed)
    assert await steps.used() == 0
    assert await steps.kept(claimed)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.provider_request_id, attempt.outcome) == ("job-1", "late_success")
    assert (attempt.output_urls, attempt.image_key) == ('["https://pictures.test/1.png"]', "aa/late.png")
    assert json.loads(attempt.picture) == FACTS
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
