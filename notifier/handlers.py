"""Status events in: read once, published once. An event that cannot be read stops nothing.

A log that is another one than it was (Kafka lost its data) took with it what had not been read. Postgres still has it,
so whoever watches is brought up to date from there.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from messaging.deliveries import Delivery
from messaging.tail import OtherLog, Start, Tail
from notifier.cursors import Cursors
from notifier.events import Unreadable, read
from notifier.hub import Hub
from telemetry import metrics

log = structlog.get_logger()

_YIELD_EVERY = 200
"""Events between two turns of the loop: while a backlog is worked off, sockets are read and polls answered."""


class StatusEvents:
    """The log of status events, followed from its end on. Kafka may be away at any time; the sockets stay.

    `catch_up` is called when events may have been lost with their log: it lets all who watch read anew.
    """

    def __init__(self, tail: Tail, hub: Hub, cursors: Cursors, *, catch_up: Callable[[], Awaitable[object]]) -> None:
        self._tail = tail
        self._hub = hub
        self._cursors = cursors
        self._catch_up = catch_up
        self._at: Start = "end"
        self._catching_up: set[asyncio.Future[object]] = set()
        self.started = asyncio.Event()

    async def follow(self) -> None:
        """Until the tail is stopped, or cancelled."""
        while True:
            await self._tail.start(self._at)
            self._cursors.log = self._tail.log or b""
            self._hub.begin(self._tail.positions)
            # from here on nothing is missed; what was before is in Postgres. At the first start too: who came while
            # Kafka was away has seen a snapshot, and nothing since
            task = asyncio.ensure_future(self._catch_up())
            self._catching_up.add(task)
            task.add_done_callback(self._caught_up)
            self.started.set()
            try:
                async for batch in self._tail.batches():
                    for number, delivery in enumerate(batch):
                        self.on_status(delivery)
                        if number % _YIELD_EVERY == _YIELD_EVERY - 1:
                            await asyncio.sleep(0)
                return
            except OtherLog:
                # of the new log everything: its first events may be younger than what was read from the old one
                self._at = {}
            except Exception:
                # what of the batch was published is not known: the next try brings all up to date as well
                self._at = self._tail.positions
                raise

    def on_status(self, delivery: Delivery) -> None:
        """One event to the hub."""
        after = delivery.offset + 1
        try:
            event = read(delivery.value, self._cursors.write({delivery.partition: after}))
        except Unreadable as error:
            metrics.count("status_events", outcome="poison")
            metrics.count("poison", topic=delivery.topic)
            log.warning("status_event_poison", partition=delivery.partition, offset=delivery.offset, reason=str(error))
            self._hub.skip(delivery.partition, after)
            return
        self._hub.publish(event, delivery.partition, after)

    async def healthy(self) -> None:
        """Raises while Kafka does not answer, before its log was found, or when it does not give what it holds."""
        trouble = self._tail.away or self._tail.stuck
        if trouble is not None or not self.started.is_set():
            raise ConnectionError(trouble or "the log of status events has not been found yet")

    async def stuck(self) -> str | None:
        """That events wait in the log and none comes, although Kafka answers."""
        return self._tail.stuck

    def _caught_up(self, task: "asyncio.Future[object]") -> None:
        self._catching_up.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("catching_up_failed", exc_info=task.exception())
