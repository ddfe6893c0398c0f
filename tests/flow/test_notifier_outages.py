"""The notifier while Kafka is away, and at its own stop."""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import connect

from local import ports
from local.kafka import Kafka
from tests.flow.pushing import PATIENCE, SECRET, Client, House, house, settings_for, subprotocol_of, token_for

pytestmark = [pytest.mark.flow, pytest.mark.connected]

ROOT = Path(__file__).resolve().parents[2]


async def _ready(here: House, status: int) -> dict[str, dict[str, str]]:
    async with asyncio.timeout(3 * PATIENCE):
        while (answer := await here.http.get("/readyz")).status_code != status:
            pass
    found: dict[str, dict[str, str]] = answer.json()["dependencies"]
    return found


async def test_sockets_outlive_kafka_and_miss_nothing(
    database_url: str, private_kafka: Kafka, namespace: str, tmp_path: Path
) -> None:
    user, chapter = uuid4(), uuid4()
    settings = settings_for(
        database_url, private_kafka.servers, namespace, tmp_path, kafka_stall=0.5, kafka_send_timeout=3.0
    )
    async with house(settings) as here, here.client(user) as client:
        record = await here.accept(user, chapter)
        await here.caught_up()
        cursor = (await client.watch(chapter_id=chapter))["cursor"]
        await asyncio.to_thread(private_kafka.kill)
        dependencies = await _ready(here, 503)
        assert (dependencies["kafka"]["status"], dependencies["postgres"]["status"]) == ("down", "up")
        # what needs no log goes on, and what was committed meanwhile is seen
        await here.change(record, progress=3, relay=False)
        assert (await client.watch(id="t", record_id=record))["images"][0]["progress"] == 3
        missed = await client.watch(id="m", chapter_id=chapter, cursor=cursor)
        # what is not in the log yet comes when it is
        assert (missed["resumed"], missed["images"]) == ("memory", [])
        await here.change(record, progress=4, relay=False)
        await asyncio.to_thread(private_kafka.start)
        await here.sender.discard()
        await here.relay()
        async with asyncio.timeout(3 * PATIENCE):
            told = await client.next("status")
        assert (told["image"]["version"], told["image"]["progress"]) == (3, 4)
        await _ready(here, 200)


async def test_sigterm_says_bye_and_ends_in_time(
    database_url: str, kafka_servers: str, namespace: str, tmp_path: Path
) -> None:
    user, chapter = uuid4(), uuid4()
    settings = settings_for(database_url, kafka_servers, namespace, tmp_path)
    # makes the topic, and the record that is watched
    async with house(settings) as here:
        await here.accept(user, chapter)
    port = ports.free(1)[0]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "notifier",
        "--port",
        str(port),
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "SCENEWIRE_DATABASE_URL": database_url,
            "SCENEWIRE_KAFKA_SERVERS": kafka_servers,
            "SCENEWIRE_NAMESPACE": namespace,
            "SCENEWIRE_MEDIA_URL": f"file://{tmp_path}",
            "SCENEWIRE_JWT_SECRET": SECRET,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(3 * PATIENCE):
            while b"listening" not in (line := await process.stdout.readline()):
                assert line, "the process ended before it listened"
        url, token = f"127.0.0.1:{port}", token_for(user)
        offered = ["scenewire.v1+json", subprotocol_of(token)]
        async with httpx.AsyncClient(base_url=f"http://{url}", timeout=3 * PATIENCE) as http, AsyncExitStack() as stack:
            # who comes before it has found the log is sent for a snapshot once it has
            while (await http.get("/readyz")).status_code != 200:
                pass
            socket = await stack.enter_async_context(connect(f"ws://{url}/ws", subprotocols=offered))  # type: ignore[arg-type]
            client = Client(socket)
            await client.next("welcome")
            await client.watch(chapter_id=chapter)
            bearer = {"Authorization": f"Bearer {token}", "Prefer": "wait=60"}
            poll = asyncio.create_task(http.get(f"/chapters/{chapter}/images/scenes/1/status", headers=bearer))
            while b"scenewire_long_polls 1.0" not in (await http.get("/metrics")).content:
                pass
            process.send_signal(signal.SIGTERM)
            code, frames = await client.closed()
            assert code == 1012
            assert [frame["type"] for frame in frames] == ["bye"]
            assert (await poll).status_code == 200
        async with asyncio.timeout(settings.stop_timeout):
            assert await process.wait() == 0
        log = (await process.stdout.read()).decode()
        assert "Traceback" not in log, log
        assert token not in log
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
