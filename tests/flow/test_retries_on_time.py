"""When a retry comes: never before its time, soon after it, and whoever was turned away no sooner than was asked."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schemas import topics
from tests.connected.steps import request
from tests.flow.working import Call, Held, Line, error, line_of, settings_of, success

pytestmark = [pytest.mark.flow, pytest.mark.connected]

# fits nothing: a failure of this request, which no breaker counts
SENSELESS = {"status": "success", "id": 1, "output": []}
JITTER = 0.25


@pytest.fixture
async def line(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Line]:
    settings = settings_of(database_url, kafka_servers, namespace, tmp_path / "media", provider_slots=20)
    async with line_of(settings) as line:
        yield line


async def test_no_retry_of_a_crowd_comes_before_its_time(line: Line) -> None:
    """At a tenth of the real delays, each of which is extended by a quarter at most."""
    delays = (0.5, 1.0, 2.0)
    asked: Counter[str] = Counter()

    async def fails_three_times(call: Call) -> dict[str, Any]:
        asked[call.prompt] += 1
        return SENSELESS if asked[call.prompt] <= 3 else success(f"made-{call.number}")

    line.provider.scripted(*[fails_three_times] * 160)
    line.start(retry_delays=delays)
    records = await asyncio.gather(*(line.ask(request(text=f"Tea party {number}")) for number in range(40)))
    for record_id in records:
        row = await line.ended(record_id)
        assert (row.retry_count, row.attempt) == (3, 4)
    told: dict[tuple[UUID, int], datetime] = {}
    # accepted; dispatched four times; waits three times; made, stored
    for event in await line.events(topics.STATUS, 40 * 10):
        data = event["data"]
        if data["stage"] == "retry_wait":
            told[UUID(data["record_id"]), data["attempt"]] = datetime.fromisoformat(data["retry_at"])
    assert len(told) == 120
    attempts: dict[UUID, list[Any]] = defaultdict(list)
    for row in await line.steps.sql("SELECT * FROM generation_attempts ORDER BY record_id, attempt"):
        attempts[row.record_id].append(row)
    for (record_id, number), retry_at in told.items():
        failed, retried = attempts[record_id][number - 2 : number]
        assert retried.claimed_at >= retry_at
        delay = delays[number - 2]
        assert delay <= (retry_at - failed.closed_at).total_seconds() <= delay * (1 + JITTER) + 0.001
    assert line.provider.most_open <= 20


async def test_a_rate_limits_own_time_is_a_floor_for_the_record_and_for_its_slot(line: Line) -> None:
    held = Held(success("made"))
    line.provider.scripted(error("Rate limit exceeded", 429, retry_after=1), held)
    records = [await line.ask() for _ in range(2)]
    line.start(provider_slots=1)
    # the only slot rests as long: nobody else uses it meanwhile. Until it falls free again it says how long it rested
    await held.asked.wait()
    (slot,) = await line.steps.sql("SELECT * FROM provider_slots WHERE slot = 1")
    held.go.set()
    rows = sorted([await line.ended(record_id) for record_id in records], key=lambda row: row.attempt)
    assert [(row.retry_count, row.attempt) for row in rows] == [(0, 1), (0, 2)]
    (others,) = await line.steps.attempts(rows[0].id)
    deferred, again = await line.steps.attempts(rows[1].id)
    assert (deferred.outcome, deferred.counted) == ("deferred", False)
    rest = (slot.free_at - deferred.closed_at).total_seconds()
    assert 1.0 <= rest <= 1.0 + JITTER + 0.001
    assert min(again.claimed_at, others.claimed_at) >= slot.free_at
    assert len(await line.steps.sql("SELECT slot FROM provider_slots")) == 1


async def test_the_real_five_ten_and_twenty_seconds(line: Line) -> None:
    """The one test that waits as long as production does; how late a crowd's retries are measures bench/retries.py."""
    delays = (5.0, 10.0, 20.0)
    line.provider.scripted(*[SENSELESS] * 3)
    line.start(retry_delays=delays)
    record_id = await line.ask()
    row = await line.ended(record_id, within=90.0)
    assert (row.retry_count, row.attempt) == (3, 4)
    attempts = await line.steps.attempts(record_id)
    for failed, retried, delay in zip(attempts[:-1], attempts[1:], delays, strict=True):
        waited = (retried.claimed_at - failed.closed_at).total_seconds()
        # 5 s more for a machine that is full
        assert delay <= waited <= delay * (1 + JITTER) + 5.0
    for tier, number in ((5, 2), (10, 3), (20, 4)):
        (event,) = await line.events(topics.retry(tier), 1)
        assert event["data"] == {"record_id": str(record_id), "attempt": number}
        assert event["headers"]["attempt"] == str(number)
        not_before = int(event["headers"]["not-before"]) / 1000
        assert not_before >= attempts[number - 2].closed_at.timestamp() + tier
