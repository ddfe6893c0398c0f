"""The last stretch of the log of status events, in memory: what a client that was away for a while has missed.

One ring per partition, bounded by events and by age, found anew at each start by going back in the log. An event is
kept under its owner too, so that looking up what one of them missed costs what there is of theirs.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from notifier.cursors import Position, same_mark
from notifier.events import Event
from notifier.scopes import Key


class _Stretch:
    """One partition. `ends` are the offsets after each kept event, `marks` of which event each of them is the end."""

    def __init__(self, start: int, filled_at: int, refused_before: int) -> None:
        self.next = start
        self.filled_at = filled_at
        self.refused_before = refused_before
        # three of the same length: of one with tuples the garbage collector would look through each
        self.ends: deque[int] = deque()
        self.added_at: deque[float] = deque()
        self.events: deque[Event | None] = deque()
        self.marks: dict[int, int] = {}
        # owner -> the offset after an event -> that event; a dict, for of most owners there are few (an empty deque has
        # 600 bytes)
        self.of_owner: dict[int, dict[int, Event]] = {}
        # in a partition that is empty nothing stands before its first event
        self.first = start

    @property
    def filled(self) -> bool:
        return self.next >= self.filled_at

    def add(self, end: int, mark: int, event: Event | None, now: float) -> None:
        self.next = end
        self.marks[end] = mark
        self.ends.append(end)
        self.added_at.append(now)
        self.events.append(event)
        if event is not None and event.owner is not None:
            events = self.of_owner.get(event.owner)
            if events is None:
                self.of_owner[event.owner] = {end: event}
            else:
                events[end] = event

    def forget_oldest(self) -> None:
        end = self.ends.popleft()
        self.added_at.popleft()
        event = self.events.popleft()
        # what follows the forgotten event is still whole
        self.marks.pop(self.first, None)
        self.first = end
        if event is not None and event.owner is not None:
            # an offset that came twice was kept once
            events = self.of_owner.get(event.owner, {})
            events.pop(end, None)
            if not events:
                self.of_owner.pop(event.owner, None)

    def holds(self, position: Position) -> bool:
        """Whether all that came after this position is here, and the event before it is the one that it names."""
        if not max(self.first, self.refused_before) <= position.offset <= self.next:
            return False
        mark = self.marks.get(position.offset)
        if mark is None:
            return position.mark is None and position.offset == self.first
        return same_mark(position.mark, mark)


class Memory:
    """`events` and `seconds` bound what is kept of each partition; `clock` tells seconds."""

    def __init__(self, *, events: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = events
        self._seconds = seconds
        self._clock = clock
        self._stretches: dict[int, _Stretch] = {}
        # those that are not filled yet
        self._filling: set[int] = set()
        self._waiting: dict[asyncio.Future[None], dict[int, int]] = {}

    def begin(
        self, positions: Mapping[int, int], ends: Mapping[int, int], refused_before: Mapping[int, int] | None = None
    ) -> None:
        """The log is read from `positions` on, up to `ends` to fill this memory; what was known is forgotten.

        What a cursor missed before `refused_before` is not all in the log.
        """
        refused = refused_before or {}
        self._stretches = {
            partition: _Stretch(start, ends.get(partition, start), refused.get(partition, 0))
            for partition, start in positions.items()
        }
        self._filling = {partition for partition, stretch in self._stretches.items() if not stretch.filled}
        self.tell()

    def widen(self, partitions: Iterable[int]) -> None:
        """Those of these that are new are read from their first event on."""
        for partition in partitions:
            self._stretches.setdefault(partition, _Stretch(0, 0, 0))

    def add(self, partition: int, end: int, mark: int, event: Event | None) -> bool:
        """The event before the offset `end`; None for one that could not be read. Whether it is younger than the start
        of this reader: then nobody has been told of it."""
        stretch = self._stretches[partition]
        now = self._clock()
        stretch.add(end, mark, event, now)
        added_at = stretch.added_at
        while len(added_at) > self._most or (len(added_at) > 1 and added_at[0] < now - self._seconds):
            stretch.forget_oldest()
        if self._filling and stretch.filled:
            self._filling.discard(partition)
        return end > stretch.filled_at

    @property
    def partitions(self) -> list[int]:
        return sorted(self._stretches)

    def position(self, partition: int) -> Position:
        """Where the next event of a partition will stand."""
        stretch = self._stretches[partition]
        return Position(stretch.next, stretch.marks.get(stretch.next))

    def refuses(self, partition: int, position: Position) -> bool:
        """Whether what follows a position is known to be missing from the log."""
        return position.offset < self._stretches[partition].refused_before

    def holds(self, partition: int, position: Position) -> bool:
        """Whether all that came after a position is here, in this very log."""
        return self._stretches[partition].holds(position)

    def home(self, key: Key) -> int | None:
        """The partition of a record that something is known of."""
        for partition, stretch in self._stretches.items():
            if any(key in event.keys for event in stretch.of_owner.get(key[1], {}).values()):
                return partition
        return None

    def since(self, key: Key, offsets: Mapping[int, int]) -> list[Event]:
        """Of each record of a scope that changed at or after these offsets (partition -> offset) its newest event."""
        newest: dict[int, Event] = {}
        for partition, offset in offsets.items():
            found: list[Event] = []
            for end, event in reversed(self._stretches[partition].of_owner.get(key[1], {}).items()):
                if end <= offset:
                    break
                if key in event.keys:
                    found.append(event)
            merge(newest, reversed(found))
        return list(newest.values())

    async def reached(self, offsets: Mapping[int, int], within: float) -> bool:
        """Wait until this memory is filled and has come to these offsets; False when that takes longer."""
        if self.is_at(offsets):
            return True
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = dict(offsets)
        try:
            async with asyncio.timeout(within):
                await waiting
        except TimeoutError:
            return False
        finally:
            del self._waiting[waiting]
        return True

    def tell(self) -> None:
        """A batch of events was added: let those go on who wait for it."""
        for waiting, offsets in self._waiting.items():
            if not waiting.done() and self.is_at(offsets):
                waiting.set_result(None)

    def is_at(self, offsets: Mapping[int, int]) -> bool:
        stretches = self._stretches
        return not self._filling and all(
            partition in stretches and stretches[partition].next >= offset for partition, offset in offsets.items()
        )


def merge(newest: dict[int, Event], events: Iterable[Event]) -> None:
    """Keep of each record (its number) its newest event, in the order in which the newest ones came."""
    for event in events:
        known = newest.get(event.record)
        # of two alike either will do; across a takeover an older one may come later
        if known is None or event.version >= known.version:
            newest.pop(event.record, None)
            newest[event.record] = event
