"""Growing pauses between tries."""

import asyncio
import contextlib

_FIRST_SECONDS = 0.2


class Backoff:
    """Pauses of 0.2 s, doubling up to `most` seconds, cut short by the stop."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._next = min(_FIRST_SECONDS, most)

    async def pause(self, stopping: asyncio.Event) -> None:
        seconds, self._next = self._next, min(self._next * 2, self._most)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stopping.wait()
