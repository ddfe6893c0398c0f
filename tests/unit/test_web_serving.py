"""uvicorn inside our own loop: it listens, stops in time and says when a port is taken."""

import argparse
import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from web import serving


class Served:
    """A small application that can be made to hang, and its server."""

    def __init__(self, grace: float) -> None:
        self.reached = asyncio.Event()
        self.release = asyncio.Event()
        self.closed = False
        self.stop = asyncio.Event()
        started = asyncio.Event()
        self.started = started
        bound = serving.bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        app = Starlette(
            routes=[Route("/", self.answer), Route("/hangs", self.hangs)],
            lifespan=self.lifespan,
        )
        self.task = asyncio.create_task(serving.serve(app, bound, self.stop, grace=grace, started=started.set))

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self.closed = True

    async def answer(self, request: Request) -> Response:
        return PlainTextResponse("here")

    async def hangs(self, request: Request) -> Response:
        self.reached.set()
        await self.release.wait()
        return PlainTextResponse("at last")


async def test_it_serves_beside_other_tasks_and_stops_when_asked() -> None:
    served = Served(grace=60)
    await served.started.wait()
    async with httpx.AsyncClient(base_url=served.url) as client:
        response = await client.get("/")
        assert response.text == "here"
        assert "server" not in response.headers
        served.stop.set()
        await asyncio.wait_for(served.task, 20)
        assert served.closed
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient().get(served.url)


async def test_a_running_request_is_finished_at_the_stop() -> None:
    served = Served(grace=60)
    await served.started.wait()
    async with httpx.AsyncClient(base_url=served.url) as client:
        running = asyncio.create_task(client.get("/hangs"))
        await served.reached.wait()
        served.stop.set()
        served.release.set()
        assert (await running).text == "at last"
        await asyncio.wait_for(served.task, 20)


async def test_a_request_that_never_ends_does_not_hold_the_stop() -> None:
    served = Served(grace=0.1)
    await served.started.wait()
    async with httpx.AsyncClient(base_url=served.url) as client:
        running = asyncio.create_task(client.get("/hangs"))
        await served.reached.wait()
        served.stop.set()
        await asyncio.wait_for(served.task, 20)
        with pytest.raises(httpx.HTTPError):
            (await running).raise_for_status()
    assert served.closed


def test_a_taken_port_is_said_in_one_line() -> None:
    taken = serving.bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(serving.StartFailed) as failed:
        serving.bind("127.0.0.1", port)
    taken.close()
    assert str(failed.value).startswith(f"Cannot listen on 127.0.0.1:{port} (Address already in use).")
    assert "--port" in str(failed.value)
    assert "\n" not in str(failed.value)


async def test_a_lifespan_that_fails_fails_the_start() -> None:
    @asynccontextmanager
    async def broken(_: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no")
        yield

    with pytest.raises(serving.StartFailed):
        await serving.serve(Starlette(lifespan=broken), serving.bind("127.0.0.1", 0), asyncio.Event())


def test_the_command_line_has_host_and_port() -> None:
    parser = serving.parser("producer", "Accepts.", port=8700)
    assert vars(parser.parse_args([])) == {"host": "127.0.0.1", "port": 8700}
    assert parser.parse_args(["--port", "0", "--host", "::1"]).port == 0
    assert "docs/configuration.md" in parser.format_help()
    for wrong in ("-1", "70000", "http"):
        with pytest.raises((SystemExit, argparse.ArgumentError)):
            parser.parse_args(["--port", wrong])


def test_run_gives_the_exit_code_and_prints_why_a_start_failed(capsys: pytest.CaptureFixture[str]) -> None:
    async def fine(stop: asyncio.Event) -> None:
        assert not stop.is_set()

    async def cannot(stop: asyncio.Event) -> None:
        raise serving.StartFailed("Kafka has no topics: run python -m messaging.provision.")

    async def cannot_among_others(stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(cannot(stop))

    assert serving.run(fine, stop_within=1) == 0
    for failing in (cannot, cannot_among_others):
        assert serving.run(failing, stop_within=1) == 1
        assert capsys.readouterr().err == "Kafka has no topics: run python -m messaging.provision.\n"


_DEAF = """
import asyncio, sys
from web import serving

async def deaf(stop):
    print("up", flush=True)
    await stop.wait()
    print("asked", flush=True)
    await asyncio.Event().wait()

sys.exit(serving.run(deaf, stop_within=0.1))
"""


async def test_a_process_that_cannot_finish_its_stop_leaves_all_the_same() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _DEAF, cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert b"asked\n" in await process.stdout.read()
        assert await process.wait() == serving.EXIT_LATE


_OPEN_FILES = """
import resource
from web import serving
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(serving.open_files(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "given"), [(256, 700, 700), (700, 700, 700)])
def test_a_process_takes_as_many_open_files_as_it_is_allowed(soft: int, hard: int, given: int) -> None:
    code = _OPEN_FILES.format(soft=soft, hard=hard)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{given} ({given}, {hard})"
