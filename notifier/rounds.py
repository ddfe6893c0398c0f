"""One clock for all lines: whose turn it is to be pinged, and who did not answer.

Two timers a connection would cost more memory than everything else that is kept for an idle one.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

_FINEST = 0.02
"""Seconds between two steps of the clock, or a quarter of the interval where that is shorter. Ten thousand lines that
came at once are then forty in a step: a ping is a system call, and pictures wait for all of a step."""


class Pinged(Protocol):
    """A line. No call may raise."""

    def ping(self, now: float) -> None:
        """It is your turn."""

    def look(self, now: float) -> None:
        """The time for your answer is over, in case you have not heard anything."""


class Rounds:
    """Every line's turn comes once an interval. `clock` is the event loop's (seconds)."""

    def __init__(self, *, interval: float, timeout: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.timeout = timeout
        self._step = min(_FINEST, interval / 4)
        self._turns: list[dict[Pinged, None]] = [{} for _ in range(math.ceil(interval / self._step))]
        self._answers_after = math.ceil(timeout / self._step)
        self._now = self._dealt = 0

    def join(self, line: Pinged) -> int:
        """Give a line its turn: one after the other of the last quarter of the coming interval, so that lines which
        come all at once are not pinged all at once. What it returns `leave` wants back."""
        count = len(self._turns)
        self._dealt = (self._dealt + 1) % max(1, count // 4)
        turn = (self._now - self._dealt) % count
        self._turns[turn][line] = None
        return turn

    def leave(self, line: Pinged, turn: int) -> None:
        self._turns[turn].pop(line, None)

    def advance(self) -> None:
        """The next step."""
        now = self._clock()
        self._now = (self._now + 1) % len(self._turns)
        for line in list(self._turns[self._now]):
            line.ping(now)
        for line in list(self._turns[(self._now - self._answers_after) % len(self._turns)]):
            line.look(now)

    async def run(self) -> None:
        """Until cancelled."""
        due = self._clock()
        while True:
            due = max(due + self._step, self._clock())
            await asyncio.sleep(due - self._clock())
            self.advance()
