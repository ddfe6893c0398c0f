"""Real consumers killed with SIGKILL in mid-generation: others finish, and each picture is charged once."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from local import ports
from local.python import PythonServer
from tests.connected.steps import request
from tests.flow.working import SECRET, Line, line_of, settings_of

pytestmark = [pytest.mark.chaos, pytest.mark.connected]

# the periods of life and death, shortened
_PERIODS = {
    "SCENEWIRE_WORKER_BEAT": "0.2",
    "SCENEWIRE_WORKER_LIFE": "1",
    "SCENEWIRE_MARK_LIFE": "0.6",
    "SCENEWIRE_UNCERTAIN_AFTER": "1",
    "SCENEWIRE_SWEEP": "0.2",
    "SCENEWIRE_POLL_INTERVAL": "0.3",
    "SCENEWIRE_RETRY_DELAYS": "0.1,0.1,0.1",
    "SCENEWIRE_STORING_RETRY": "0.1",
    "SCENEWIRE_DRAIN": "1",
}


class Street:
    """Real processes on a line: the provider's simulator and consumers."""

    def __init__(self, line: Line, folder: Path, simulator: PythonServer) -> None:
        self.line = line
        self.steps = line.steps
        self.servers: list[PythonServer] = []
        self._folder = folder
        self._simulator = simulator.http_url or ""

    async def consumer(self, name: str) -> PythonServer:
        """One more consumer process."""
        (port,) = ports.free(1)
        environment = {
            "PATH": os.environ["PATH"],
            "SCENEWIRE_DATABASE_URL": self.line.settings.database_url,
            "SCENEWIRE_KAFKA_SERVERS": self.line.settings.kafka_servers,
            "SCENEWIRE_NAMESPACE": self.line.settings.namespace,
            "SCENEWIRE_MEDIA_URL": self.line.settings.media_url,
            "SCENEWIRE_JWT_SECRET": SECRET,
            "SCENEWIRE_PROVIDER_SLOTS": "6",
            "MODELSLAB_API_KEY": "any",
            "MODELSLAB_BASE_URL": self._simulator,
            **_PERIODS,
        }
        server = PythonServer(name, self._folder / f"{name}.log", module="consumer", port=port, environment=environment)
        self.servers.append(server)
        await asyncio.to_thread(server.start)
        return server

    async def script(self, *rules: dict[str, Any]) -> None:
        async with httpx.AsyncClient(base_url=self._simulator) as client:
            answer = await client.put("/simulator/script", json={"profile": "instant", "rules": rules})
            assert answer.status_code == 200, answer.text

    async def calls(self) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self._simulator) as client:
            seen: dict[str, Any] = (await client.get("/simulator/calls", params={"limit": 1000})).json()
            return seen

    async def charged(self) -> Counter[str]:
        """How often each attempt was charged."""
        calls = (await self.calls())["calls"]
        return Counter(call["track_id"] for call in calls if call["kind"] == "submit" and call["charged"])


@pytest.fixture
async def street(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Street]:
    settings = settings_of(database_url, kafka_servers, namespace, tmp_path / "media")
    async with line_of(settings) as line, _simulator(tmp_path) as simulator:
        street = Street(line, tmp_path, simulator)
        try:
            yield street
        finally:
            for server in street.servers:
                server.kill()


@asynccontextmanager
async def _simulator(folder: Path) -> AsyncIterator[PythonServer]:
    (port,) = ports.free(1)
    server = PythonServer(
        "modelslab",
        folder / "modelslab.log",
        module="local.modelslab",
        port=port,
        environment={"PATH": os.environ["PATH"]},
        arguments=["--slots", "50", "--prerender", "1"],
    )
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        server.kill()


async def _all_reach(street: Street, records: list[UUID], stage: str) -> None:
    for record_id in records:
        await street.line.reaches(record_id, stage)


async def test_killed_in_mid_generation_another_finishes_and_nothing_is_charged_twice(street: Street) -> None:
    await street.script(
        {"text": "slow job", "action": {"answer": "processing", "duration": 4, "eta": 4}},
        {"text": "slow answer", "first": 1, "action": {"answer": "success", "latency": 60}},
        {"text": "slow picture", "action": {"answer": "success"}},
        {"call": "picture", "text": "slow picture", "first": 1, "action": {"answer": "hang", "latency": 60}},
    )
    victim = await street.consumer("victim")
    jobs = [await street.line.ask(request(text="A slow job")) for _ in range(3)]
    answer = await street.line.ask(request(text="A slow answer"))
    picture = await street.line.ask(request(text="A slow picture"))
    await _all_reach(street, jobs, "generating")
    await street.line.reaches(picture, "storing")

    async def submit_is_open() -> bool:
        return any(attempt.sent_at is not None for attempt in await street.steps.attempts(answer))

    await street.line.until(submit_is_open)
    heir = asyncio.create_task(street.consumer("heir"))
    await asyncio.to_thread(victim.kill)
    assert victim.exit_code == -signal.SIGKILL
    await heir
    for record_id in (*jobs, picture):
        row = await street.line.ended(record_id)
        assert (row.attempt, row.retry_count) == (1, 0)
    assert (await street.steps.record(picture)).takeovers == 1
    # sent and never answered: it may have been charged, and that is on record
    row = await street.line.ended(answer)
    assert await street.line.outcomes(answer) == ["uncertain", "success"]
    assert row.retry_count == 1
    charged = await street.charged()
    assert set(charged.values()) == {1}
    attempts = [str(one.id) for record_id in (*jobs, picture) for one in await street.steps.attempts(record_id)]
    assert set(attempts) <= set(charged)
    submits = [call for call in (await street.calls())["calls"] if call["kind"] == "submit"]
    assert len(submits) == 6
    assert await street.steps.used() == 0
    await street.steps.check()


async def test_whoever_is_killed_everything_accepted_ends_and_no_attempt_is_sent_twice(street: Street) -> None:
    await street.script(
        {"text": "scene", "first": 4, "action": {"answer": "error", "fault": "unavailable"}},
        {"action": {"answer": "processing", "duration": {"low": 0.5, "high": 3}}},
    )
    servers = [await street.consumer("first"), await street.consumer("second")]
    records: list[UUID] = []
    heir = asyncio.create_task(street.consumer("third"))
    for victim in servers:
        records += [await street.line.ask(request(text="A scene", scene=i)) for i in range(1, 9)]
        await _some_are_generating(street)
        await asyncio.to_thread(victim.kill)
    await heir
    for record_id in records:
        await street.line.ended(record_id)
    submits = Counter(call["track_id"] for call in (await street.calls())["calls"] if call["kind"] == "submit")
    assert set(submits.values()) == {1}
    attempts = {str(one.id): one for record_id in records for one in await street.steps.attempts(record_id)}
    assert set(submits) <= set(attempts)
    # what was paid for and not used is on record as uncertain, and nothing else was paid twice
    paid = Counter(attempts[track_id].record_id for track_id in await street.charged())
    for record_id in records:
        unsure = [one for one in await street.steps.attempts(record_id) if one.outcome == "uncertain"]
        assert paid[record_id] <= 1 + len(unsure)
    assert await street.steps.used() == 0
    await street.steps.check()


async def _some_are_generating(street: Street) -> None:
    async def generating() -> bool:
        (row,) = await street.steps.sql(
            "SELECT count(*) AS open FROM generation_attempts WHERE provider_request_id IS NOT NULL AND outcome IS NULL"
        )
        return bool(row.open)

    await street.line.until(generating)
