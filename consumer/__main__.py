"""`python -m consumer`: makes the pictures."""

import asyncio
import sys

import structlog

from consumer.app import build
from consumer.settings import ConsumerSettings
from telemetry import logs, traces
from telemetry.settings import load
from web import serving

log = structlog.get_logger(__name__)

_OWN_FILES = 200
"""Sockets and files of a consumer beside those of its generations: Postgres, Kafka, health, logs, modules."""


def main() -> int:
    arguments = serving.parser(
        "consumer", "Calls the provider for what was requested, stores the pictures; serves its health.", port=8720
    ).parse_args()
    settings = load(ConsumerSettings)
    logs.configure(settings, service="consumer")
    traces.configure("consumer")
    for cost in settings.costs:
        log.info("settings_may_cost", advice=cost)
    # a slot's submit, and the download of the picture before it
    wanted = 2 * settings.provider_slots + _OWN_FILES
    if (allowed := serving.open_files()) < wanted:
        log.warning(
            "too_few_open_files",
            allowed=allowed,
            wanted=wanted,
            advice="raise the hard limit (ulimit -Hn, LimitNOFILE), or a call that finds none counts as not sent",
        )

    async def work_and_serve(stop: asyncio.Event) -> None:
        bound = serving.bind(arguments.host, arguments.port)
        try:
            consumer = build(settings)
        except ValueError as error:
            raise serving.StartFailed(str(error)) from None
        stopped = asyncio.Event()

        async def work() -> None:
            try:
                await consumer.run(stop)
            finally:
                stopped.set()

        async with asyncio.TaskGroup() as group:
            # to the end of the drain, which may take minutes: whoever looks sees that it stops, and with what in hand
            group.create_task(serving.serve(consumer.health.application(), bound, stopped))
            group.create_task(work())

    return serving.run(work_and_serve, stop_within=settings.drain + settings.consumer_stop_within)


if __name__ == "__main__":
    sys.exit(main())
