"""The time of the simulator, in one place so that a test can move it by hand."""

import asyncio
import time


class Clock:
    """Seconds, real ones. A test derives its own and lets time pass when it wants."""

    def monotonic(self) -> float:
        """Seconds since some point; never goes back."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970, for people who read the call log."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(seconds)
