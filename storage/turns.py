"""Whose turn it is: lanes by their weights, and users within a lane by the turn they were given when admitted."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from schemas.words import Lane

LANE_WEIGHTS: dict[str, int] = {Lane.INTERACTIVE.value: 8, Lane.STANDARD.value: 3, Lane.BULK.value: 1}

_LAP = 24
"""A number that every weight divides."""


class Due(Protocol):
    """A record that may be dispatched now."""

    @property
    def lane(self) -> str: ...

    @property
    def turn(self) -> int: ...


D = TypeVar("D", bound=Due)


def take_turns(due: Iterable[D], lanes: dict[str, list[int]], count: int) -> list[D]:
    """Pick `count` of `due` (each lane in its own order) by the lanes' weights, smoothly.

    `lanes` holds credit and last turn of each lane, and is brought up to date. While all lanes have work each gets its
    share over any stretch, and an empty lane's share goes to the others.
    """
    queues: dict[str, list[D]] = {lane: [] for lane in lanes}
    for row in due:
        queues[row.lane].append(row)
    for queue in queues.values():
        queue.reverse()
    picked: list[D] = []
    while len(picked) < count and any(queues.values()):
        row = queues[_next_lane(lanes, [lane for lane in lanes if queues[lane]])].pop()
        lanes[row.lane][1] = max(lanes[row.lane][1], row.turn)
        picked.append(row)
    return picked


def _next_lane(lanes: dict[str, list[int]], working: list[str]) -> str:
    """Start-time fair queueing (Goyal, Vin and Cheng, 1996). A credit is never above naught: it says how far a lane has
    been served ahead of the line, in a time in which a lane of weight 1 takes a lap for each of its records.

    Who has nothing to do saves nothing and is soon quit of what it has had, so that its next request finds no debt; who
    has work keeps its place while the others are charged for theirs, so that nobody waits for ever.
    """
    chosen = max(working, key=lambda lane: (min(0, lanes[lane][0]), LANE_WEIGHTS[lane]))
    passed = -min(0, lanes[chosen][0])
    for lane in lanes:
        lanes[lane][0] = min(0, lanes[lane][0] + passed)
    lanes[chosen][0] -= _LAP // LANE_WEIGHTS[chosen]
    return chosen
