"""`python -m producer`: accepts requests over HTTP."""

import asyncio
import sys

from producer.app import build
from producer.settings import ProducerSettings
from telemetry import logs, traces
from telemetry.settings import load
from web import serving


def main() -> int:
    arguments = serving.parser(
        "producer", "Accepts scene requests over HTTP and puts them on record.", port=8700
    ).parse_args()
    settings = load(ProducerSettings)
    logs.configure(settings, service="producer")
    traces.configure("producer")

    async def accept(stop: asyncio.Event) -> None:
        bound = serving.bind(arguments.host, arguments.port)
        await serving.serve(build(settings), bound, stop, grace=settings.producer_drain)

    return serving.run(accept, stop_within=settings.producer_stop_within)


if __name__ == "__main__":
    sys.exit(main())
