"""Who watches what, and the one place where an event meets them.

Keys name the owner, so an event of somebody else finds no listener, whatever was subscribed to. A listener is told of
an event once per matching key; it drops what it has seen.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Protocol

import structlog

from notifier.events import Event
from notifier.scopes import Key, Latest
from schemas.words import TERMINAL
from storage.reading import Image
from telemetry import metrics

log = structlog.get_logger()

_REMEMBERED = 20_000


class Listener(Protocol):
    """A socket or a held poll. Neither call may block or raise."""

    def offer(self, event: Event) -> None:
        """Something in a scope of yours changed."""

    def ended(self, key: Key) -> None:
        """All latest images of this scope of yours have become terminal."""


class _Scope:
    __slots__ = ("latest", "listeners")

    def __init__(self) -> None:
        self.listeners: dict[Listener, None] = {}
        self.latest = Latest()


class Hub:
    def __init__(self) -> None:
        self._scopes: dict[Key, _Scope] = {}
        self._positions: dict[int, int] = {}
        # the last event of each chapter, and per partition from where on this memory is complete
        self._last: OrderedDict[Key, tuple[int, int]] = OrderedDict()
        self._complete_from: dict[int, int] = {}

    @property
    def positions(self) -> Mapping[int, int]:
        """Partition -> offset of the next event that has not been published here."""
        return self._positions

    def begin(self, positions: Mapping[int, int]) -> None:
        """Events from these offsets on will be published. Offsets that were known are forgotten: they may be of another
        log."""
        self._positions, self._complete_from = dict(positions), dict(positions)
        self._last.clear()

    def join(self, key: Key, listener: Listener) -> None:
        scope = self._scopes.get(key)
        if scope is None:
            scope = self._scopes[key] = _Scope()
        scope.listeners[listener] = None

    def leave(self, key: Key, listener: Listener) -> None:
        scope = self._scopes.get(key)
        if scope is not None:
            scope.listeners.pop(listener, None)
            if not scope.listeners:
                del self._scopes[key]

    def load(self, key: Key, images: Iterable[Image]) -> None:
        """A snapshot of a scope that is listened to was read."""
        scope = self._scopes.get(key)
        if scope is not None:
            for image in images:
                terminal = image.status in TERMINAL
                scope.latest.learn(image.place, image.record_id, image.version, image.created_at, terminal)
            scope.latest.loaded = True

    def finished(self, key: Key) -> bool:
        scope = self._scopes.get(key)
        return scope is not None and scope.latest.finished

    def publish(self, event: Event, partition: int, next_offset: int) -> None:
        """Hand an event to all who watch its record, its chapter or its owner. Never raises."""
        self._remember(event, partition, next_offset)
        watched = False
        for key in event.keys:
            scope = self._scopes.get(key)
            if scope is None:
                continue
            watched = True
            before = scope.latest.finished
            scope.latest.learn(event.place, event.record_id, event.version, event.created_at, event.terminal)
            for listener in scope.listeners:
                _safely(listener, event)
            if scope.latest.finished and not before:
                for listener in scope.listeners:
                    listener.ended(key)
        metrics.count("status_events", outcome="pushed" if watched else "unwatched")
        if watched and event.told_at is not None:
            metrics.observe("push_seconds", max(0.0, (datetime.now(UTC) - event.told_at).total_seconds()))

    def skip(self, partition: int, next_offset: int) -> None:
        """An event that could not be read is behind us."""
        self._positions[partition] = next_offset

    def newer(self, key: Key, positions: Mapping[int, int]) -> bool:
        """Whether something of this chapter may have happened after `positions`. True where that is not known."""
        last = self._last.get(key)
        if last is not None and positions.get(last[0], 0) < last[1]:
            return True
        return not positions or not all(
            self._complete_from.get(partition, offset + 1) <= offset <= self._positions[partition]
            for partition, offset in positions.items()
        )

    def _remember(self, event: Event, partition: int, next_offset: int) -> None:
        self._complete_from.setdefault(partition, next_offset - 1)
        self._positions[partition] = next_offset
        for key in event.keys:
            if key[0] == "chapter":
                self._last[key] = (partition, next_offset)
                self._last.move_to_end(key)
        if len(self._last) > _REMEMBERED:
            _, (forgotten_partition, forgotten) = self._last.popitem(last=False)
            self._complete_from[forgotten_partition] = max(self._complete_from[forgotten_partition], forgotten)


def _safely(listener: Listener, event: Event) -> None:
    try:
        listener.offer(event)
    except Exception:
        # one broken listener must not keep an event from the others
        log.exception("listener_failed", record_id=str(event.record_id))
