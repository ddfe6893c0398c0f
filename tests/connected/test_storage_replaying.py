"""A record that died gets another try: once, fenced by the attempt that died, behind whoever waits (PIPELINE F1)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from schemas import topics
from schemas.errors import ErrorClass
from schemas.letters import LetterChoice, Refusal
from storage import admitting, deadlines, replaying, settling
from storage.dispatching import Draft
from storage.sending import Mark
from storage.settling import Failure
from tests.connected.steps import BUSY, Steps, claim_of, database_of, request, statuses

pytestmark = pytest.mark.connected

MODEL_GONE = Failure(ErrorClass.MODEL_UNAVAILABLE, "model_busy", "The model is busy.")
NEXT = Draft("second-model", "again", "/api/v7/images/text-to-image", {"model_id": "second-model"}, 0.044)
EVERYTHING = LetterChoice()


async def _died(steps: Steps, user: UUID | None = None) -> tuple[UUID, int]:
    """A record that died after a retry, and its letter."""
    claimed = await steps.sent(None, request(user))
    await steps.retry(claimed)
    await steps.due(claimed.record_id)
    (second,) = await steps.claim(await steps.worker())
    assert await steps.mark(second) is Mark.SENT
    return second.record_id, await steps.dead(second)


async def test_a_replayed_record_waits_as_if_it_were_new_and_keeps_its_history(steps: Steps) -> None:
    record_id, letter = await _died(steps)
    await steps.sql("UPDATE image_generations SET takeovers = 2 WHERE id = $1", record_id)
    before, attempts = await steps.record(record_id), await steps.attempts(record_id)
    await steps.told()
    began = time.time()
    replayed = await steps.replay(letter, deadline=3600)
    assert (replayed.done, replayed.refused) == ([letter], {})
    row = await steps.record(record_id)
    assert (row.status, row.stage, row.progress, row.version) == ("pending", "queued", 0, before.version + 1)
    assert (row.attempt, row.replay_attempt, row.retry_count, row.takeovers) == (3, 3, 0, 0)
    assert (row.error_class, row.error_code, row.error_message, row.retry_at, row.completed_at) == (None,) * 5
    assert (row.first_dispatched_at, row.claim_token, row.worker_id) == (None, None, None)
    assert row.admitted_at == before.admitted_at
    assert row.turn > before.turn
    assert 3590 < row.deadline_at.timestamp() - began < 3610
    assert await steps.attempts(record_id) == attempts
    (kept,) = await steps.letters(record_id)
    assert kept.replayed_at is not None
    wake, status = sorted(await steps.told(), key=lambda one: one.topic)
    assert status.data == await steps.status(record_id)
    assert (status.topic, status.key) == (topics.STATUS, str(row.chapter_id))
    assert (wake.topic, wake.key) == (topics.retry(5), str(record_id))
    assert wake.data == {"record_id": str(record_id), "attempt": 3}
    assert wake.headers["attempt"] == "3"
    # now: whoever reads it looks at once
    assert int(wake.headers["not-before"]) / 1000 <= time.time() + 0.1
    (third,) = await steps.claim(await steps.worker())
    assert (third.attempt, third.retry_count, await steps.mark(third)) == (3, 0, Mark.SENT)
    assert (await steps.record(record_id)).first_dispatched_at is not None


async def test_it_dies_again_under_a_letter_of_its_own_that_can_be_replayed_in_turn(steps: Steps) -> None:
    record_id, first = await _died(steps)
    await steps.replay(first)
    (claimed,) = await steps.claim(await steps.worker())
    await steps.mark(claimed)
    second = await steps.dead(claimed)
    # named by its older letter it stays as it is
    await steps.sql("UPDATE dead_letters SET replayed_at = NULL WHERE id = $1", first)
    await steps.told()
    assert (await steps.replay(first)).refused == {first: Refusal.ATTEMPT_MOVED_ON}
    assert await steps.told() == []
    assert (await steps.replay(first, second)).done == [second]
    assert (await steps.record(record_id)).attempt == 4


async def test_what_cannot_be_replayed_is_refused_with_its_reason_and_nothing_is_written(steps: Steps) -> None:
    (gone_record, gone), (completed_record, completed), (foreign_record, foreign), (record_id, done) = [
        await _died(steps) for _ in range(4)
    ]
    await steps.replay(done)
    await steps.sql("DELETE FROM image_generations WHERE id = $1", gone_record)
    await steps.sql("UPDATE image_generations SET status = 'completed' WHERE id = $1", completed_record)
    await steps.sql("UPDATE image_generations SET lane = NULL WHERE id = $1", foreign_record)
    unknown = done + 1000
    before = await steps.sql("SELECT * FROM image_generations ORDER BY id")
    letters = await steps.sql("SELECT * FROM dead_letters ORDER BY id")
    await steps.told()
    ids = [done, gone, completed, foreign, unknown]
    wanted = {
        done: Refusal.ALREADY_REPLAYED,
        gone: Refusal.RECORD_GONE,
        completed: Refusal.NOT_FAILED,
        foreign: Refusal.RECORD_GONE,
        unknown: Refusal.UNKNOWN,
    }
    plan = await replaying.plan(steps.database, EVERYTHING, ids=ids)
    assert (plan.groups, plan.replayable, sum(plan.reasons.values())) == ([], 0, 5)
    replayed = await replaying.replay(steps.database, ids, deadline=60)
    assert (replayed.done, replayed.refused) == ([], wanted)
    assert await steps.sql("SELECT * FROM image_generations ORDER BY id") == before
    assert await steps.sql("SELECT * FROM dead_letters ORDER BY id") == letters
    assert await steps.told() == []
    assert (await steps.record(record_id)).attempt == 3


async def test_of_two_at_once_one_replays(steps: Steps, database_url: str) -> None:
    letters = [(await _died(steps))[1] for _ in range(3)]
    await steps.told()
    async with _connected(database_url) as blocker, database_of(database_url) as other:
        async with blocker.transaction():
            await blocker.execute("SELECT FROM image_generations ORDER BY id FOR UPDATE")
            both = asyncio.gather(*(replaying.replay(one, letters, deadline=60) for one in (steps.database, other)))
            await _waiting_for_locks(steps, 2)
        first, second = await both
    assert sorted(first.done + second.done) == letters
    assert {**first.refused, **second.refused} == dict.fromkeys(letters, Refusal.ALREADY_REPLAYED)
    told = await steps.told()
    assert len(statuses(told)) == 3
    assert {row.attempt for row in await steps.sql("SELECT attempt FROM image_generations")} == {3}


async def test_a_thousand_replays_stand_behind_others_first_scenes(steps: Steps) -> None:
    many = uuid4()
    records = await steps.waiting(*(request(many, scene=scene) for scene in range(1, 41)))
    worker = await steps.worker()
    letters: list[int] = []
    while claims := await steps.claim(worker):
        for claimed in claims:
            await steps.mark(claimed)
            letters.append(await steps.dead(claimed))
    assert len(letters) == len(records) == 40
    (early,) = await steps.waiting(request())
    await steps.replay(*letters)
    (late,) = await steps.waiting(request())
    served = [one.record_id for _ in range(2) for one in await steps.claim(worker)]
    # three slots: one replay to each turn, beside the others
    assert {early, late} <= set(served)
    turns = await steps.sql("SELECT turn FROM image_generations WHERE user_id = $1", many)
    assert len({row.turn for row in turns}) == 40
    assert await replaying.candidates(steps.database, EVERYTHING) == []


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def _waiting_for_locks(steps: Steps, sessions: int) -> None:
    async with asyncio.timeout(10):
        while True:
            (row,) = await steps.sql(
                "SELECT count(*) AS sessions FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            if row.sessions == sessions:
                return
            await asyncio.sleep(0.01)


async def test_what_was_never_admitted_is_admitted_by_the_sweep(steps: Steps) -> None:
    new = request()
    await steps.accept(new)
    await steps.sql(
        "UPDATE image_generations SET deadline_at = now() - interval '1 s', created_at = now() - interval '1 h'"
    )
    assert await deadlines.end_overdue(steps.database, claimed_grace=0) == 1
    (letter,) = await steps.letters(new.record_id)
    await steps.replay(letter.id)
    row = await steps.record(new.record_id)
    assert (row.status, row.admitted_at, row.turn) == ("pending", None, None)
    assert await admitting.admit_overdue(steps.database, after=30) == 1
    (claimed,) = await steps.claim(await steps.worker())
    assert claimed.record_id == new.record_id


async def test_the_chain_of_models_begins_anew(steps: Steps) -> None:
    claimed = await steps.sent()
    following = await settling.next_model(steps.database, claim_of(claimed), MODEL_GONE, NEXT)
    assert following is not None
    await steps.mark(following)
    await steps.replay(await steps.dead(following))
    (again,) = await steps.claim(await steps.worker())
    assert (again.attempt, again.retry_count) == (3, 0)
    # those tried before are history, though their pass has the same number
    assert await settling.tried_models(steps.database, again.claim_token) == {"first-model"}
    third = await settling.next_model(steps.database, claim_of(again), MODEL_GONE, NEXT)
    assert third is not None
    assert await settling.tried_models(steps.database, again.claim_token) == {"first-model", "second-model"}


async def test_an_attempt_that_is_still_followed_is_left_alone_and_nothing_is_sent_beside_it(steps: Steps) -> None:
    claimed = await steps.sent()
    await steps.named(claimed, "job-of-before")
    await steps.sql("UPDATE image_generations SET deadline_at = now() - interval '1 h'")
    assert await deadlines.end_overdue(steps.database, claimed_grace=0) == 1
    (letter,) = await steps.letters(claimed.record_id)
    before, slots = await steps.attempts(claimed.record_id), await steps.slots()
    await steps.replay(letter.id)
    assert await steps.attempts(claimed.record_id) == before
    assert await steps.slots() == slots
    assert await steps.claim(await steps.worker()) == []
    # its worker's writes no longer reach the record
    row = await steps.record(claimed.record_id)
    assert not await steps.retry(claimed, BUSY)
    assert not await steps.answers.progress(claimed.claim_token, 50)
    assert await steps.record(claimed.record_id) == row
