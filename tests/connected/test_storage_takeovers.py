"""Workers that die, and what becomes of their work (PIPELINE D1, W, X1), on real Postgres."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from schemas import topics
from schemas.errors import ErrorClass
from storage import abandoned, deadlines, kept, settling, takeovers, workers
from storage.dispatching import Claimed
from storage.sending import Mark
from tests.connected.steps import BUSY, LIFE, SILENT, Steps, claim_of, request, statuses, steps_of

pytestmark = pytest.mark.connected


@pytest.fixture
async def steps(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url, slots=6) as steps:
        yield steps


async def _fenced(steps: Steps, worker: UUID) -> bool:
    (row,) = await steps.sql("SELECT fenced_at IS NOT NULL AS fenced FROM workers WHERE id = $1", worker)
    return bool(row.fenced)


async def _storing(steps: Steps, worker: UUID, count: int) -> list[Claimed]:
    """Records that this worker was storing."""
    await steps.waiting(*(request() for _ in range(count)))
    claims = await steps.claim(worker)
    for claimed in claims:
        await steps.mark(claimed)
        await steps.generated(claimed)
    return claims


async def test_a_worker_lives_by_its_signs_until_it_is_fenced(steps: Steps) -> None:
    worker = await steps.worker(life=0)
    assert await workers.beat(steps.database, worker, life=LIFE)
    assert not (await steps.take_over(await steps.worker())).resumed
    await workers.leave(steps.database, worker)
    assert not await workers.beat(steps.database, worker, life=LIFE)


async def test_late_but_not_fenced_a_worker_goes_on(steps: Steps) -> None:
    worker = await steps.worker()
    await steps.die(worker)
    # somebody looked, and there was nothing to take
    assert (await steps.take_over(await steps.worker())).released == 0
    assert not await _fenced(steps, worker)
    assert await workers.beat(steps.database, worker, life=LIFE)


async def test_what_a_dead_worker_had_not_sent_waits_again_under_the_same_number(steps: Steps) -> None:
    dead, other = await steps.worker(), await steps.worker()
    claimed = await steps.claimed(dead)
    assert (await steps.take_over(other)).released == 0
    await steps.die(dead)
    assert (await steps.take_over(other, judge=False)).released == 0
    await steps.told()
    taken = await steps.take_over(other)
    assert (taken.resumed, taken.released) == ([], 1)
    assert await _fenced(steps, dead)
    assert await steps.used() == 0
    (status,) = await steps.told()
    assert status.data == await steps.status(claimed.record_id)
    assert (status.data["stage"], status.data["attempt"], status.data["retry_count"]) == ("queued", 1, 0)
    assert await steps.mark(claimed) is Mark.LOST
    (again,) = await steps.claim(other)
    assert (again.attempt_id, again.takeovers) == (claimed.attempt_id, 0)


async def test_what_has_an_id_is_resumed_under_a_new_token(steps: Steps) -> None:
    dead, other = await steps.worker(), await steps.worker()
    claimed = await steps.sent(dead)
    await steps.named(claimed, "job-1")
    await steps.die(dead)
    await steps.told()
    (resumed,) = (await steps.take_over(other)).resumed
    assert (resumed.attempt_id, resumed.provider_request_id, resumed.sent) == (claimed.attempt_id, "job-1", True)
    assert resumed.claim_token != claimed.claim_token
    assert (resumed.eta, resumed.fetch_url) == (4.0, "https://provider.test/fetch/job-1")
    assert resumed.takeovers == 0
    # it keeps its own slot, and nothing was to be told
    assert await steps.used() == 1
    assert await steps.told() == []
    assert not await steps.generated(claimed)
    assert await steps.generated(resumed)
    assert await steps.stored(resumed)


async def test_what_was_sent_and_not_answered_is_left_alone_for_a_while(steps: Steps) -> None:
    dead, other = await steps.worker(), await steps.worker()
    claimed = await steps.sent(dead)
    await steps.die(dead, ago=5)
    taken = await steps.take_over(other)
    assert (taken.resumed, taken.released) == ([], 0)
    await workers.fence_silent(steps.database, after=20)
    assert await abandoned.unanswered(steps.database, after=20) == []
    await steps.die(dead, ago=21)
    # not by one that could still come back
    assert await abandoned.unanswered(steps.database, after=20) == []
    assert await workers.fence_silent(steps.database, after=20) == 1
    (lost,) = await abandoned.unanswered(steps.database, after=20)
    assert (lost.attempt_id, lost.claim_token) == (claimed.attempt_id, claimed.claim_token)
    assert await steps.retry(lost, SILENT, uncertain=True)
    assert await steps.used() == 0
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.counted) == ("uncertain", True)
    assert (await steps.record(claimed.record_id)).retry_count == 1


async def test_a_worker_that_came_back_in_the_last_moment_loses_nothing(steps: Steps) -> None:
    slow = await steps.worker()
    claimed = await steps.sent(slow)
    await steps.die(slow, ago=30)
    assert await workers.beat(steps.database, slow, life=LIFE)
    assert await workers.fence_silent(steps.database, after=20) == 0
    assert await abandoned.unanswered(steps.database, after=20) == []
    assert await steps.named(claimed)


async def test_the_late_id_of_a_stale_worker_is_harvested_before_the_retry(steps: Steps) -> None:
    dead, other = await steps.worker(), await steps.worker()
    claimed = await steps.sent(dead)
    await steps.retry(claimed, SILENT, delay=600, uncertain=True)
    assert (await steps.take_over(other)).resumed == []
    assert not await steps.named(claimed, "late-job")
    (harvested,) = (await steps.take_over(other)).resumed
    assert (harvested.attempt_id, harvested.provider_request_id) == (claimed.attempt_id, "late-job")
    assert harvested.outcome == "uncertain"
    # and when the harvester dies as well, the next one goes on with it
    await steps.die(other)
    (again,) = (await steps.take_over(await steps.worker())).resumed
    await steps.generated(again)
    assert await steps.stored(again)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert (attempt.outcome, attempt.counted) == ("late_success", True)
    assert (await steps.record(claimed.record_id)).retry_count == 1


async def test_the_late_id_of_an_ended_record_is_followed_without_touching_it(steps: Steps) -> None:
    dead, other = await steps.worker(), await steps.worker()
    claimed = await steps.sent(dead)
    assert await settling.die(
        steps.database, claim_of(claimed), SILENT, dead_class=ErrorClass.EXHAUSTED, uncertain=True
    )
    await steps.named(claimed, "late-job")
    assert await steps.adopt(other) == []
    await steps.die(dead)
    (orphan,) = await steps.adopt(other)
    assert (orphan.provider_request_id, orphan.attempt_id) == ("late-job", claimed.attempt_id)
    assert await steps.adopt(other, orphan) == []
    before = await steps.record(claimed.record_id)
    assert await steps.made_late(orphan)
    assert await steps.kept(orphan)
    (attempt,) = await steps.attempts(claimed.record_id)
    assert attempt.outcome == "late_success"
    assert await steps.record(claimed.record_id) == before


async def test_a_sent_attempt_of_an_ended_record_gives_its_slot_back_when_its_worker_is_gone(steps: Steps) -> None:
    dead = await steps.worker()
    claimed = await steps.sent(dead)
    await steps.sql("UPDATE image_generations SET deadline_at = now() - interval '1 h'")
    await deadlines.end_overdue(steps.database, claimed_grace=0)
    await abandoned.unanswered(steps.database, after=20)
    assert await steps.used() == 1
    await steps.die(dead, ago=21)
    await abandoned.unanswered(steps.database, after=20)
    await steps.check()
    assert await steps.used() == 0
    (attempt,) = await steps.attempts(claimed.record_id)
    assert attempt.outcome == "uncertain"


async def test_an_orphan_with_an_id_is_followed_by_another(steps: Steps) -> None:
    dead, other = await steps.worker(), await steps.worker()
    claimed = await steps.sent(dead)
    await steps.named(claimed)
    await steps.sql("UPDATE image_generations SET deadline_at = now() - interval '1 h'")
    await deadlines.end_overdue(steps.database, claimed_grace=0)
    assert await steps.used() == 1
    await steps.die(dead)
    (orphan,) = await steps.adopt(other)
    assert await kept.close(steps.database, claim_of(orphan), "failed")
    await steps.check()
    assert await steps.used() == 0


async def test_only_storing_counts_as_a_takeover_and_its_victims_are_taken_one_at_a_time(steps: Steps) -> None:
    dead, other, third = await steps.worker(), await steps.worker(), await steps.worker()
    innocent = await _storing(steps, dead, 3)
    (polled,) = await _polled(steps, dead)
    await steps.die(dead)
    first = (await steps.take_over(other)).resumed
    assert {one.record_id: one.takeovers for one in first if one.record_id == polled.record_id} == {polled.record_id: 0}
    (alone,) = [one for one in first if one.record_id != polled.record_id]
    assert alone.takeovers == 1
    assert (await steps.take_over(other)).resumed == []
    # another worker stores another one meanwhile
    (elsewhere,) = (await steps.take_over(third)).resumed
    assert (elsewhere.takeovers, await steps.stored(alone)) == (1, True)
    (last,) = (await steps.take_over(other)).resumed
    assert {alone.record_id, elsewhere.record_id, last.record_id} == {one.record_id for one in innocent}


async def _polled(steps: Steps, worker: UUID) -> list[Claimed]:
    await steps.waiting()
    claims = await steps.claim(worker)
    for claimed in claims:
        await steps.mark(claimed)
        await steps.named(claimed)
    return claims


async def test_the_picture_that_kills_its_workers_is_found_and_the_innocent_are_not(steps: Steps) -> None:
    worker = await steps.worker()
    (guilty, *_) = await _storing(steps, worker, 4)
    deaths = 0
    takeovers_of: dict[UUID, int] = {}
    for _ in range(20):
        await steps.die(worker)
        worker = await steps.worker()
        stored_all = True
        while resumed := (await steps.take_over(worker)).resumed:
            (one,) = resumed
            takeovers_of[one.record_id] = one.takeovers
            if one.record_id == guilty.record_id:
                if one.takeovers >= takeovers.MOST_TAKEOVERS:
                    why = settling.Failure(ErrorClass.UNEXPECTED, "kills_workers", "no picture")
                    assert await settling.die(steps.database, claim_of(one), why, dead_class=ErrorClass.UNEXPECTED)
                    continue
                deaths += 1
                stored_all = False
                break
            assert await steps.stored(one)
        if stored_all:
            break
    assert deaths == takeovers.MOST_TAKEOVERS - 1
    assert takeovers_of.pop(guilty.record_id) == takeovers.MOST_TAKEOVERS
    assert set(takeovers_of.values()) == {1}
    rows = await steps.sql("SELECT status, count(*) AS records FROM image_generations GROUP BY status")
    assert {row.status: row.records for row in rows} == {"completed": 3, "failed": 1}


async def test_handed_back_with_an_id_a_record_is_resumed_by_whoever_comes(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.named(claimed)
    await steps.told()
    assert await takeovers.hand_back(steps.database, [claimed.claim_token]) == 1
    await steps.check()
    assert await steps.told() == []
    assert await steps.claim(await steps.worker()) == []
    (resumed,) = (await steps.take_over(await steps.worker(), judge=False)).resumed
    assert (resumed.attempt_id, resumed.takeovers) == (claimed.attempt_id, 0)


async def test_an_open_submit_is_not_handed_back_but_a_mark_without_a_call_is(steps: Steps) -> None:
    claimed = await steps.sent()
    assert await takeovers.hand_back(steps.database, [claimed.claim_token]) == 0
    assert (await steps.record(claimed.record_id)).claim_token == claimed.claim_token
    assert await takeovers.hand_back(steps.database, [claimed.claim_token], nothing_sent=True) == 1
    await steps.check()
    (again,) = await steps.claim(await steps.worker())
    assert (again.attempt_id, again.sent) == (claimed.attempt_id, False)
    assert await takeovers.hand_back(steps.database, [uuid4()], nothing_sent=True) == 0


async def test_addresses_of_pictures_are_never_handed_back_as_unsent(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.generated(claimed)
    assert await takeovers.hand_back(steps.database, [claimed.claim_token], nothing_sent=True) == 1
    assert await steps.claim(await steps.worker()) == []
    (resumed,) = (await steps.take_over(await steps.worker())).resumed
    assert resumed.output_urls == ["https://pictures.test/1.png"]


async def test_claims_whose_commit_was_never_heard_of_are_found_again(steps: Steps) -> None:
    worker, other = await steps.worker(), await steps.worker()
    await steps.waiting(request(), request())
    known, unheard = await steps.claim(worker)
    await steps.claim(other)
    (found,) = await takeovers.forgotten(steps.database, worker, [known.claim_token])
    assert (found.record_id, found.claim_token, found.sent) == (unheard.record_id, unheard.claim_token, False)
    assert await takeovers.forgotten(steps.database, worker, [known.claim_token, unheard.claim_token]) == []
    # also of a next model, whose attempt has the same claim
    await steps.mark(unheard)
    draft = settling.Draft("second-model", "p", "/path", {}, None)
    following = await settling.next_model(steps.database, claim_of(unheard), BUSY, draft)
    assert following is not None
    (found,) = await takeovers.forgotten(steps.database, worker, [known.claim_token])
    assert (found.attempt_id, found.model_id) == (following.attempt_id, "second-model")


async def test_the_rows_of_workers_long_gone_go_when_they_hold_nothing(steps: Steps) -> None:
    gone, holding = await steps.worker(), await steps.worker()
    await steps.claimed(holding)
    for worker in (gone, holding):
        await steps.die(worker, ago=7200)
    await workers.forget_old(steps.database, after=3600)
    assert [row.id for row in await steps.sql("SELECT id FROM workers")] == [holding]


async def test_a_young_postgres_is_no_judge(steps: Steps) -> None:
    assert await workers.postgres_older_than(steps.database, 0)
    assert not await workers.postgres_older_than(steps.database, 1e6)


async def test_a_takeover_sends_nothing_to_kafka_but_the_status(steps: Steps) -> None:
    dead = await steps.worker()
    await steps.waiting(*(request() for _ in range(4)))
    unsent, named, *_ = await steps.claim(dead)
    await steps.mark(named)
    await steps.named(named)
    await steps.die(dead)
    await steps.told()
    await steps.take_over(await steps.worker())
    told = await steps.told()
    assert {one.topic for one in told} == {topics.STATUS}
    assert str(unsent.record_id) in {status["record_id"] for status in statuses(told)}
