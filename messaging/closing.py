"""Leaving aiokafka's clients within a time limit.

Their `stop` may never return with Kafka gone (aio-libs/aiokafka#773, #1101), and a consumer's may raise CancelledError
though nobody cancelled: it awaits a task that it has just cancelled itself. So it runs in a task of its own.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger()

_CONNECTIONS_SECONDS = 0.5
_TURNS, _TURN_SECONDS = 25, 0.02


async def closed_within(seconds: float, stop: Coroutine[Any, Any, None]) -> bool:
    """Run `stop`; False when it failed or took longer, in which case it goes on being cancelled by itself."""
    task = asyncio.ensure_future(stop)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_forget)
    return task.done() and not task.cancelled() and task.exception() is None


async def stop_client(client: Any, stop: Coroutine[Any, Any, None], *, seconds: float, what: str) -> None:
    """Stop a consumer or producer; when that fails, at least close its connections (`client` is its AIOKafkaClient)."""
    if await closed_within(seconds, stop):
        return
    log.info("kafka_client_abandoned", what=what)
    await closed_within(_CONNECTIONS_SECONDS, client.close())


async def cut_off(starting: asyncio.Task[None], client: Any, *, seconds: float) -> None:
    """End a consumer's start, and wait `seconds` for that at most (`client` is its AIOKafkaClient, None before it has
    one).

    Cancelled before it knows its cluster, aiokafka (0.14) leaves the line open on which it asked for it, and nobody can
    close that: with Kafka there it knows it in a moment, so it gets half a second.
    """
    for _ in range(_TURNS):
        if starting.done() or client is None or client._sync_task is not None:
            break
        # turns rather than time: to a process that stood still the answer has yet to come
        await asyncio.wait({starting}, timeout=_TURN_SECONDS)
    starting.cancel()
    await asyncio.wait({starting}, timeout=seconds)


def _forget(task: asyncio.Future[None]) -> None:
    if not task.cancelled():
        task.exception()
