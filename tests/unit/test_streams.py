"""How soon a stream's reader is found to be gone: what the kernel is told to do about it, as it stands on the line."""

import asyncio
import socket
import sys

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from notifier.settings import PushSettings
from notifier.streams import line_of
from web import serving

_LONGEST = 25.0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told")
async def test_a_reader_that_is_gone_without_a_word_is_found_within_25_seconds() -> None:
    settings = PushSettings()

    async def options(request: Request) -> JSONResponse:
        line_of(request.scope, settings)
        raw = request.scope["extensions"]["scenewire.line"].get_extra_info("socket")
        told = {
            "asked": raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            "idle": raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            "again": raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
            "silent": raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) / 1000,
        }
        return JSONResponse(told)

    bound, stop, started = serving.bind("127.0.0.1", 0), asyncio.Event(), asyncio.Event()
    app = Starlette(routes=[Route("/", options)])
    serving_it = asyncio.create_task(serving.serve(app, bound, stop, started=started.set))
    await started.wait()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}") as client:
        told = (await client.get("/")).json()
    stop.set()
    await serving_it
    assert told == {"asked": 1, "idle": 10, "again": 4, "silent": 8.0}
    # nothing is said: it is asked, and asked again
    unasked = told["idle"] + told["again"]
    # something was said just before that, be it the comment
    assert unasked + told["silent"] < _LONGEST
