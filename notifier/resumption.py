"""What a client with a cursor has missed: from memory, else from the log; None where only a snapshot will do."""

from collections.abc import Mapping
from typing import Literal, NamedTuple
from uuid import UUID

from messaging.partitions import partition_of
from notifier.cursors import Cursors, Position
from notifier.events import Event
from notifier.memory import Memory, merge
from notifier.replays import Missed, Replays
from notifier.scopes import Key

_PATIENCE = 2.0
"""Seconds for this process to come to where another has been already, or to fill its memory after a start."""


class Resumed(NamedTuple):
    """`events`: of each record that changed its newest, in the order of the log; what comes after `positions` is yet to
    be published by the hub."""

    events: list[Event]
    positions: dict[int, Position]
    source: Literal["memory", "log"]


class Resumption:
    def __init__(self, cursors: Cursors, memory: Memory, replays: Replays) -> None:
        self._cursors = cursors
        self._memory = memory
        self._replays = replays

    def positions(self, key: Key) -> dict[int, Position]:
        """Where a scope stands now; nothing while the log is not known."""
        partitions = self._memory.partitions
        home = self._home(key, partitions)
        return {one: self._memory.position(one) for one in (partitions if home is None else [home])}

    def cursor(self, key: Key) -> str:
        """The same as text."""
        return self.text(self.positions(key))

    def text(self, positions: Mapping[int, Position]) -> str:
        return self._cursors.write(positions)

    def at_once(self, key: Key, cursor: str) -> Resumed | None:
        """What `resume` gives, where nothing has to be waited for; else None."""
        given = self._cursors.read(cursor)
        if given is None or not self._memory.is_at({one: position.offset for one, position in given.items()}):
            return None
        at = self._concerned(key, given)
        if at is None or any(self._memory.refuses(one, position) for one, position in at.items()):
            return None
        if not all(self._memory.holds(one, position) for one, position in at.items()):
            return None
        return self._from_memory(key, at)

    async def resume(self, key: Key, cursor: str) -> Resumed | None:
        """Whoever asks listens to the scope already: what comes after this answer comes by the hub.

        None for a cursor of which nothing can be made, or too much.
        """
        given = self._cursors.read(cursor)
        if given is None:
            return None
        if not await self._memory.reached({one: position.offset for one, position in given.items()}, _PATIENCE):
            return None
        # while we waited the log may have become another
        given = self._cursors.read(cursor)
        if given is None:
            return None
        at = self._concerned(key, given)
        if at is None or any(self._memory.refuses(one, position) for one, position in at.items()):
            return None
        forgotten = {one: position for one, position in at.items() if not self._memory.holds(one, position)}
        if forgotten:
            return await self._from_log(key, at, forgotten)
        return self._from_memory(key, at)

    def _from_memory(self, key: Key, at: Mapping[int, Position]) -> Resumed | None:
        if key[0] == "record" and self._memory.home(key) is None:
            # whose it is, and where its events stand, is not to be seen
            return None
        events = self._memory.since(key, {one: position.offset for one, position in at.items()})
        return Resumed(events, self._now(at), "memory")

    async def _from_log(
        self, key: Key, at: Mapping[int, Position], forgotten: Mapping[int, Position]
    ) -> Resumed | None:
        ends = {one: self._memory.position(one) for one in forgotten}
        missed = await self._replays.since(forgotten, {one: end.offset for one, end in ends.items()})
        if missed is None or not all(missed[one].follows(position) for one, position in forgotten.items()):
            return None
        if key[0] == "record" and self._memory.home(key) is None and not _tells_of(key, missed):
            return None
        # memory has what came while the log was read, unless that was more than it takes
        if not all(self._memory.holds(one, end) for one, end in ends.items()):
            return None
        newest: dict[int, Event] = {}
        for one, position in at.items():
            since = position.offset
            if one in forgotten:
                merge(newest, (event for event in missed[one].after(since) if key in event.keys))
                since = ends[one].offset
            merge(newest, self._memory.since(key, {one: since}))
        return Resumed(list(newest.values()), self._now(at), "log")

    def _now(self, at: Mapping[int, Position]) -> dict[int, Position]:
        return {one: self._memory.position(one) for one in at}

    def _concerned(self, key: Key, given: Mapping[int, Position]) -> dict[int, Position] | None:
        """The positions of the partitions in which a scope's events stand; None where the cursor lacks one."""
        partitions = self._memory.partitions
        home = self._home(key, partitions)
        if home is not None:
            return {home: given[home]} if home in given else None
        if key[0] == "record":
            # it may stand in any: all, or the one whose last event must then turn out to be its own
            return dict(given) if len(given) in (1, len(partitions)) else None
        return dict(given) if len(given) == len(partitions) else None

    def _home(self, key: Key, partitions: list[int]) -> int | None:
        """The one partition of a scope, where it is known: a chapter's events all have its id as key."""
        kind, _, target = key
        if kind == "chapter" and target is not None and partitions:
            return partition_of(str(UUID(int=target)).encode(), partitions)
        return self._memory.home(key) if kind == "record" else None


def _tells_of(key: Key, missed: Mapping[int, Missed]) -> bool:
    return any(one.before is not None and key in one.before.keys for one in missed.values()) or any(
        key in event.keys for one in missed.values() for event in one.after(0)
    )
