"""The queue is looked at rarely, by one for all, and never holds up an answer for long."""

import asyncio
import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

from notifier.outlook import Outlook
from storage.database import Unavailable
from storage.queueing import Line, Queue
from storage.reading import Image, Standing

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = (
    '{"record_id" : "r", "queue_position" : null, "eta_seconds" : null,'
    ' "error_message" : "\\"queue_position\\" : null, \\"eta_seconds\\" : null"}'
)


def image(turn: int | None = 1) -> Image:
    """One that waits with this turn, or one that is done."""
    record_id = uuid4() if turn is None else UUID(int=turn)
    place = None if turn is None else (turn, NOW, record_id)
    standing = None if turn is None else Standing("bulk", "queued", place, False, None, None, None, None, None)
    return Image(record_id, 1, None, "pending", "queued", NOW, TEXT, standing)


class Looking:
    """A queue with so many in the bulk lane, and how often it was looked at; `patience` is for who lets it hang."""

    def __init__(self, patience: float = 10.0) -> None:
        self.looks = 0
        self.now = 100.0
        self.waiting = 1
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()
        self.away = False
        self.outlook = Outlook(self.look, patience=patience, clock=lambda: self.now)

    async def look(self) -> Queue:
        self.looks += 1
        self.begun.set()
        await self.go.wait()
        if self.away:
            raise Unavailable("away")
        places = [(turn, NOW, UUID(int=turn)) for turn in range(1, self.waiting + 1)]
        return Queue({"bulk": Line(places, True)}, [], [], False, True, None, {}, {})

    async def position(self, turn: int = 1) -> int | None:
        (filled,) = await self.outlook.fill([image(turn)])
        told = json.loads(filled.text)
        assert told["error_message"] == '"queue_position" : null, "eta_seconds" : null'
        assert filled.estimated == (told["queue_position"] is not None)
        return int(told["queue_position"]) if told["queue_position"] is not None else None


async def test_what_is_done_asks_for_no_look() -> None:
    looking = Looking()
    done = image(None)
    assert await looking.outlook.fill([done, done]) == [done, done]
    assert await looking.outlook.fill([]) == []
    assert looking.looks == 0


async def test_all_who_ask_within_a_second_share_one_look() -> None:
    looking = Looking()
    looking.waiting = 9
    looking.go.clear()
    asked = [asyncio.create_task(looking.position(turn)) for turn in range(1, 10)]
    await looking.begun.wait()
    looking.go.set()
    assert await asyncio.gather(*asked) == list(range(1, 10))
    looking.now += 0.9
    assert await looking.position(4) == 4
    assert looking.looks == 1
    looking.now += 0.2
    assert await looking.position(4) == 4
    assert looking.looks == 2


async def test_a_slow_look_holds_nobody_up_and_serves_the_next() -> None:
    looking = Looking(patience=0.05)
    looking.go.clear()
    assert await looking.position() is None
    assert await looking.position() is None
    assert looking.looks == 1
    looking.go.set()
    async with asyncio.timeout(10):
        while (position := await looking.position()) is None:
            pass
    assert (position, looking.looks) == (1, 1)


async def test_an_older_look_serves_a_while_and_then_says_nothing() -> None:
    looking = Looking()
    assert await looking.position() == 1
    looking.away = True
    looking.now += 4.0
    assert await looking.position() == 1
    looking.now += 2.0
    assert await looking.position() is None
    assert looking.looks == 3
    looking.away = False
    assert await looking.position() == 1


async def test_whoever_leaves_does_not_end_the_look_for_the_others() -> None:
    looking = Looking()
    looking.go.clear()
    first, second = (asyncio.create_task(looking.position()) for _ in range(2))
    await looking.begun.wait()
    first.cancel()
    looking.go.set()
    assert await second == 1
    assert looking.looks == 1


async def test_it_closes_while_a_look_is_going_on() -> None:
    looking = Looking(patience=0.05)
    await looking.outlook.close()
    looking.go.clear()
    assert await looking.position() is None
    await looking.outlook.close()
