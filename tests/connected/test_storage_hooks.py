"""An id that only a webhook knows, on real Postgres (PIPELINE S1, W6): confirmed, or forgotten without a trace."""

import pytest

from schemas.errors import ErrorClass
from storage import hooks, settling
from storage.dispatching import Claimed
from storage.hooks import Refuted
from storage.sending import Mark
from tests.connected.steps import SILENT, Steps, claim_of, statuses

pytestmark = pytest.mark.connected

TOKEN = "0123456789abcdefghijklmnopqrst_-"


async def _webhook(steps: Steps, claimed: Claimed, request_id: str) -> bool:
    await steps.sql("UPDATE generation_attempts SET webhook_token = $2 WHERE id = $1", claimed.attempt_id, TOKEN)
    noted = await hooks.note(steps.database, TOKEN, request_id)
    await steps.check()
    return noted


async def _refute(steps: Steps, claimed: Claimed) -> Refuted:
    assert claimed.provider_request_id is not None
    assert claimed.unconfirmed
    refuted = await hooks.refute(steps.database, claimed.claim_token, claimed.attempt_id, claimed.provider_request_id)
    await steps.check()
    return refuted


async def test_what_a_webhook_named_is_harvested_at_once_as_unconfirmed(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.retry(claimed, SILENT, delay=600, uncertain=True)
    assert await _webhook(steps, claimed, "5")
    assert await hooks.named(steps.database, claimed.attempt_id) == "5"
    (harvested,) = (await steps.take_over(await steps.worker())).resumed
    assert (harvested.attempt_id, harvested.provider_request_id) == (claimed.attempt_id, "5")
    assert harvested.unconfirmed
    # confirmed, it is an id like any other
    assert await steps.named(harvested, "5")
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.provider_request_id, attempt.outcome) == ("5", "uncertain")
    assert (await steps.record(claimed.record_id)).stage == "generating"
    await steps.generated(harvested)
    assert await steps.stored(harvested)


async def test_a_true_id_is_not_a_webhooks_word_any_more(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.retry(claimed, SILENT, delay=600, uncertain=True)
    await _webhook(steps, claimed, "5")
    await steps.named(claimed, "7")
    (harvested,) = (await steps.take_over(await steps.worker())).resumed
    assert (harvested.provider_request_id, harvested.unconfirmed) == ("7", False)
    assert await hooks.refute(steps.database, harvested.claim_token, harvested.attempt_id, "5") is Refuted.LOST


async def test_refuted_an_uncertain_attempt_is_as_before_and_its_record_waits_for_the_same_retry(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.retry(claimed, SILENT, delay=600, uncertain=True)
    before = await steps.record(claimed.record_id)
    await _webhook(steps, claimed, "5")
    (harvested,) = (await steps.take_over(await steps.worker())).resumed
    await steps.told()
    assert await _refute(steps, harvested) is Refuted.UNCERTAIN
    after = await steps.record(claimed.record_id)
    assert (after.stage, after.attempt, after.retry_at) == (before.stage, before.attempt, before.retry_at)
    assert (after.retry_count, after.claim_token, after.worker_id) == (before.retry_count, None, None)
    (status,) = statuses(await steps.told())
    assert status == await steps.status(claimed.record_id)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.webhook_request_id, attempt.provider_request_id) == ("uncertain", None, None)
    # asked again, as after a lost answer, it writes nothing
    assert await _refute(steps, harvested) is Refuted.LOST
    # and a later webhook may name another
    assert await _webhook(steps, claimed, "6")
    (again,) = (await steps.take_over(await steps.worker())).resumed
    assert again.provider_request_id == "6"


async def test_refuted_where_a_later_attempt_gave_way_the_retry_has_a_number_of_its_own(steps: Steps) -> None:
    first = await steps.sent()
    await steps.retry(first, SILENT, uncertain=True)
    await steps.due(first.record_id)
    (second,) = await steps.claim(await steps.worker())
    await _webhook(steps, first, "5")
    assert await steps.mark(second) is Mark.SUPERSEDED
    other = await settling.supersede(steps.database, claim_of(second), SILENT)
    assert other is not None
    assert await _refute(steps, other) is Refuted.UNCERTAIN
    row = await steps.record(first.record_id)
    assert (row.attempt, row.retry_count, row.stage) == (3, 1, "retry_wait")
    (third,) = await steps.claim(await steps.worker())
    assert await steps.mark(third) is Mark.SENT


async def test_refuted_before_it_was_called_uncertain_the_attempt_is_the_callers_to_settle(steps: Steps) -> None:
    dead, other = await steps.worker(), await steps.worker()
    claimed = await steps.sent(dead)
    await _webhook(steps, claimed, "5")
    # a living worker may have its answer yet
    assert (await steps.take_over(other)).resumed == []
    await steps.die(dead)
    (resumed,) = (await steps.take_over(other)).resumed
    assert await _refute(steps, resumed) is Refuted.UNANSWERED
    assert await steps.used() == 1
    assert await steps.retry(resumed, SILENT, uncertain=True)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.webhook_request_id) == ("uncertain", None)


async def test_an_id_that_comes_while_the_verdict_waits_is_seen(steps: Steps) -> None:
    claimed = await steps.sent()
    await _webhook(steps, claimed, "5")
    assert not await steps.retry(claimed, SILENT, uncertain=True)
    assert not await settling.die(
        steps.database, claim_of(claimed), SILENT, dead_class=ErrorClass.EXHAUSTED, uncertain=True
    )
    row = await steps.record(claimed.record_id)
    assert (row.status, row.claim_token) == ("in_progress", claimed.claim_token)


async def test_refuted_after_the_end_of_its_record_the_slot_falls_free(steps: Steps) -> None:
    claimed = await steps.sent()
    await _webhook(steps, claimed, "5")
    await steps.sql("UPDATE image_generations SET status = 'failed', stage = 'done', claim_token = NULL")
    before = await steps.record(claimed.record_id)
    refuted = await hooks.refute(steps.database, claimed.claim_token, claimed.attempt_id, "5")
    assert refuted is Refuted.UNCERTAIN
    await steps.check()
    assert await steps.used() == 0
    assert await steps.record(claimed.record_id) == before
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.counted, attempt.webhook_request_id) == ("uncertain", True, None)


async def test_where_the_picture_is_made_a_webhook_says_nothing(steps: Steps) -> None:
    dead = await steps.worker()
    claimed = await steps.sent(dead)
    await _webhook(steps, claimed, "forged")
    # made at once, by an answer that names no id
    assert await steps.generated(claimed)
    await steps.die(dead)
    (resumed,) = (await steps.take_over(await steps.worker())).resumed
    # or a fetch for fresh addresses would bring somebody else's picture
    assert (resumed.unconfirmed, resumed.provider_request_id) == (False, None)
