"""How many messages a client may send: a token bucket."""

from collections.abc import Callable


class Allowance:
    __slots__ = ("_burst", "_clock", "_left", "_rate", "_seen_at")

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        """`rate` a second, `burst` at once."""
        self._rate = rate
        self._burst = float(burst)
        self._left = float(burst)
        self._clock = clock
        self._seen_at = clock()

    def spend(self) -> bool:
        """Whether there is one left."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._seen_at) * self._rate)
        self._seen_at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
