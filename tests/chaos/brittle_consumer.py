"""A consumer with a weakness, for the tests alone: it dies of certain pictures, or stands still at a certain moment.

`python -m tests.chaos.brittle_consumer --dies-of webp`: SIGKILLs itself when a WebP's bytes reach it, as a decoder does
that a picture brings down. `--stops-at before-mark`: stops itself (SIGSTOP) when it is about to mark its first attempt
as sending, `after-mark` when that mark stands and the call has not gone out.
"""

import asyncio
import os
import signal
import sys

import httpx

from consumer.app import build
from consumer.lines import Lines
from consumer.settings import ConsumerSettings
from consumer.work import boot_clock
from telemetry import logs, traces
from telemetry.settings import load
from web import serving

_CLOCK_READ = {"before-mark": 1, "after-mark": 2}
"""The clock is read just before the marking statement and just before the call (PIPELINE S4)."""


class DeadlyPictures(httpx.AsyncBaseTransport):
    """The lines to the pictures' hosts."""

    def __init__(self) -> None:
        self._lines = Lines()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._lines.handle_async_request(request)
        data = await response.aread()
        await response.aclose()
        if data[8:12] == b"WEBP":
            os.kill(os.getpid(), signal.SIGKILL)
        return httpx.Response(response.status_code, headers=response.headers, content=data)

    async def aclose(self) -> None:
        await self._lines.aclose()


class StoppingClock:
    """Stops the whole process when it is read for the n-th time, and tells the time after that."""

    def __init__(self, stop_at: int | None) -> None:
        self._stop_at = stop_at
        self._read = 0

    def __call__(self) -> float:
        self._read += 1
        if self._read == self._stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        return boot_clock()


def main() -> int:
    parser = serving.parser("tests.chaos.brittle_consumer", "A consumer with a weakness, for tests.", port=8720)
    parser.add_argument("--dies-of", choices=["webp"], help="pictures that kill it")
    parser.add_argument("--stops-at", choices=sorted(_CLOCK_READ), help="where it stops itself, once")
    arguments = parser.parse_args()
    settings = load(ConsumerSettings)
    logs.configure(settings, service="consumer")
    traces.configure("consumer")

    async def work_and_serve(stop: asyncio.Event) -> None:
        consumer = build(
            settings,
            picture_transport=DeadlyPictures() if arguments.dies_of else None,
            clock=StoppingClock(_CLOCK_READ.get(arguments.stops_at)),
        )
        async with asyncio.TaskGroup() as group:
            bound = serving.bind(arguments.host, arguments.port)
            group.create_task(serving.serve(consumer.health.application(), bound, stop))
            group.create_task(consumer.run(stop))

    return serving.run(work_and_serve, stop_within=settings.drain + settings.consumer_stop_within)


if __name__ == "__main__":
    sys.exit(main())
