"""The examples as they are started by hand, on the whole line's real events."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from examples.chapter_index import COMPLETED

pytestmark = pytest.mark.flow

EXAMPLES = ["examples.with_aiokafka", "examples.with_faststream"]
PATIENCE = 90.0


class Service:
    """Somebody else's service beside the line: a group and a folder of its own."""

    def __init__(self, module: str, servers: str, folder: Path) -> None:
        self.folder = folder
        self.group = f"example-{uuid4()}"
        self._command = [sys.executable, "-m", module, "--servers", servers]
        self._command += ["--group", self.group, "--folder", str(folder)]

    @asynccontextmanager
    async def running(self, end: signal.Signals = signal.SIGTERM) -> AsyncIterator[None]:
        process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said = asyncio.create_task(process.communicate())
        try:
            yield
        finally:
            if process.returncode is None:
                process.send_signal(end)
            async with asyncio.timeout(20):
                output, _ = await said
        assert process.returncode == (0 if end == signal.SIGTERM else -end), output.decode()
        assert b"Traceback" not in output, output.decode()

    def scenes(self, chapter: str) -> dict[str, Any]:
        path = self.folder / f"{chapter}.json"
        scenes: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return scenes

    async def has(self, chapter: str, pictures: dict[str, str]) -> None:
        """Once these scenes show these records."""
        async with asyncio.timeout(PATIENCE):
            while True:
                scenes = self.scenes(chapter)
                if {number: scene["record_id"] for number, scene in scenes.items()} == pictures:
                    return
                await asyncio.sleep(0.05)


class Line:
    def __init__(self, ready: dict[str, Any], http: httpx.AsyncClient) -> None:
        self.ready = ready
        self.servers: str = ready["kafka"]
        self._http = http
        self._bearer = {"Authorization": f"Bearer {ready['token']}"}

    async def ask(self, chapter: str, scene: int) -> str:
        answer = await self._http.post(
            f"{self.ready['api']}/chapters/{chapter}/images/scenes/{scene}",
            headers=self._bearer,
            json={"scene_description": f"A long table under a tree, seen for the {scene}. time"},
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["record_id"])

    async def status(self, chapter: str, scene: int) -> dict[str, Any]:
        path = f"{self.ready['push']}/chapters/{chapter}/images/scenes/{scene}/status"
        status: dict[str, Any] = (await self._http.get(path, headers=self._bearer)).json()
        return status

    async def picture(self, url: str) -> httpx.Response:
        return await self._http.get(url)


@pytest.fixture
async def street(line: dict[str, Any]) -> AsyncIterator[Line]:
    async with httpx.AsyncClient(timeout=20) as http:
        yield Line(line, http)


@pytest.mark.parametrize("module", EXAMPLES)
async def test_a_service_keeps_the_pictures_of_a_chapter(module: str, street: Line, tmp_path: Path) -> None:
    chapter = str(uuid4())
    service = Service(module, street.servers, tmp_path)
    async with service.running():
        records = {str(scene): await street.ask(chapter, scene) for scene in (1, 2, 3)}
        await service.has(chapter, records)
    for number, scene in service.scenes(chapter).items():
        status = await street.status(chapter, int(number))
        assert status["current"] == {
            "record_id": scene["record_id"],
            "image_url": scene["image_url"],
            "thumbnail_url": status["current"]["thumbnail_url"],
        }
        assert scene["version"] == status["version"]
        picture = await street.picture(scene["image_url"])
        assert picture.headers["content-type"].startswith("image/")
        assert len(picture.content) > 1000

    # what came while it was down, and a newer picture of a scene that it has: it goes on where it was
    records["1"] = await street.ask(chapter, 1)
    records["4"] = await street.ask(chapter, 4)
    async with service.running(signal.SIGKILL):
        await service.has(chapter, records)
    before = service.scenes(chapter)

    # a group that never was reads all seven days again, and a crash brings a batch again: nothing changes
    again = Service(module, street.servers, tmp_path)
    async with again.running():
        await _read_through(street.servers, again.group)
        assert again.scenes(chapter) == before


@pytest.mark.parametrize("module", EXAMPLES)
async def test_events_that_cannot_be_read_stop_nothing(module: str, street: Line, tmp_path: Path) -> None:
    chapter = str(uuid4())
    async with AIOKafkaProducer(bootstrap_servers=street.servers) as producer:
        for value in (b"\xff not an event", b'{"specversion": "2.0"}', None):
            await producer.send_and_wait(COMPLETED, value, key=chapter.encode())
    service = Service(module, street.servers, tmp_path)
    async with service.running():
        await service.has(chapter, {"1": await street.ask(chapter, 1)})
        await _read_through(street.servers, service.group)


async def test_a_service_asks_by_an_event_as_often_as_it_likes(street: Line, tmp_path: Path) -> None:
    chapter, record = str(uuid4()), str(uuid4())
    command = [sys.executable, "-m", "examples.request_scene", "--servers", street.servers, "--record", record]
    command += ["--user", street.ready["user_id"], "--chapter", chapter, "--scene", "5", "a long table under a tree"]
    service = Service(EXAMPLES[0], street.servers, tmp_path)
    async with service.running():
        for _ in range(2):
            asking = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            said, _ = await asking.communicate()
            assert (asking.returncode, said.decode().strip()) == (0, record)
        await service.has(chapter, {"5": record})
    status = await street.status(chapter, 5)
    assert (status["record_id"], status["status"], status["attempt"]) == (record, "completed", 1)


async def _read_through(servers: str, group: str) -> None:
    """Once a group has committed all that was there when this was called."""
    async with AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False) as looking:
        await looking._client.force_metadata_update()
        partitions = [TopicPartition(COMPLETED, number) for number in looking.partitions_for_topic(COMPLETED) or ()]
        assert partitions
        ends = await looking.end_offsets(partitions)
        async with asyncio.timeout(PATIENCE):
            while True:
                committed = [await looking.committed(partition) or 0 for partition in partitions]
                if all(done >= ends[partition] for partition, done in zip(partitions, committed, strict=True)):
                    return
                await asyncio.sleep(0.05)
