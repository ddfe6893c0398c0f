"""Status events in: read once, published once. An event that cannot be read stops nothing."""

import asyncio
from collections.abc import Callable

import structlog

from messaging.deliveries import Delivery
from messaging.tail import Tail
from notifier.cursors import Cursors
from notifier.events import Unreadable, read
from notifier.hub import Hub
from telemetry import metrics

log = structlog.get_logger()

_YIELD_EVERY = 200
"""Events between two turns of the loop: while a backlog is worked off, sockets are read and polls answered."""


class StatusEvents:
    """The log of status events, followed from its end on. Kafka may be away at any time; the sockets stay."""

    def __init__(self, tail: Tail, hub: Hub, cursors: Cursors, *, heard_within: float) -> None:
        self._tail = tail
        self._hub = hub
        self._cursors = cursors
        self._heard_within = heard_within
        self.started = asyncio.Event()

    async def follow(self, pulse: Callable[[], object] = lambda: None) -> None:
        """Until cancelled."""
        await self._tail.start("end")
        self._hub.start_at(self._tail.positions)
        self.started.set()
        async for batch in self._tail.batches():
            for number, delivery in enumerate(batch):
                self.on_status(delivery)
                if number % _YIELD_EVERY == _YIELD_EVERY - 1:
                    await asyncio.sleep(0)
            pulse()

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
        """Raises while Kafka does not answer, or before its log was found."""
        heard = self._tail.heard_seconds_ago
        if not self.started.is_set() or heard is None:
            raise ConnectionError("the log of status events has not been found yet")
        if heard > self._heard_within:
            raise ConnectionError(f"Kafka has not answered for {heard:.0f} s")
