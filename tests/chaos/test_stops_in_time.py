"""SIGTERM ends every process in time and cleanly, with work in hand and whatever is gone (PIPELINE X).

All four processes run as in production. They stop while a submit is open, a job is followed, a POST and a batch for
Kafka are under way, a socket and a poll are held.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from local import ports
from local.kafka import Kafka
from local.postgres import Postgres
from local.python import PythonServer
from messaging.provision import provision
from messaging.settings import KafkaSettings
from tests.chaos.nursery import Nursery, NurseryServer
from tests.conftest import migrate
from tests.flow.pushing import SECRET, subprotocol_of, token_for

pytestmark = [pytest.mark.chaos, pytest.mark.connected]

Fate = Literal["up", "stopped", "killed"]

PATIENCE = 90.0
DRAIN = 1.0
# seconds from SIGTERM to the end, the longest that the settings allow
LIMITS = {"producer": 10.0, "relay": 8.0, "notifier": 8.0, "consumer": DRAIN + 15.0}
PORTS = {"producer": "producer", "relay": "producer.relay", "notifier": "notifier", "consumer": "consumer"}


@dataclass
class Ground:
    """What the processes stand on."""

    folder: Path
    kafka: Kafka
    postgres: Postgres
    simulator: PythonServer
    nursery: Nursery

    def strike(self, server: Kafka | Postgres, fate: Fate) -> None:
        if fate == "stopped":
            server.pause()
        elif fate == "killed":
            server.kill()

    def mend(self) -> None:
        for server in (self.kafka, self.postgres):
            server.resume()
            # from this thread: a child ends with the thread that started it
            server.start()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("stops")
    port, controller_port, http = ports.free(3)
    kafka = Kafka("kafka", folder / "kafka.log", folder=folder / "kafka", port=port, controller_port=controller_port)
    postgres = Postgres("postgres", folder / "postgres.log", folder=folder / "postgres", durable=False)
    simulator = NurseryServer(
        "modelslab",
        folder / "modelslab.log",
        module="local.modelslab",
        port=http,
        environment={"PATH": os.environ["PATH"]},
        arguments=["--slots", "50", "--prerender", "1"],
        nursery=nursery,
    )
    servers = (kafka, postgres, simulator)
    try:
        for server in servers:
            server.prepare()
            server.launch()
        for server in servers:
            server.wait_ready(PATIENCE)
        migrate(postgres.url())
        yield Ground(folder, kafka, postgres, simulator, nursery)
    finally:
        for server in servers:
            server.resume()
            server.kill()


class Processes:
    """All four, on a database and topics of their own."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.folder = ground.folder / name
        self.namespace = f"{name}-"
        numbers = dict(zip(PORTS, ports.free(len(PORTS)), strict=True))
        environment = {
            "PATH": os.environ["PATH"],
            "SCENEWIRE_DATABASE_URL": ground.postgres.url(f"db_{name}"),
            "SCENEWIRE_KAFKA_SERVERS": ground.kafka.servers,
            "SCENEWIRE_NAMESPACE": self.namespace,
            "SCENEWIRE_MEDIA_URL": f"file://{self.folder}/media",
            "SCENEWIRE_JWT_SECRET": SECRET,
            "SCENEWIRE_DRAIN": str(DRAIN),
            # a batch that Kafka does not take stays under way until the stop
            "SCENEWIRE_KAFKA_SEND_TIMEOUT": "60",
            "MODELSLAB_API_KEY": "any",
            "MODELSLAB_BASE_URL": ground.simulator.http_url or "",
        }
        self.servers = {
            name: NurseryServer(
                name,
                self.folder / f"{name}.log",
                module=module,
                port=numbers[name],
                environment=environment,
                nursery=ground.nursery,
            )
            for name, module in PORTS.items()
        }

    def __getitem__(self, name: str) -> str:
        return self.servers[name].http_url

    def log_of(self, name: str) -> list[dict[str, Any]]:
        lines = self.servers[name].log.read_text().splitlines()
        assert not [line for line in lines if not line.startswith("{")], lines
        return [json.loads(line) for line in lines]


@contextlib.asynccontextmanager
async def running(ground: Ground, name: str) -> AsyncIterator[Processes]:
    ground.postgres.sql(f"CREATE DATABASE db_{name} TEMPLATE scenewire")
    processes = Processes(ground, name)
    await provision(KafkaSettings(kafka_servers=ground.kafka.servers, namespace=processes.namespace))
    # children end with the thread that started them: one that outlives them
    with ThreadPoolExecutor(1) as starter:
        try:
            for server in processes.servers.values():
                await asyncio.wrap_future(starter.submit(server.launch))
            for server in processes.servers.values():
                await asyncio.to_thread(server.wait_ready, PATIENCE)
            yield processes
        finally:
            for server in processes.servers.values():
                server.kill()
            shutil.rmtree(processes.folder / "media", ignore_errors=True)


