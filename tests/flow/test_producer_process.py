"""`python -m producer` as people start and stop it."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx
import pytest

from tests.flow.accepting import BODY, SECRET, bearer, path_of, problem_of
from web import serving

pytestmark = [pytest.mark.flow, pytest.mark.connected]


@asynccontextmanager
async def _producer(database_url: str, *arguments: str, **environment: str) -> AsyncIterator[Process]:
    own = {
        "PATH": os.environ["PATH"],
        "SCENEWIRE_DATABASE_URL": database_url,
        "SCENEWIRE_JWT_SECRET": SECRET,
        **environment,
    }
    command = (sys.executable, "-m", "producer", *arguments)
    process = await asyncio.create_subprocess_exec(*command, env=own, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _listening(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while line := await process.stdout.readline():
            event = json.loads(line)
            if event["event"] == "listening":
                return f"http://{event['host']}:{event['port']}"
    raise AssertionError("it ended before it listened")


async def test_it_serves_and_stops_cleanly(database_url: str) -> None:
    async with _producer(database_url, "--port", "0") as process:
        url = await _listening(process)
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            response = await client.post(path_of(), json=BODY, headers=bearer(uuid4()))
            assert response.status_code == 202
            assert "server" not in response.headers
            huge = await client.post(path_of(), content=b" " * 300_000, headers=bearer(uuid4()))
            assert huge.status_code == 413
            stranger = bearer(uuid4(), exp=1)
            assert (await client.post(path_of(), json=BODY, headers=stranger)).status_code == 401
        process.send_signal(signal.SIGTERM)
        # 10 s after the signal it would leave by force, and say so
        out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["stopping", "stopped"]
    assert err == b""


async def test_a_huge_body_is_refused_before_it_is_sent(database_url: str) -> None:
    async with _producer(database_url, "--port", "0") as process:
        url = httpx.URL(await _listening(process))
        reader, writer = await asyncio.open_connection(url.host, url.port)
        token = bearer(uuid4())["Authorization"]
        head = f"POST {path_of()} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 10000000000\r\n\r\n"
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()
        writer.close()


async def test_a_taken_port_is_one_clear_line() -> None:
    taken = serving.bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    async with _producer("postgresql://nobody@127.0.0.1:1/x", "--port", str(port)) as process:
        out, err = await asyncio.wait_for(process.communicate(), 20)
    taken.close()
    assert process.returncode == 1
    assert err.decode().startswith(f"Cannot listen on 127.0.0.1:{port}")
    assert err.count(b"\n") == 1
    assert b"Traceback" not in out + err


async def test_missing_settings_are_named_one_per_line() -> None:
    async with _producer("", SCENEWIRE_JWT_SECRET="", SCENEWIRE_API_URL="nowhere") as process:
        out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    lines = err.decode().splitlines()
    assert "SCENEWIRE_DATABASE_URL is required: set it in the environment" in lines
    assert any(line.startswith("SCENEWIRE_API_URL: must be an absolute") for line in lines)
    assert b"Traceback" not in out + err


async def test_a_database_that_is_not_postgres_is_refused_without_showing_its_address() -> None:
    async with _producer("mysql://me:secret@127.0.0.1/x") as process:
        out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert err.decode().startswith("SCENEWIRE_DATABASE_URL: must be a libpq URI, such as postgresql://")
    assert err.count(b"\n") == 1
    assert b"secret" not in out + err


async def test_it_leaves_in_time_while_postgres_accepts_and_never_answers() -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    periods = {
        "SCENEWIRE_ACCEPT_TIMEOUT": "60",
        "SCENEWIRE_DATABASE_TIMEOUT": "60",
        "SCENEWIRE_PRODUCER_DRAIN": "0.2",
        "SCENEWIRE_PRODUCER_STOP_WITHIN": "6",
    }
    async with _producer(f"postgresql://x@127.0.0.1:{port}/x", "--port", "0", **periods) as process:
        url = await _listening(process)
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            hanging = asyncio.create_task(client.post(path_of(), json=BODY, headers=bearer(uuid4())))
            await asyncio.wait_for(asked.wait(), 10)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 8) == 0
            problem_of(await hanging, 503, "unavailable")
    server.close()
