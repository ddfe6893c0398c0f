"""Nobody is served at the cost of another (PIPELINE D3): thousands wait here, and slots fall free one by one."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from schemas.words import Lane, Tier
from storage.dispatching import Claimed
from storage.sending import Sending
from tests.connected.steps import Steps, asked, request, steps_of

pytestmark = pytest.mark.connected

SLOTS = 5
_PATIENT: dict[str, Any] = {"database_timeout": 60.0}

# of $3 users in turn, and where there is only one it is $4
_CROWD = """
INSERT INTO image_generations (id, user_id, chapter_id, scene_number, status, stage, version, attempt, lane,
    admitted_at, turn, created_at, updated_at, deadline_at, scene_description, style, aspect_ratio, user_tier)
SELECT gen_random_uuid(), CASE $3::int WHEN 1 THEN $4::uuid ELSE md5((i % $3)::text)::uuid END, gen_random_uuid(), i,
    'pending', 'queued', 1, 1, $1, now(), 1 + (i - 1) / $3, now(), now(), now() + interval '1 h', 'a tea party',
    'cinematic', '16:9', 'free'
FROM generate_series(1, $2::int) i
"""
_DONE = """
WITH a AS (
    UPDATE generation_attempts SET outcome = 'success', closed_at = now() WHERE claim_token = ANY ($1::uuid[])
    RETURNING id
), freed AS (
    UPDATE provider_slots SET attempt_id = NULL FROM a WHERE attempt_id = a.id
)
UPDATE image_generations SET status = 'completed', claim_token = NULL WHERE claim_token = ANY ($1::uuid[])
"""


class Desk:
    """One worker with some slots, of which one after the other falls free."""

    def __init__(self, steps: Steps, worker: UUID) -> None:
        self.steps = steps
        self.worker = worker
        self.held: list[Claimed] = []

    async def fill(self) -> list[Claimed]:
        """Take whatever the free slots allow."""
        claims = await self.steps.dispatcher.claim(self.worker)
        self.held += claims
        return claims

    async def next(self) -> Claimed:
        """The one that gets the slot that falls free first."""
        await self.steps.sql(_DONE, [self.held.pop(0).claim_token])
        (claimed,) = await self.fill()
        return claimed


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with steps_of(database_url, slots=SLOTS, **_PATIENT) as steps:
        yield Desk(steps, await steps.worker())


async def crowd(desk: Desk, lane: Lane, count: int, *, users: int = 1000, user: UUID | None = None) -> None:
    await desk.steps.sql(_CROWD, lane.value, count, users, user)


async def test_a_bulk_batch_of_thousands_leaves_the_next_free_slot_to_whoever_comes(desk: Desk) -> None:
    chance = random.Random(5)
    await crowd(desk, Lane.BULK, 5_000, users=1, user=uuid4())
    assert Counter(one.lane for one in await desk.fill()) == {"bulk": SLOTS}
    for _ in range(10):
        for _ in range(chance.randint(1, 4)):
            assert (await desk.next()).lane == "bulk"
        new = request(tier=chance.choice([Tier.PREMIUM, Tier.ENTERPRISE]))
        await desk.steps.admit(asked(new))
        assert (await desk.next()).record_id == new.record_id


async def test_a_users_thousand_scenes_delay_another_users_first_by_one_turn(desk: Desk) -> None:
    many = uuid4()
    await crowd(desk, Lane.STANDARD, 1_000, users=1, user=many)
    await desk.fill()
    for _ in range(20):
        await desk.next()
    for _ in range(3):
        first = request(scene=1)
        second = request(first.user_id, scene=2)
        await desk.steps.admit(asked(first), asked(second))
        order = [(await desk.next()).record_id for _ in range(4)]
        # at most one of the thousand goes before it, and at most one more before its second
        assert order.index(first.record_id) <= 1
        assert order.index(second.record_id) <= 3


async def test_users_of_a_full_lane_take_turns_to_the_end(desk: Desk) -> None:
    """Ten users with twenty scenes each, and one with two hundred: each turn serves everybody once."""
    many = uuid4()
    await crowd(desk, Lane.STANDARD, 200, users=10)
    await crowd(desk, Lane.STANDARD, 200, users=1, user=many)
    users = {row.id: row.user_id for row in await desk.steps.sql("SELECT id, user_id FROM image_generations")}
    order = [users[one.record_id] for one in await desk.fill()]
    while len(order) < 220:
        order.append(users[(await desk.next()).record_id])
    for turn in range(20):
        assert Counter(order[turn * 11 : turn * 11 + 11]) == dict.fromkeys(set(users.values()), 1)


async def test_full_lanes_keep_eight_to_three_to_one_and_an_empty_one_leaves_its_share(desk: Desk) -> None:
    for lane in Lane:
        await crowd(desk, lane, 500)
    served = [one.lane for one in await desk.fill()]
    while len(served) < 240:
        served.append((await desk.next()).lane)
    # over any stretch: each lap of twelve, wherever it begins, within one of its share
    for begin in range(0, 229):
        lap = Counter(served[begin : begin + 12])
        assert abs(lap["interactive"] - 8) <= 1
        assert abs(lap["standard"] - 3) <= 1
        assert abs(lap["bulk"] - 1) <= 1
    assert Counter(served) == {"interactive": 160, "standard": 60, "bulk": 20}
    await desk.steps.sql(
        "UPDATE image_generations SET status = 'cancelled' WHERE lane = 'interactive'"
        " AND claim_token IS NULL AND status = 'pending'"
    )
    rest = Counter([(await desk.next()).lane for _ in range(80)])
    assert rest == {"standard": pytest.approx(60, abs=3), "bulk": pytest.approx(20, abs=3)}


async def test_what_is_claimed_at_once_comes_in_the_order_of_the_turns(desk: Desk) -> None:
    """Who takes five at once begins them in the order in which five would have come one by one."""
    for lane in Lane:
        await crowd(desk, lane, 500)
    assert [one.lane for one in await desk.fill()] == ["interactive", "standard", "bulk", "interactive", "interactive"]


async def test_a_retry_keeps_its_turn_and_is_next_when_it_is_due(desk: Desk) -> None:
    await crowd(desk, Lane.STANDARD, 1_000)
    (first, *_) = await desk.fill()
    await desk.steps.marks.mark(Sending(first.claim_token, first.attempt_id))
    await desk.steps.retry(first, delay=0)
    desk.held.remove(first)
    (again,) = await desk.fill()
    assert (again.record_id, again.attempt) == (first.record_id, 2)
