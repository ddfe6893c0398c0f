"""Position in line and seconds left, from what stood in the queue a moment ago: arithmetic alone.

An estimate says what comes of the queue as it is: of those who stand in line, the slots, and what attempts took of
late. Nobody knows who will come next, so a lane of small weight may take longer than it was told.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from math import ceil

from schemas.words import Stage
from storage.queueing import Pace, Queue
from storage.reading import Standing
from storage.turns import LANE_WEIGHTS

_OVERDUE_SHARE = 0.1
"""What has taken longer than it should is expected to take another tenth of that."""
_GIVEN_UP_AFTER = 3.0
_GIVEN_UP_NOT_BEFORE = 30.0
"""Times what it should have taken (and seconds at least), after which nothing is known any more."""

_BEING_MADE = frozenset({Stage.SUBMITTING, Stage.GENERATING})


class Forecast:
    """What one look at the queue lets one say of every record."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._frees = _slots_fall_free(queue)
        self._ahead = {lane: (len(line.places), line.whole) for lane, line in queue.lines.items()}

    def position(self, standing: Standing) -> int | None:
        """1 is next in its lane. None: it does not stand in line, nothing moves, or it stands too far behind."""
        line = self._queue.lines.get(standing.lane)
        if line is None or standing.place is None or standing.halted or self._queue.paused:
            return None
        ahead = bisect_left(line.places, standing.place)
        return ahead + 1 if line.whole or ahead < len(line.places) else None

    def seconds_left(self, standing: Standing) -> int | None:
        """Until its picture is there; at least 1. None where it cannot be known."""
        left = self._left(standing) if self._queue.worked_on else None
        return None if left is None else max(1, ceil(left))

    def _left(self, standing: Standing) -> float | None:
        pace = self._queue.pace
        stored = pace.stored if pace is not None and pace.stored is not None else 0.0
        if standing.stage == Stage.STORING:
            return None if standing.stored_for is None else _remaining(stored, standing.stored_for)
        if standing.stage in _BEING_MADE:
            expected = self._to_make(standing)
            if expected is None or standing.made_for is None:
                return None
            made = _remaining(expected, standing.made_for)
            return None if made is None else made + stored
        return self._until_dispatched_and_made(standing)

    def _until_dispatched_and_made(self, standing: Standing) -> float | None:
        if standing.halted or self._queue.paused:
            return None
        whole = self._usual(lambda pace: pace.whole, self._queue.by_lane.get(standing.lane))
        if standing.retry_in is not None and standing.retry_in > 0:
            # its turn was given early: it will stand first, or nearly
            position, before = 1, standing.retry_in
        else:
            found = self.position(standing)
            if found is None:
                return None
            position, before = found, 0.0
        waits = self._dispatched_in(standing.lane, position)
        return None if waits is None or whole is None else max(waits, before) + whole

    def _to_make(self, standing: Standing) -> float | None:
        """From the submit to the provider's picture: what it said for this one, or what such a one takes if longer."""
        usual = self._usual(lambda pace: pace.made, self._queue.by_model.get(standing.model_id or ""))
        told = standing.provider_eta
        return usual if told is None else told if usual is None else max(told, usual)

    def _usual(self, what: Callable[[Pace], float | None], pace: Pace | None) -> float | None:
        """Of such records, else of all."""
        known = (what(one) for one in (pace, self._queue.pace) if one is not None)
        return next((seconds for seconds in known if seconds is not None), None)

    def _dispatched_in(self, lane: str, position: int) -> float | None:
        """Seconds until whoever stands so far in this lane gets a slot."""
        if not self._frees:
            return None
        number = max(1, round(dispatches(lane, position, self._ahead)))
        rounds, slot = divmod(number - 1, len(self._frees))
        if rounds == 0:
            return self._frees[slot]
        return None if self._queue.pace is None else self._frees[slot] + rounds * self._queue.pace.slot_spent


def dispatches(lane: str, position: int, ahead: Mapping[str, tuple[int, bool]]) -> float:
    """How many records are dispatched, of all lanes, up to the one that stands so far in `lane`.

    `ahead` holds of each lane how many wait, and whether these are all. Lanes share by their weights; when one has no
    more, the others go on without it.
    """
    weight = LANE_WEIGHTS[lane]
    others = {
        other: float(count) if whole else float("inf")
        for other, (count, whole) in ahead.items()
        if other != lane and count > 0
    }
    own, number = float(position), 0.0
    while own > 0:
        # as long as each of these lanes has somebody
        stretch = min([own, *(left * weight / LANE_WEIGHTS[other] for other, left in others.items())])
        number += stretch + sum(stretch * LANE_WEIGHTS[other] / weight for other in others)
        own -= stretch
        left_over = {other: left - stretch * LANE_WEIGHTS[other] / weight for other, left in others.items()}
        others = {other: left for other, left in left_over.items() if left > 1e-6}
    return number


def _slots_fall_free(queue: Queue) -> Sequence[float]:
    """Seconds until each slot can be used, in order; each is used again and again from then on.

    One that rests longer than an attempt takes is left out: it would not be used as often as the others.
    """
    held = queue.pace.slot_held if queue.pace is not None else None
    frees = list(queue.resting)
    if held is not None:
        frees += [max(held - busy_for, held * _OVERDUE_SHARE) for busy_for in queue.busy]
    frees.sort()
    return [free for free in frees if held is None or free <= frees[0] + held]


def _remaining(expected: float, passed: float) -> float | None:
    if passed > max(_GIVEN_UP_AFTER * expected, _GIVEN_UP_NOT_BEFORE):
        return None
    return max(expected - passed, expected * _OVERDUE_SHARE)
