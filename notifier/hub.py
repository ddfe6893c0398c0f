"""Who watches what, and the one place where an event meets them.

Keys name the owner, so an event of somebody else finds no listener, whatever was subscribed to. A listener is told of
an event once per matching key; it drops what it has seen.
"""

import time
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from notifier.events import Event
from notifier.scopes import Key, Latest
from schemas.words import TERMINAL
from storage.reading import Image
from telemetry import metrics

log = structlog.get_logger()


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
        self._pushed = self._unwatched = 0
        self._push_seconds = metrics.Tally(metrics.of_process().histogram("push_seconds"))
        #: called with a scope that may have ended, for all that is known here
        self.unsure: Callable[[Key], None] = lambda key: None

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
                scope.latest.learn(image.place, image.record_id.int, image.version, image.created_at, terminal)
            before, scope.latest.loaded = scope.latest.loaded, True
            if not before and scope.latest.finished:
                # who went on from a cursor could not know; who asked for this snapshot says so himself
                for listener in scope.listeners:
                    listener.ended(key)

    def hear(self, key: Key, events: Iterable[Event]) -> None:
        """Somebody goes on in a scope from a cursor, with these events and no snapshot."""
        scope = self._scopes.get(key)
        if scope is None:
            return
        latest = scope.latest
        for event in events:
            latest.learn(event.place, event.record, event.version, event.created_at, event.terminal)
            # of one record there is no more to know
            latest.loaded = latest.loaded or key[0] == "record"
        latest.heard = True
        if latest.perhaps_finished:
            self.unsure(key)

    def finished(self, key: Key) -> bool:
        scope = self._scopes.get(key)
        return scope is not None and scope.latest.finished

    def publish(self, event: Event) -> None:
        """Hand an event to all who watch its record, its chapter or its owner. Never raises."""
        watched = False
        scopes = self._scopes
        for key in event.keys:
            scope = scopes.get(key)
            if scope is None:
                continue
            watched = True
            latest = scope.latest
            # one that goes on ends nothing
            before = event.terminal and latest.finished
            latest.learn(event.place, event.record, event.version, event.created_at, event.terminal)
            for listener in scope.listeners:
                try:
                    listener.offer(event)
                except Exception:
                    # one broken listener must not keep an event from the others
                    log.exception("listener_failed", record_id=str(event.record_id))
            if not event.terminal:
                continue
            if latest.finished and not before:
                for listener in scope.listeners:
                    listener.ended(key)
            elif latest.perhaps_finished:
                self.unsure(key)
        if not watched:
            self._unwatched += 1
            return
        self._pushed += 1
        if event.told_at is not None:
            self._push_seconds.observe(max(0.0, time.time() - event.told_at))

    def tell(self) -> None:
        """Tell the metrics what was published since: a counter's lock is dear for something this frequent."""
        self._push_seconds.tell()
        metrics.count("status_events", self._pushed, outcome="pushed")
        metrics.count("status_events", self._unwatched, outcome="unwatched")
        self._pushed = self._unwatched = 0
