"""End to end: the simulator answers a submit too late and calls our webhook in time, over the real route and on real
topics (PIPELINE S1, W6)."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from local.modelslab.app import build as build_simulator
from local.modelslab.gallery import Gallery
from local.modelslab.settings import SimulatorSettings
from producer.app import build as build_producer
from schemas import topics
from tests.flow.accepting import API
from tests.flow.accepting import settings_of as producer_settings
from tests.flow.working import Line, line_of, settings_of

pytestmark = [pytest.mark.flow, pytest.mark.connected]

SLOW = {"answer": "processing", "latency": 30, "duration": 0.5, "webhook": {"duplicated": 1}}


@pytest.fixture
async def line(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Line]:
    settings = settings_of(
        database_url,
        kafka_servers,
        namespace,
        tmp_path / "media",
        public_url=API,
        submit_timeout=1.0,
        retry_delays=(600.0,) * 3,
    )
    async with line_of(settings) as line:
        yield line


async def test_the_simulators_webhook_brings_what_its_answer_did_not(line: Line, database_url: str) -> None:
    producer = build_producer(producer_settings(database_url))
    simulator = build_simulator(
        SimulatorSettings(profile="instant"),
        gallery=Gallery(budget=10_000_000),
        webhook_transport=httpx.ASGITransport(producer),
    )
    transport = httpx.ASGITransport(simulator)
    async with (
        producer.router.lifespan_context(producer),
        simulator.router.lifespan_context(simulator),
        httpx.AsyncClient(transport=transport, base_url="https://modelslab.com") as control,
    ):
        script = {"rules": [{"first": 1, "action": SLOW}]}
        assert (await control.put("/simulator/script", json=script)).status_code == 200
        line.provider.transport = line.pictures.transport = transport
        line.start()
        record_id = await line.ask()
        row = await line.ended(record_id)
        # by whichever was first of the webhook and the end of our patience
        assert await line.outcomes(record_id) in (["success"], ["late_success"])
        calls = (await control.get("/simulator/calls")).json()["calls"]
        assert [call["kind"] for call in calls if call["kind"] == "submit"] == ["submit"]
        await simulator.state.postman.delivered()
        (job,) = (await control.get("/simulator/jobs")).json()["jobs"]
        assert [sent["http_status"] for sent in job["webhooks"]] == [200, 200]
        assert str(job["id"]) == row.provider_request_id
        (completed,) = await line.events(topics.COMPLETED, 1)
        assert completed["data"]["picture"]["content_type"] == "image/png"
