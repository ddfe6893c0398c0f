"""Reads back from the log what memory does not hold any more.

Whoever asks while a reading goes on is served by the next one, together with all others who asked meanwhile: a
partition is read once for a thousand of them. What would take too long is refused: a snapshot is cheaper then.
"""

import asyncio
import contextlib
from collections.abc import Mapping

import structlog

from messaging.deliveries import Delivery
from messaging.provision import KafkaAway
from messaging.stretches import Stretches
from notifier.cursors import Cursors, Position, mark_of, same_mark
from notifier.events import Event, Unreadable, read

log = structlog.get_logger()

_YIELD_EVERY = 100
_ASKED_AT_MOST = 10_000


class Missed:
    """What stands in one partition between two offsets: each event with the offset after it."""

    def __init__(self, first: Delivery | None, events: list[tuple[int, Event]]) -> None:
        self._first = first
        self._events = events

    def follows(self, position: Position) -> bool:
        """Whether this begins with the event that the position names as the one before it."""
        if position.offset == 0 or position.mark is None:
            return True
        first = self._first
        return (
            first is not None and first.offset == position.offset - 1 and same_mark(position.mark, mark_of(first.value))
        )

    def after(self, offset: int) -> list[Event]:
        return [event for end, event in self._events if end > offset]

    @property
    def before(self) -> Event | None:
        """The event before the position, where that could be read."""
        first = self._first
        return next((event for end, event in self._events if first is not None and end == first.offset + 1), None)


class _Asked:
    def __init__(self, wanted: Mapping[int, tuple[int, int]], answer: "asyncio.Future[dict[int, Missed]]") -> None:
        self.wanted = wanted
        self.answer = answer


class Replays:
    """`most`: events that may lie between a cursor and now; `seconds` that one reading may take."""

    def __init__(self, stretches: Stretches, cursors: Cursors, *, most: int, seconds: float) -> None:
        self._stretches = stretches
        self._cursors = cursors
        self._most = most
        self._seconds = seconds
        self._asked: list[_Asked] = []
        self._reading: asyncio.Task[None] | None = None
        #: readings done, for tests and whoever wonders
        self.readings = 0

    async def since(self, positions: Mapping[int, Position], ends: Mapping[int, int]) -> dict[int, Missed] | None:
        """Of each partition what stands between its position and its end, and the event before the position.

        None where that is too much, or Kafka does not give it in time.
        """
        # from the event before on: by it the log is known
        wanted = {partition: (max(0, one.offset - 1), ends[partition]) for partition, one in positions.items()}
        if sum(end - first for first, end in wanted.values()) > self._most or len(self._asked) >= _ASKED_AT_MOST:
            return None
        asked = _Asked(wanted, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="replays")
        try:
            # its own reading may have to wait for the end of another
            async with asyncio.timeout(2 * self._seconds):
                return await asked.answer
        except (TimeoutError, KafkaAway):
            return None

    async def close(self) -> None:
        """Let go of a reading that is still going on."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while self._asked:
                batch, self._asked = self._asked, []
                try:
                    await self._answer([one for one in batch if not one.answer.done()])
                except KafkaAway as error:
                    log.info("replay_not_read", reason=str(error))
                    _fail(batch, error)
                except Exception:
                    log.exception("replay_failed")
                    _fail(batch, KafkaAway("a fault of ours"))
        finally:
            self._reading = None

    async def _answer(self, batch: list[_Asked]) -> None:
        wanted: dict[int, tuple[int, int]] = {}
        for asked in batch:
            for partition, (first, end) in asked.wanted.items():
                known = wanted.get(partition, (first, end))
                wanted[partition] = (min(first, known[0]), max(end, known[1]))
        if not wanted:
            return
        self.readings += 1
        found = await self._stretches.read(wanted, self._seconds)
        events = {partition: await self._events(deliveries) for partition, deliveries in found.items()}
        for asked in batch:
            if asked.answer.done():
                continue
            answer: dict[int, Missed] = {}
            for partition, (first, end) in asked.wanted.items():
                before = next((one for one in found[partition] if one.offset >= first), None)
                some = [(after, event) for after, event in events[partition] if first < after <= end]
                answer[partition] = Missed(before, some)
            asked.answer.set_result(answer)

    async def _events(self, deliveries: list[Delivery]) -> list[tuple[int, Event]]:
        events: list[tuple[int, Event]] = []
        for number, delivery in enumerate(deliveries):
            after = delivery.offset + 1
            position = Position(after, mark_of(delivery.value))
            # what cannot be read was counted by who follows the log
            with contextlib.suppress(Unreadable):
                events.append((after, read(delivery.value, self._cursors.write_one(delivery.partition, *position))))
            if number % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
        return events


def _fail(batch: list[_Asked], error: KafkaAway) -> None:
    for asked in batch:
        if not asked.answer.done():
            asked.answer.set_exception(error)