async def _until(holds: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


class Hands:
    """Keeps all four at work."""

    def __init__(self, ground: Ground, processes: Processes, http: httpx.AsyncClient) -> None:
        self._simulator = ground.simulator.http_url
        self._processes = processes
        self._http = http
        self.user, self.chapter = uuid4(), uuid4()
        self._bearer = {"Authorization": f"Bearer {token_for(self.user)}"}

    async def script(self) -> None:
        rules = [
            {"text": "slow answer", "action": {"answer": "success", "latency": 300}},
            {"text": "slow job", "action": {"answer": "processing", "duration": 300, "eta": 300}},
        ]
        answer = await self._http.put(
            f"{self._simulator}/simulator/script", json={"profile": "instant", "rules": rules}
        )
        assert answer.status_code == 200, answer.text

    async def post(self, scene: int, text: str) -> httpx.Response:
        return await self._http.post(
            f"{self._processes['producer']}/chapters/{self.chapter}/images/scenes/{scene}",
            json={"scene_description": text},
            headers=self._bearer,
        )

    async def accepted(self, scene: int, text: str) -> UUID:
        answer = await self.post(scene, text)
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["record_id"])

    async def poll(self, scene: int) -> httpx.Response:
        return await self._http.get(
            f"{self._processes['notifier']}/chapters/{self.chapter}/images/scenes/{scene}/status",
            headers=self._bearer | {"Prefer": "wait=60"},
        )

    async def submit_is_open(self) -> bool:
        calls = (await self._http.get(f"{self._simulator}/simulator/calls", params={"limit": 1000})).json()["calls"]
        return any(call["http_status"] is None and "slow answer" in call["prompt"] for call in calls)

    async def job_is_followed(self) -> bool:
        answer = await self._http.get(
            f"{self._processes['notifier']}/chapters/{self.chapter}/images/scenes/2/status", headers=self._bearer
        )
        return bool(answer.json()["stage"] == "generating")

    async def relay_has_a_row(self) -> bool:
        text = (await self._http.get(f"{self._processes['relay']}/metrics")).text
        (line,) = [line for line in text.splitlines() if line.startswith("scenewire_outbox_oldest_seconds")]
        return float(line.split()[1]) > 0


@pytest.mark.parametrize(
    ("kafka", "postgres"),
    [
        pytest.param("stopped", "up", marks=pytest.mark.lengthy),
        pytest.param("killed", "up", marks=pytest.mark.lengthy),
        pytest.param("up", "stopped", marks=pytest.mark.lengthy),
        pytest.param("up", "killed", marks=pytest.mark.lengthy),
        pytest.param("stopped", "stopped", marks=pytest.mark.lengthy),
        pytest.param("killed", "killed", marks=pytest.mark.lengthy),
    ],
)
async def test_all_processes_stop_in_time(ground: Ground, kafka: Fate, postgres: Fate) -> None:
    async with (
        running(ground, f"{kafka}_{postgres}") as processes,
        httpx.AsyncClient(timeout=PATIENCE) as http,
        contextlib.AsyncExitStack() as open_lines,
    ):
        hands = Hands(ground, processes, http)
        await hands.script()
        await hands.accepted(1, "A slow answer")
        await hands.accepted(2, "A slow job")
        await _until(hands.submit_is_open)
        await _until(hands.job_is_followed)
        socket = await open_lines.enter_async_context(
            connect(
                f"{processes['notifier'].replace('http', 'ws')}/ws",
                subprotocols=["scenewire.v1+json", subprotocol_of(token_for(hands.user))],  # type: ignore[list-item]
            )
        )
        await socket.send(json.dumps({"type": "subscribe", "id": "s", "chapter_id": str(hands.chapter)}))
        held = [asyncio.create_task(hands.poll(1)), asyncio.create_task(_read(socket))]

        ground.strike(ground.kafka, kafka)
        if postgres == "up":
            await hands.accepted(3, "A slow job")
            if kafka != "up":
                await _until(hands.relay_has_a_row)
        ground.strike(ground.postgres, postgres)
        if postgres != "up":
            held.append(asyncio.create_task(hands.post(3, "A slow job")))

        took = await _stopped(processes)
        await asyncio.gather(*held, return_exceptions=True)
        try:
            assert {name: server.exit_code for name, server in processes.servers.items()} == dict.fromkeys(PORTS, 0)
            assert all(took[name] < limit for name, limit in LIMITS.items()), took
            for name in PORTS:
                events = [line["event"] for line in processes.log_of(name)]
                assert events[-1] == "stopped", (name, events[-5:])
                assert "stop_late" not in events
            # one line says what was left
            (left,) = [line for line in processes.log_of("consumer") if line["event"] == "drained"]
            assert left["uncertain"] == 1
        finally:
            ground.mend()


async def _read(socket: Any) -> None:
    with contextlib.suppress(WebSocketException):
        while True:
            await socket.recv()


async def _stopped(processes: Processes) -> dict[str, float]:
    """SIGTERM to all; seconds that each took."""
    began = time.monotonic()
    for server in processes.servers.values():
        server.signal(signal.SIGTERM)
    took: dict[str, float] = {}
    while len(took) < len(processes.servers) and time.monotonic() - began < max(LIMITS.values()) + 10:
        for name, server in processes.servers.items():
            if name not in took and not server.is_running:
                took[name] = time.monotonic() - began
        await asyncio.sleep(0.02)
    return took
