"""Whether a reader stands still although its topic holds more: judged over two looks, a period apart.

One partition that rests while the others go on is given longer: a reader works off one partition's buffer at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_LOOKS_OF_ONE = 6
"""So many looks in a row a single partition may rest with events before it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a reader stands: partition -> offset of its next event (-1: not known yet); batches it was given so far."""

    positions: Mapping[int, int]
    batches: int


class Stillness:
    """Look once a period; a reader that has just begun, or was not to be judged, is forgotten first."""

    def __init__(self) -> None:
        self._before: tuple[Standing, Mapping[int, int]] | None = None
        self._rested: dict[int, int] = {}

    def forget(self) -> None:
        self._before = None
        self._rested = {}

    def waiting(self, standing: Standing, ends: Mapping[int, int]) -> int:
        """How many events waited for a whole period and still wait, when that is too long; else 0.

        `ends`: partition -> offset after its last event, as Kafka says now.
        """
        before, self._before = self._before, (standing, ends)
        if before is None:
            return 0
        then, ended = before
        rested = {
            partition: max(0, end - max(0, then.positions[partition]))
            for partition, end in ended.items()
            if partition in then.positions and standing.positions.get(partition) == then.positions[partition]
        }
        rested = {partition: events for partition, events in rested.items() if events}
        self._rested = {partition: self._rested.get(partition, 0) + 1 for partition in rested}
        if standing == then or any(looks >= _LOOKS_OF_ONE for looks in self._rested.values()):
            return sum(rested.values())
        return 0
