"""How many messages a client may send: a token bucket, kept as one time per client (the leaky bucket as a meter of
ITU-T I.371, GCRA)."""


class Rate:
    """`rate` a second, `burst` at once. One for all clients."""

    __slots__ = ("_ahead", "_each")

    def __init__(self, rate: float, burst: int) -> None:
        self._each = 1.0 / rate
        # rounding must not cost the last of a burst
        self._ahead = burst * self._each * (1 + 1e-9)

    def spend(self, used_until: float, now: float) -> float | None:
        """The client's new time after one more message; None when there is none left. A new client's time is 0.

        A client's time says until when it has used up what the rate gives.
        """
        used_until = max(used_until, now) + self._each
        return used_until if used_until - now <= self._ahead else None
