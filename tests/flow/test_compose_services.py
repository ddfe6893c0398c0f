"""Every service of compose.yaml as a container engine would start it, on the run's Kafka and Postgres.

What runs is the command, the environment and the health check that stand in compose.yaml, in a folder that holds what
the image holds. Only what is another on this machine is put in: the interpreter, ports, addresses and the volume.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from local import ports
from local.kafka import Kafka
from local.postgres import Postgres, program
from local.server import Command, run_once
from tests.composed import CHECKOUT, REQUIRED, copied, seconds, services, stage
from tests.flow.accepting import BODY, SECRET, bearer, path_of

pytestmark = [pytest.mark.flow, pytest.mark.connected]

_PICTURES = "/var/lib/scenewire/pictures"
_DATABASE = f"postgresql://scenewire:{REQUIRED['POSTGRES_PASSWORD']}@postgres:5432/scenewire"
_PATIENCE = 90.0  # seconds, for a machine that is busy with other tests
_STARTS = ("simulator", "producer", "relay", "consumer", "notifier")


@dataclass(frozen=True)
class Engine:
    """What a container engine would do with the services: images as folders, ports and addresses of this machine."""

    services: Mapping[str, dict[str, Any]]
    images: Mapping[str, Path]
    put_in: Callable[[str], str]

    def environment(self, name: str) -> dict[str, str]:
        service = self.services[name]
        image = dict(line.split("=", 1) for line in _image_environment(service["build"]["target"]))
        own = {key: self.put_in(str(value)) for key, value in service["environment"].items()}
        return image | {"PATH": os.environ["PATH"]} | own

    async def start(self, name: str, words: list[str]) -> Process:
        assert words[0] == "python"
        arguments = [sys.executable, *map(self.put_in, words[1:])]
        folder = self.images[self.services[name]["build"]["target"]]
        environment = self.environment(name)
        return await asyncio.create_subprocess_exec(
            *arguments, env=environment, cwd=folder, stdout=PIPE, stderr=asyncio.subprocess.STDOUT
        )

    async def run(self, name: str) -> None:
        """A step, to its end."""
        step = await self.start(name, self.services[name]["command"])
        output, _ = await asyncio.wait_for(step.communicate(), _PATIENCE)
        assert step.returncode == 0, f"{name}: {output.decode()}"

    @asynccontextmanager
    async def running(self, name: str) -> AsyncIterator[Process]:
        """A process until it is healthy by its own check; at the end stopped as an engine stops it."""
        service = self.services[name]
        process = await self.start(name, service["command"])
        said = asyncio.create_task(_all(process))
        try:
            await self._healthy(name, process, said)
            yield process
            process.terminate()
            await asyncio.wait_for(process.wait(), seconds(service["stop_grace_period"]))
            assert process.returncode == 0, f"{name}: {await said}"
        finally:
            if process.returncode is None:
                process.kill()
            await said

    async def _healthy(self, name: str, process: Process, said: "asyncio.Task[str]") -> None:
        check = self.services[name]["healthcheck"]
        kind, *words = check["test"]
        assert kind == "CMD"
        outcome = "never asked"
        try:
            async with asyncio.timeout(_PATIENCE):
                while process.returncode is None:
                    asked = await self.start(name, words)
                    output, _ = await asyncio.wait_for(asked.communicate(), _PATIENCE)
                    if asked.returncode == 0:
                        return
                    outcome = output.decode()
                    # between two looks, and no longer than it lives
                    await asyncio.wait({said}, timeout=0.1)
        except TimeoutError:
            raise AssertionError(f"{name} did not become healthy: {outcome}") from None
        raise AssertionError(f"{name} ended with {process.returncode}: {await said}")


async def _all(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.read()).decode()


def _image_environment(target: str) -> list[str]:
    words = [word for line in stage(target) if line.startswith("ENV ") for word in line.split()[1:]]
    return [word for word in words if not word.startswith("PATH=")]


def _image(target: str, folder: Path) -> Path:
    for source, destination in copied(target).items():
        if (CHECKOUT / source).is_dir():
            shutil.copytree(CHECKOUT / source, folder / destination, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / destination).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / source, folder / destination)
    return folder


@pytest.fixture
def engine(kafka_servers: str, empty_database_url: str, namespace: str, tmp_path: Path) -> Engine:
    own = dict(zip(("8700", "8701", "8703", "8710", "8720"), map(str, ports.free(5)), strict=True))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    variables = REQUIRED | {
        "SCENEWIRE_JWT_SECRET": SECRET,
        "SCENEWIRE_NAMESPACE": namespace,
        "MODELSLAB_BASE_URL": "http://simulator:8703",
    }
    addresses = {
        _DATABASE: empty_database_url,
        "kafka:9092": kafka_servers,
        "simulator:": "127.0.0.1:",
        _PICTURES: str(pictures),
    }

    def put_in(text: str) -> str:
        for there, here in addresses.items():
            text = text.replace(there, here)
        return re.sub(r"(?<!\d)(\d{4})(?!\d)", lambda found: own.get(found[1], found[1]), text)

    composed = services(variables)
    images = {target: _image(target, tmp_path / target) for target in ("scenewire", "simulator")}
    return Engine(composed, images, put_in)


async def test_every_service_starts_gets_healthy_works_and_stops(engine: Engine) -> None:
    shipped = {name: _files(folder) for name, folder in engine.images.items()}
    for step in ("migrate", "provision"):
        await engine.run(step)
    async with AsyncExitStack() as stack:
        for name in _STARTS:
            await stack.enter_async_context(engine.running(name))
        await _one_picture(engine)
    assert {name: _files(folder) for name, folder in engine.images.items()} == shipped, "a read-only image was written"
    assert set(engine.services) == {*_STARTS, "migrate", "provision", "kafka", "postgres"}


async def _one_picture(engine: Engine) -> None:
    """A request in at the producer's published port, a stored picture out at the notifier's."""
    api, push = (engine.environment("producer")[name] for name in ("SCENEWIRE_API_URL", "SCENEWIRE_PUSH_URL"))
    caller = bearer(uuid4())
    async with httpx.AsyncClient(timeout=_PATIENCE) as client:
        asked = await client.post(f"{api}{path_of()}", json=BODY, headers=caller)
        assert asked.status_code == 202, asked.text
        address = asked.json()["status_url"]
        assert address.startswith(push)
        async with asyncio.timeout(_PATIENCE):
            while True:
                held = await client.get(address, headers=caller | {"Prefer": "wait=20"})
                if held.json()["status"] in ("completed", "failed"):
                    break
        assert held.json()["status"] == "completed", held.text
        picture = await client.get(held.json()["image_url"])
        assert picture.status_code == 200
        assert picture.headers["content-type"].startswith("image/")


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class _ComposedKafka(Kafka):
    """A server with the properties that compose.yaml gives, prepared the way its image does it."""

    def prepare(self) -> None:
        environment = services(REQUIRED)["kafka"]["environment"]
        own = {"9092": str(self.port), "9093": str(self.controller_port)}
        lines = [f"{_property(name)}={value}" for name, value in environment.items() if name.startswith("KAFKA_")]
        text = re.sub(r"(?<!\d)(909[23])(?!\d)", lambda found: own[found[1]], "\n".join(lines))
        text = text.replace("PLAINTEXT://kafka:", "PLAINTEXT://localhost:").replace(
            "/var/lib/kafka/data", str(self.folder / "data")
        )
        self.folder.mkdir(parents=True)
        self._properties.write_text(text)
        words = ["kafka.tools.StorageTool", "format", f"--cluster-id={environment['CLUSTER_ID']}"]
        run_once(Command([*self._java(), *words, "-c", str(self._properties)], {}), step="Formatting")


def _property(variable: str) -> str:
    """The image's rule: https://hub.docker.com/r/apache/kafka. KAFKA_HEAP_OPTS is for its start script."""
    name = variable.removeprefix("KAFKA_").lower()
    return name.replace("___", "-").replace("__", "\0").replace("_", ".").replace("\0", "_")


