"""Accept and admit on real Postgres (PIPELINE A, B3, B4): once, in order, and one user's crowd behind nobody."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError
from uuid_utils.compat import uuid7

from schemas import events, topics
from schemas.words import Lane, Tier
from storage import admitting
from storage.accepting import Accepted, Acceptor, KeyReused
from storage.database import Database, Unavailable
from storage.settings import DatabaseSettings
from tests.connected.steps import Steps, asked, database_of, request

pytestmark = pytest.mark.connected


class Counted(Database):
    """Counts statements; `lose` answers are lost after they were carried out."""

    def __init__(self, url: str) -> None:
        super().__init__(DatabaseSettings(database_url=url), application="test")
        self.statements = 0
        self.lose = 0

    async def fetch(self, sql: str, *args: object) -> Sequence[Any]:
        self.statements += 1
        rows = await super().fetch(sql, *args)
        if self.lose:
            self.lose -= 1
            raise Unavailable("the line broke after the commit")
        return rows


@pytest.fixture
async def counted(database_url: str) -> AsyncIterator[Counted]:
    database = Counted(database_url)
    yield database
    await database.close()


async def test_what_arrives_together_is_one_statement_and_is_told_in_the_order_of_ids(
    steps: Steps, counted: Counted
) -> None:
    acceptor = Acceptor(counted, deadline=60)
    made = [request() for _ in range(50)]
    results = await asyncio.gather(*(acceptor.accept(one) for one in reversed(made)))
    assert [result.record_id for result in results] == [one.record_id for one in reversed(made)]
    assert counted.statements == 1
    told = await steps.told()
    for topic in (topics.requested(Lane.STANDARD), topics.STATUS):
        ids = [UUID(one.event["subject"]) for one in told if one.topic == topic]
        assert ids == [one.record_id for one in made]


async def test_a_request_is_told_with_what_every_reader_sees(steps: Steps) -> None:
    new = request(tier=Tier.PREMIUM, scene=7)
    await steps.accept(new)
    requested, status = sorted(await steps.told(), key=lambda one: one.topic)
    assert (requested.topic, requested.key) == (topics.requested(Lane.INTERACTIVE), str(new.record_id))
    assert requested.event["type"] == events.REQUESTED_TYPE
    read = events.RequestedEvent.model_validate(requested.event, strict=False).data
    assert (read.record_id, read.user_id, read.scene_number) == (new.record_id, new.user_id, 7)
    assert (read.body(), read.user_tier) == (new.body, Tier.PREMIUM)
    assert (status.topic, status.key) == (topics.STATUS, str(new.chapter_id))
    assert status.data == await steps.status(new.record_id)
    assert (status.data["status"], status.data["stage"], status.data["version"]) == ("pending", "queued", 1)
    assert status.event["sequence"] == "1"
    assert status.event["partitionkey"] == str(new.chapter_id)
    row = await steps.record(new.record_id)
    assert (row.deadline_at - row.created_at).total_seconds() == 86_400


async def test_of_two_acceptors_with_one_key_one_makes_the_record(steps: Steps, database_url: str) -> None:
    user = uuid4()
    async with database_of(database_url) as one, database_of(database_url) as other:
        acceptors = [Acceptor(database, deadline=60) for database in (one, other)]
        calls = [acceptor.accept(request(user, key=f"key-{i % 5}")) for i in range(20) for acceptor in acceptors]
        results = await asyncio.gather(*calls)
    assert sum(not result.replayed for result in results) == 5
    assert len({result.record_id for result in results}) == 5
    (row,) = await steps.sql("SELECT count(*) AS records FROM image_generations")
    assert row.records == 5
    assert len(await steps.told(topics.requested(Lane.STANDARD))) == 5


async def test_a_key_used_for_something_else_is_refused_also_in_the_same_flush(steps: Steps) -> None:
    user = uuid4()
    calls = [steps.acceptor.accept(request(user, key="k", fingerprint=f"f{i}")) for i in (1, 2, 1, 3)]
    first, second, third, fourth = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(first, Accepted)
    assert third == Accepted(first.record_id, replayed=True)
    assert isinstance(second, KeyReused)
    assert isinstance(fourth, KeyReused)
    # another user's key of the same name is another key
    (others,) = await steps.accept(request(key="k", fingerprint="f9"))
    assert not others.replayed


async def test_one_bad_row_fails_one_request(steps: Steps) -> None:
    good, taken = request(), request()
    bad = request(scene=2**40)
    calls = [steps.acceptor.accept(one) for one in (request(), good, bad, taken)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[2], DBAPIError)
    assert [results[1], results[3]] == [Accepted(good.record_id, False), Accepted(taken.record_id, False)]
    assert len(await steps.told(topics.STATUS)) == 3


async def test_a_flush_whose_answer_was_lost_is_repeated_with_the_same_ids(steps: Steps, counted: Counted) -> None:
    acceptor = Acceptor(counted, deadline=60)
    user = uuid4()
    counted.lose = 1
    keyed, plain = request(user, key="k"), request(user)
    results = await asyncio.gather(acceptor.accept(keyed), acceptor.accept(plain))
    assert list(results) == [Accepted(keyed.record_id, False), Accepted(plain.record_id, False)]
    assert len(await steps.told(topics.STATUS)) == 2
    # the answer to the same call once more: of the key, as before
    assert await acceptor.accept(request(user, key="k")) == Accepted(keyed.record_id, True)


async def test_postgres_away_for_longer_is_said(counted: Counted) -> None:
    acceptor = Acceptor(counted, deadline=60)
    counted.lose = 2
    with pytest.raises(Unavailable):
        await acceptor.accept(request())


async def test_users_take_turns_and_a_users_scenes_stay_in_order(steps: Steps) -> None:
    crowd, lone = uuid4(), uuid4()
    many = [request(crowd, scene=i) for i in range(1, 6)]
    await steps.waiting(*many)
    await steps.waiting(request(lone))
    (turn,) = [row.turn for row in await steps.sql("SELECT turn FROM image_generations WHERE user_id = $1", lone)]
    assert turn == 1
    rows = await steps.sql("SELECT turn FROM image_generations WHERE user_id = $1 ORDER BY scene_number", crowd)
    assert [row.turn for row in rows] == [1, 2, 3, 4, 5]
    # who comes later starts where the lane is, not where it began
    worker = await steps.worker()
    claims = await steps.claim(worker)
    assert {claim.record_id for claim in claims[:2]} == {many[0].record_id, *[(await _only(steps, lone))]}
    (late,) = await steps.waiting(request())
    assert (await steps.record(late)).turn == 3


async def _only(steps: Steps, user: UUID) -> UUID:
    (row,) = await steps.sql("SELECT id FROM image_generations WHERE user_id = $1", user)
    record_id: UUID = row.id
    return record_id


async def test_a_retry_keeps_its_turn_and_an_event_read_again_changes_nothing(steps: Steps) -> None:
    new = request()
    claimed = await steps.sent(None, new)
    before = await steps.record(new.record_id)
    await steps.retry(claimed)
    again = await steps.admit(asked(new))
    assert (again.known, again.created, again.ignored) == (0, 0, 1)
    after = await steps.record(new.record_id)
    assert (after.turn, after.admitted_at) == (before.turn, before.admitted_at)


async def test_known_requests_are_admitted_once_and_say_nothing_new(steps: Steps) -> None:
    new = request()
    await steps.accept(new)
    await steps.told()
    first = await steps.admit(asked(new), asked(new))
    assert (first.known, first.created, first.ignored) == (1, 0, 1)
    second = await steps.admit(asked(new))
    assert (second.known, second.created, second.ignored) == (0, 0, 1)
    assert not await steps.told()
    assert (await steps.record(new.record_id)).version == 1


async def test_another_services_request_is_created_and_told_in_the_lane_of_its_topic(steps: Steps) -> None:
    foreign = request(record_id=uuid7(), tier=Tier.PREMIUM, scene=3)
    done = await steps.admit(asked(foreign, lane=Lane.BULK), asked(foreign, lane=Lane.BULK))
    assert (done.known, done.created, done.ignored) == (0, 1, 1)
    (status,) = await steps.told()
    assert (status.topic, status.key) == (topics.STATUS, str(foreign.chapter_id))
    assert status.data == await steps.status(foreign.record_id)
    row = await steps.record(foreign.record_id)
    assert (row.lane, row.user_tier, row.version, row.turn) == ("bulk", "premium", 1, 1)
    assert row.admitted_at is not None
    again = await steps.admit(asked(foreign, lane=Lane.BULK))
    assert (again.known, again.created, again.ignored) == (0, 0, 1)


async def test_another_users_event_about_a_record_is_ignored(steps: Steps) -> None:
    new = request()
    await steps.accept(new)
    done = await steps.admit(asked(new, user=uuid4()))
    assert (done.known, done.created, done.ignored) == (0, 0, 1)
    assert (await steps.record(new.record_id)).admitted_at is None


async def test_two_consumers_that_create_the_same_record_make_one(steps: Steps, database_url: str) -> None:
    foreign = [request(record_id=uuid7()) for _ in range(20)]
    async with database_of(database_url) as one, database_of(database_url) as other:
        done = await asyncio.gather(
            admitting.admit(one, [asked(new) for new in foreign], deadline=60),
            admitting.admit(other, [asked(new) for new in reversed(foreign)], deadline=60),
        )
    assert sum(each.created for each in done) == 20
    assert len(await steps.told(topics.STATUS)) == 20


async def test_what_lost_its_event_is_admitted_after_a_while(steps: Steps) -> None:
    user = uuid4()
    lost, fresh = request(user, scene=1), request(user, scene=2)
    await steps.accept(lost, fresh)
    await steps.sql("UPDATE image_generations SET created_at = now() - interval '31 s' WHERE id = $1", lost.record_id)
    # of the old system: pending for long, and not ours
    await steps.sql(
        "INSERT INTO image_generations (id, user_id, status, created_at)"
        " VALUES ($1, $2, 'pending', now() - interval '1 day')",
        uuid7(),
        user,
    )
    assert await admitting.admit_overdue(steps.database, after=30) == 1
    assert (await steps.record(lost.record_id)).turn == 1
    assert (await steps.record(fresh.record_id)).admitted_at is None
    assert await admitting.admit_overdue(steps.database, after=30) == 0


async def test_a_retry_event_is_of_use_while_its_record_waits_for_that_number(steps: Steps) -> None:
    claimed = await steps.sent()
    asked_about = [(claimed.record_id, 2), (claimed.record_id, 1), (uuid4(), 1)]
    assert await admitting.still_waiting(steps.database, asked_about) == []
    await steps.retry(claimed, delay=5.0)
    # by Postgres' clock
    (due_in,) = await admitting.still_waiting(steps.database, asked_about)
    assert 0 < due_in <= 5
    await steps.sql("UPDATE image_generations SET retry_at = now() - interval '1 h'")
    assert await admitting.still_waiting(steps.database, asked_about) == [0.0]
