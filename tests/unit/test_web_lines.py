"""The line below a request, on the event loop of the tests and on the one that the processes run on."""

import asyncio
import math
from collections.abc import Callable

import httpx
import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from web import serving
from web.lines import Line


@pytest.mark.parametrize("make_loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_a_request_has_its_line_in_reach(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def waiting(request: Request) -> Response:
        return PlainTextResponse(f"{Line(request.scope, silent=math.inf, idle=0.1).waiting_bytes} bytes wait")

    async def aborted(request: Request) -> Response:
        Line(request.scope, silent=0.1, idle=math.inf).abort()
        return PlainTextResponse("nobody sees this")

    async def ask() -> None:
        bound, stop, started = serving.bind("127.0.0.1", 0), asyncio.Event(), asyncio.Event()
        app = Starlette(routes=[Route("/waiting", waiting), Route("/aborted", aborted)])
        serving_it = asyncio.create_task(serving.serve(app, bound, stop, started=started.set))
        await started.wait()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}") as client:
            assert (await client.get("/waiting")).text == "0 bytes wait"
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/aborted")
        stop.set()
        await serving_it

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(asyncio.wait_for(ask(), 20))