def test_kafka_starts_with_its_properties_and_holds_our_topics(tmp_path: Path) -> None:
    port, controller_port = ports.free(2)
    server = _ComposedKafka(
        "composed-kafka", tmp_path / "log", folder=tmp_path / "kafka", port=port, controller_port=controller_port
    )
    try:
        server.start()
        environment = {"PATH": os.environ["PATH"], "SCENEWIRE_KAFKA_SERVERS": server.servers}
        for options in ([], ["--check"]):
            command = [sys.executable, "-m", "messaging.provision", *options]
            done = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        server.stop()


class _ComposedPostgres(Postgres):
    """A data folder made with the words that compose.yaml hands to initdb."""

    def prepare(self) -> None:
        self._own_folder(self.socket_folder)
        self._own_folder(self.data)
        environment = services(REQUIRED)["postgres"]["environment"]
        words = [f"--username={environment['POSTGRES_USER']}", *environment["POSTGRES_INITDB_ARGS"].split()]
        arguments = [str(program("initdb")), f"--pgdata={self.data}", "--no-sync", *words]
        owner = self.command()
        run_once(Command(arguments, owner.environment, owner.account), step="initdb")


def test_postgres_is_made_and_asked_with_words_that_it_knows(tmp_path: Path) -> None:
    server = _ComposedPostgres("composed-postgres", tmp_path / "log", folder=tmp_path, durable=False)
    service = services(REQUIRED)["postgres"]
    kind, asked, *words = service["healthcheck"]["test"]
    assert (kind, asked) == ("CMD", "pg_isready")
    words = [word.replace("--host=127.0.0.1", f"--host={server.socket_folder}") for word in words]
    try:
        server.start()
        done = subprocess.run([program(asked), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.sql("SHOW server_encoding").strip() == "UTF8"
        assert server.sql("SHOW server_version").startswith(service["image"].removeprefix("postgres:"))
    finally:
        server.stop()
