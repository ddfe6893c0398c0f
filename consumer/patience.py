"""Our own Postgres being away is no failure of an attempt: what must be written is written when it is back."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from storage.database import Unavailable

log = structlog.get_logger(__name__)
T = TypeVar("T")

_BACKOFF_FIRST, _BACKOFF_LONGEST = 0.1, 2.0
"""Seconds."""


class Stopped(Exception):
    """The process stops before Postgres is back; nothing is known to be written."""


async def patiently(write: Callable[[], Awaitable[T]], *, stop: asyncio.Event | None = None) -> T:
    """Repeat a write until Postgres is there to take it. Raises `Stopped` when `stop` is set meanwhile."""
    stop = stop or asyncio.Event()
    pause = _BACKOFF_FIRST
    while True:
        try:
            return await write()
        except Unavailable as error:
            log.warning("write_waits_for_postgres", error=str(error))
        await rest(stop, pause)
        if stop.is_set():
            raise Stopped
        pause = min(pause * 2, _BACKOFF_LONGEST)


async def rest(stop: asyncio.Event, seconds: float) -> None:
    """Until `stop` is set, `seconds` at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
