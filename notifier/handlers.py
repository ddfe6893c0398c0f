"""Status events in: read once, published once. An event that cannot be read stops nothing.

Reading begins some time before the end of the log, to fill the memory that clients are brought up to date from; what
stood there already is published to nobody.

A log that is another one than it was (Kafka lost its data) took with it what had not been read. Postgres still has it,
so whoever watches is brought up to date from there.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from messaging.deliveries import Delivery
from messaging.tail import OtherLog, Tail
from notifier.cursors import Cursors, mark_of
from notifier.events import Event, Unreadable, read
from notifier.hub import Hub
from notifier.memory import Memory
from telemetry import metrics

log = structlog.get_logger()

_YIELD_EVERY = 200
"""Events between two turns of the loop: while a backlog is worked off, sockets are read and polls answered."""


class StatusEvents:
    """The log of status events. Kafka may be away at any time; the sockets stay.

    `look_back` and `most`: how far before its end reading begins, as time and as events of a partition. `catch_up` is
    called when events may have been lost with their log: it lets all who watch read anew.
    """

    def __init__(
        self,
        tail: Tail,
        hub: Hub,
        memory: Memory,
        cursors: Cursors,
        *,
        look_back: timedelta,
        most: int,
        catch_up: Callable[[], Awaitable[object]],
    ) -> None:
        self._tail = tail
        self._hub = hub
        self._memory = memory
        self._cursors = cursors
        self._look_back = look_back
        self._most = most
        self._catch_up = catch_up
        self._lost = False
        self._catching_up: set[asyncio.Future[object]] = set()
        self.started = asyncio.Event()

    async def follow(self) -> None:
        """Until the tail is stopped, or cancelled."""
        while True:
            await self._tail.start(self._look_back, most=self._most)
            positions, ends = self._tail.positions, self._tail.ends
            self._cursors.begin(self._tail.log, len(positions))
            # a cursor of before its log lost what it held names a place before events that will never come
            self._memory.begin(positions, ends, refused_before=ends if self._lost else None)
            self._lost = False
            # from here on nothing is missed; what was before is in Postgres. At the first start too: who came while
            # Kafka was away has seen a snapshot, and nothing since
            task = asyncio.ensure_future(self._catch_up())
            self._catching_up.add(task)
            task.add_done_callback(self._caught_up)
            self.started.set()
            try:
                async for batch in self._tail.batches():
                    self._widen()
                    for number, delivery in enumerate(batch):
                        self.on_status(delivery)
                        if number % _YIELD_EVERY == _YIELD_EVERY - 1:
                            await asyncio.sleep(0)
                    self._memory.tell()
                return
            except OtherLog:
                self._lost = True
            except Exception:
                # what of the batch was published is not known
                self._lost = True
                raise

    def on_status(self, delivery: Delivery) -> None:
        """One event into memory, and to the hub."""
        after, mark = delivery.offset + 1, mark_of(delivery.value)
        event: Event | None = None
        try:
            event = read(delivery.value, self._cursors.write_one(delivery.partition, after, mark))
        except Unreadable as error:
            metrics.count("status_events", outcome="poison")
            metrics.count("poison", topic=delivery.topic)
            log.warning("status_event_poison", partition=delivery.partition, offset=delivery.offset, reason=str(error))
        live = self._memory.add(delivery.partition, after, mark, event)
        if event is not None and live:
            self._hub.publish(event)

    def _widen(self) -> None:
        """Partitions were added: keys go to others than before, and cursors of before are of no use."""
        positions = self._tail.positions
        if len(positions) != len(self._memory.partitions):
            self._memory.widen(positions)
            self._cursors.begin(self._tail.log, len(positions))

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
