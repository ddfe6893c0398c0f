"""`python -m notifier`: pushes statuses and serves pictures."""

import asyncio
import sys

from notifier.app import build
from notifier.settings import Settings
from telemetry import logs, traces
from telemetry.settings import load
from web import serving


def main() -> int:
    arguments = serving.parser(
        "notifier", "Pushes statuses over WebSockets and polls, and serves the pictures and the studio.", port=8701
    ).parse_args()
    settings = load(Settings)
    logs.configure(settings, service="notifier")
    traces.configure("notifier")

    async def push(stop: asyncio.Event) -> None:
        bound = serving.bind(arguments.host, arguments.port)
        try:
            notifier = build(settings)
        except ValueError as error:
            raise serving.StartFailed(str(error)) from None
        drained = asyncio.Event()

        async def drain() -> None:
            await stop.wait()
            try:
                await notifier.drain()
            finally:
                drained.set()

        draining = asyncio.create_task(drain())
        try:
            await serving.serve(
                notifier,
                bound,
                drained,
                grace=settings.drain_window,
                ws=notifier.sockets,
            )
        finally:
            draining.cancel()

    return serving.run(push, stop_within=settings.stop_timeout)


if __name__ == "__main__":
    sys.exit(main())
