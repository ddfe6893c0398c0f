"""Alive is who makes progress where there is work; an outage is no stall, and a stall is no outage."""

import asyncio
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from web.health import Health
from web.settings import HealthSettings

WITHIN = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Dependency:
    """One that a test takes away and gives back."""

    def __init__(self) -> None:
        self.away = False

    async def __call__(self) -> None:
        if self.away:
            raise ConnectionError("refused")


async def _asked(health: Health, path: str = "/healthz") -> tuple[int, dict[str, Any]]:
    transport = httpx.ASGITransport(health.application())
    async with httpx.AsyncClient(transport=transport, base_url="http://process.test") as client:
        answer = await client.get(path)
    return answer.status_code, answer.json()


def _made(patience: float = 10.0) -> tuple[Health, Clock, Dependency]:
    """`patience` only runs out where a test lets somebody hang."""
    clock, postgres = Clock(), Dependency()
    health = Health(patience=patience, clock=clock)
    health.witness("postgres", postgres)
    return health, clock, postgres


async def test_a_loop_whose_turns_fail_is_stalled_and_says_why() -> None:
    health, clock, _ = _made()
    pulse = health.watch("dispatch", within=WITHIN, needs=["postgres"])
    pulse.missed(RuntimeError("postgresql://me:hunter2@db has no such column"))
    clock.now += WITHIN + 1
    await health.look()
    status, body = await _asked(health)
    assert (status, body["status"]) == (503, "stalled")
    shown = body["loops"]["dispatch"]
    assert (shown["status"], shown["idle_seconds"]) == ("stalled", 11.0)
    assert "no such column" in shown["detail"]
    assert "hunter2" not in shown["detail"]
    pulse.beat()
    assert (await _asked(health))[0] == 200


async def test_an_outage_excuses_and_the_loop_has_its_whole_time_after_it() -> None:
    health, clock, postgres = _made()
    pulse = health.watch("dispatch", within=WITHIN, needs=["postgres"])
    postgres.away = True
    for _ in range(20):
        clock.now += 5
        await health.look()
        assert (await _asked(health))[0] == 200
    postgres.away = False
    await health.look()
    clock.now += WITHIN
    assert (await _asked(health))[0] == 200
    clock.now += 1
    assert (await _asked(health))[0] == 503
    pulse.beat()
    assert (await _asked(health))[0] == 200


async def test_one_that_needs_nothing_is_not_excused() -> None:
    health, clock, postgres = _made()
    health.watch("sockets", within=WITHIN)
    postgres.away = True
    clock.now += WITHIN + 1
    await health.look()
    assert (await _asked(health))[0] == 503


async def test_work_that_waits_without_a_break_is_a_stall() -> None:
    health, clock, postgres = _made()
    waits: str | None = "7 events wait"

    async def ask() -> str | None:
        return waits

    health.stall("events", ask, within=WITHIN, needs=["postgres"])
    for _ in range(3):
        await health.look()
        assert (await _asked(health))[0] == 200
        clock.now += 5
    status, body = await _asked(health)
    assert status == 503
    assert body["loops"]["events"] == {"status": "stalled", "idle_seconds": 15.0, "detail": "7 events wait"}
    # progress in between begins the time anew
    waits = None
    await health.look()
    waits = "1 event waits"
    await health.look()
    clock.now += WITHIN
    assert (await _asked(health))[0] == 200
    postgres.away = True
    await health.look()
    clock.now += WITHIN
    assert (await _asked(health))[0] == 200


async def test_a_question_that_is_not_answered_is_no_stall() -> None:
    health, clock, _ = _made(patience=0.05)

    async def hangs() -> str | None:
        await asyncio.Event().wait()
        return "never said"

    async def fails() -> str | None:
        raise ConnectionError("the pool is empty")

    health.stall("hangs", hangs, within=WITHIN)
    health.stall("fails", fails, within=WITHIN)
    for _ in range(4):
        await health.look()
        clock.now += WITHIN
    assert (await _asked(health))[0] == 200


async def test_one_that_does_not_even_end_when_it_is_cut_off_holds_up_nobody() -> None:
    let_go = asyncio.Event()
    asked = 0

    async def stubborn() -> None:
        nonlocal asked
        asked += 1
        try:
            await asyncio.Event().wait()
        finally:
            # as a statement whose cancellation waits for Postgres
            await let_go.wait()

    health = Health(patience=0.05)
    health.witness("postgres", stubborn)
    health.depends_on("postgres", stubborn)
    async with asyncio.timeout(5):
        for _ in range(3):
            await health.look()
        status, body = await _asked(health, "/readyz")
    assert status == 503
    assert body["dependencies"]["postgres"]["detail"] == "no answer within 0.05 s"
    # one question at a time
    assert asked == 2
    let_go.set()


async def test_one_that_stops_is_not_judged() -> None:
    health, clock, _ = _made()
    health.watch("dispatch", within=WITHIN)
    clock.now += WITHIN + 1
    health.stopping()
    status, body = await _asked(health)
    assert (status, body["status"]) == (200, "stopping")


async def test_it_looks_by_itself_and_ends_with_the_stop_in_mid_look() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        asked.set()
        await asyncio.Event().wait()

    async def close() -> None:
        closed.set()

    health = Health(patience=60)
    health.witness("kafka", hangs, close=close)
    stop = asyncio.Event()
    running = asyncio.create_task(health.run(stop, every=60))
    async with asyncio.timeout(5):
        await asked.wait()
        stop.set()
        await running
    assert closed.is_set()


def test_an_absence_must_be_seen_before_it_is_called_a_stall() -> None:
    with pytest.raises(ValidationError, match="SCENEWIRE_HEALTH_STALL must be above"):
        HealthSettings(health_look=5, health_patience=2, health_stall=7)
    assert HealthSettings(health_look=0.2, health_patience=0.5, health_stall=0.8).health_stall == 0.8
