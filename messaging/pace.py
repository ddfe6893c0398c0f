"""How long a reader leaves Kafka alone between two fetches: not at all when little comes, a moment when much does.

A fetch costs some 200 us of CPU, most of it system calls, whatever is in it, and without a pause there are few events
in each at five thousand a second. Waiting for some more makes each of them cheaper, and later by less than the pause.
"""

import math

_BUSY = 2_000.0
"""Events a second above which a pause is worth its wait."""
_TOGETHER = 30.0
"""Events that a fetch should bring then."""
_LONGEST = 0.006
_MEMORY = 0.25
"""Seconds after which a change of the rate is seen for the most part."""


class Pace:
    def __init__(self, now: float) -> None:
        self._seen_at = now
        self._rate = 0.0

    def pause(self, events: int, now: float) -> float:
        """Seconds to wait after so many events have come, the time that they take among them."""
        elapsed = max(now - self._seen_at, 1e-6)
        self._seen_at = now
        self._rate += (events / elapsed - self._rate) * (1 - math.exp(-elapsed / _MEMORY))
        return 0.0 if self._rate < _BUSY else min(_LONGEST, _TOGETHER / self._rate)
