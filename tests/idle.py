"""Time that passes only while nobody has anything to do, so that a machine that is late makes nothing late."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

_A_MOMENT = 0.02
"""Real seconds without any news after which there is nothing to do: what goes over loopback is there at once."""


class IdleClock(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to its next timer when nothing is ready; for all that runs in one process."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Waiting(self._jump))

    def time(self) -> float:
        return self._now

    def _jump(self, seconds: float) -> None:
        self._now += seconds


class _Waiting(selectors.DefaultSelector):
    """Tells how long it would have waited in vain."""

    def __init__(self, in_vain: Callable[[float], None]) -> None:
        super().__init__()
        self._in_vain = in_vain

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready: list[Any] = super().select(min(timeout, _A_MOMENT))
        if not ready:
            self._in_vain(timeout)
        return ready
