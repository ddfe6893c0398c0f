"""The memory of the last events: what came after a place is all here, or it is not said to be."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.cursors import Position, mark_of
from notifier.events import Event, read
from notifier.memory import Memory
from notifier.scopes import chapter_key, mine_key, record_key
from tests.unit.status_events import event, status

USER, STRANGER, CHAPTER, ELSEWHERE = uuid4(), uuid4(), uuid4(), uuid4()


class Log:
    """One partition, written to and read by a memory."""

    def __init__(self, *, most: int = 100, seconds: float = 60.0, start: int = 0, partition: int = 0) -> None:
        self.now = 0.0
        self.memory = Memory(events=most, seconds=seconds, clock=lambda: self.now)
        self.memory.begin({partition: start}, {partition: start})
        self.partition = partition
        self.end = start
        self.told: list[tuple[int, Event]] = []

    def say(self, data: dict[str, Any]) -> Position:
        value = event(data)
        self.end += 1
        self.told.append((self.end, read(value, b"c")))
        assert self.memory.add(self.partition, self.end, mark_of(value), self.told[-1][1])
        return self.memory.position(self.partition)


def versions(found: list[Event]) -> dict[UUID, int]:
    assert len({one.record_id for one in found}) == len(found)
    return {one.record_id: one.version for one in found}


def test_of_each_record_that_changed_its_newest_version() -> None:
    log = Log()
    mine, other, strangers = status(USER, CHAPTER), status(USER, ELSEWHERE), status(STRANGER, CHAPTER)
    start = log.memory.position(0)
    for version in (1, 2):
        for data in (mine, other, strangers):
            log.say({**data, "version": version})
    middle = log.memory.position(0)
    log.say({**mine, "version": 3})
    # across a takeover an older one may come later
    log.say({**mine, "version": 2})
    ids = [UUID(data["record_id"]) for data in (mine, other, strangers)]
    memory = log.memory
    assert versions(memory.since(mine_key(USER), {0: start.offset})) == {ids[0]: 3, ids[1]: 2}
    assert versions(memory.since(chapter_key(USER, CHAPTER), {0: start.offset})) == {ids[0]: 3}
    assert versions(memory.since(chapter_key(STRANGER, CHAPTER), {0: start.offset})) == {ids[2]: 2}
    assert versions(memory.since(record_key(USER, ids[1]), {0: start.offset})) == {ids[1]: 2}
    assert versions(memory.since(record_key(STRANGER, ids[1]), {0: start.offset})) == {}
    assert versions(memory.since(mine_key(USER), {0: middle.offset})) == {ids[0]: 3}
    assert memory.since(mine_key(USER), {0: log.end}) == []
    assert memory.home(record_key(USER, ids[1])) == 0
    assert memory.home(record_key(STRANGER, ids[1])) is None


def test_a_place_must_be_of_this_log() -> None:
    log = Log(start=10)
    assert log.memory.holds(0, Position(10, None))
    assert not log.memory.holds(0, Position(10, 4711))
    assert not log.memory.holds(0, Position(9, None))
    place = log.say(status(USER, CHAPTER))
    assert log.memory.holds(0, place)
    assert log.memory.holds(0, place._replace(mark=None))
    assert not log.memory.holds(0, place._replace(mark=(place.mark or 0) ^ 1))
    assert not log.memory.holds(0, Position(place.offset + 1, place.mark))


def test_what_cannot_be_read_has_its_place_too() -> None:
    log = Log()
    assert log.memory.add(0, 1, mark_of(b"poison"), None)
    assert log.memory.holds(0, Position(1, mark_of(b"poison")))


def test_events_of_before_the_start_fill_it_and_are_no_news() -> None:
    memory = Memory(events=10, seconds=60.0)
    memory.begin({0: 5, 1: 0}, {0: 7, 1: 0})
    values = [event(status(USER, CHAPTER)) for _ in range(3)]
    live = [memory.add(0, end, mark_of(value), read(value, b"c")) for end, value in zip((6, 7, 8), values, strict=True)]
    assert live == [False, False, True]


def test_a_log_that_lost_events_refuses_places_of_before() -> None:
    memory = Memory(events=10, seconds=60.0)
    memory.begin({0: 5}, {0: 7}, refused_before={0: 7})
    for end in (6, 7, 8):
        memory.add(0, end, end, None)
    assert memory.refuses(0, Position(6, 6))
    assert not memory.holds(0, Position(6, 6))
    assert memory.holds(0, Position(7, 7))


async def test_one_waits_until_it_is_filled_and_there() -> None:
    memory = Memory(events=10, seconds=60.0)
    memory.begin({0: 0}, {0: 2})
    memory.add(0, 1, 1, None)
    memory.tell()
    assert not await memory.reached({}, 0.01)
    waiting = asyncio.create_task(memory.reached({0: 3}, 10.0))
    for end in (2, 3):
        memory.add(0, end, end, None)
        await asyncio.sleep(0)
        memory.tell()
        assert not waiting.done()
    assert await waiting
    assert await memory.reached({0: 3}, 0.0)
    assert not await memory.reached({1: 1}, 0.01)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.0, 1.0, 7.0])), max_size=40),
    st.integers(1, 12),
)
def test_what_is_held_is_whole_and_what_is_not_is_refused(told: list[tuple[int, float]], most: int) -> None:
    """Whatever is forgotten, by number or by age: a place that is held gives exactly what came after it."""
    log = Log(most=most, seconds=10.0)
    records = [status(USER, CHAPTER, record=uuid4()) for _ in range(4)]
    places = [log.memory.position(0)]
    counts = [0, 0, 0, 0]
    for which, pause in told:
        log.now += pause
        counts[which] += 1
        places.append(log.say({**records[which], "version": counts[which]}))
    key = mine_key(USER)
    kept = [place for place in places if log.memory.holds(0, place)]
    assert kept[-1] == places[-1]
    assert len(kept) <= most + 1
    for place in kept:
        after = {one.record_id: one.version for end, one in log.told if end > place.offset}
        assert versions(log.memory.since(key, {0: place.offset})) == after
