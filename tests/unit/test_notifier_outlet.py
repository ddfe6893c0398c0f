"""The way out to one client: what waits, in which order, and who is ended for not reading."""

import asyncio
from collections.abc import Callable

from websockets.frames import Frame, Opcode

from notifier.frames import text_frame
from notifier.outlet import Outlet, Outlets
from notifier.rates import Rate
from telemetry import metrics


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Line:
    """Takes `room` bytes, then keeps the rest; tells the outlet like a transport does."""

    def __init__(self, room: int = 10**9) -> None:
        self.room = room
        self.taken = bytearray()
        self.kept = bytearray()
        self.ended: tuple[int, str] | None = None
        self.aborted = False
        self.writes = 0
        self.outlet: Outlet | None = None

    def write(self, frames: bytes) -> None:
        self.writes += 1
        self.kept += frames
        self.drain(0)
        if self.kept and self.outlet is not None:
            self.outlet.pause()

    def drain(self, more: int) -> None:
        self.room += more
        count = min(self.room, len(self.kept))
        self.room -= count
        self.taken += self.kept[:count]
        del self.kept[:count]

    def waiting_bytes(self) -> int:
        return len(self.kept)

    def finish(self, code: int, reason: str) -> None:
        self.ended = (code, reason)

    def abort(self) -> None:
        self.aborted = True


def made(room: int = 10**9, *, timeout: float = 4.0) -> tuple[Line, Outlet, Outlets, Clock]:
    clock, line = Clock(), Line(room)
    outlets = Outlets(timeout, clock=clock, soon=lambda write: write())
    outlet = Outlet(line, outlets)
    line.outlet = outlet
    return line, outlet, outlets, clock


def test_every_frame_that_is_written_is_counted_once() -> None:
    line, outlet, outlets, _ = made(room=4)
    told = metrics.of_process().value("frames")
    for number in range(3):
        outlet.put(number, b"four")
    line.drain(100)
    outlet.resume()
    outlet.close(1000, last=b"last")
    for _ in range(2):
        outlets.look()
    assert metrics.of_process().value("frames") == told + 4


def test_a_free_line_gets_each_frame_at_once() -> None:
    line, outlet, *_ = made()
    outlet.put("a", b"1")
    outlet.put("a", b"2")
    assert (bytes(line.taken), outlet.waiting) == (b"12", 0)


def test_while_it_is_busy_the_newest_of_a_key_waits_in_the_order_of_the_log() -> None:
    line, outlet, *_ = made(room=0)
    outlet.put("first", b"0")
    outlet.put("a", b"a1")
    outlet.put("b", b"b1")
    outlet.put("a", b"a2")
    outlet.put("c", b"c1")
    assert outlet.waiting == 3
    line.drain(100)
    outlet.resume()
    # a1 is gone; a2 came after b1, and its cursor too
    assert bytes(line.taken) == b"0b1a2c1"
    assert outlet.waiting == 0


def test_a_backlog_is_joined_and_stops_where_the_line_is_full_again() -> None:
    line, outlet, *_ = made(room=0)
    outlet.put("first", b"0")
    for number in range(200):
        outlet.put(number, b"x" * 1000)
    line.drain(10)
    outlet.resume()
    assert outlet.waiting > 100
    assert line.kept
    outlet.put(0, b"late")
    while outlet.waiting:
        line.drain(10**6)
        outlet.resume()
    assert line.taken.endswith(b"late") or line.kept.endswith(b"late")
    assert len(line.taken) + len(line.kept) == 1 + 200 * 1000 + 4


def test_nothing_is_sent_after_the_close() -> None:
    line, outlet, *_ = made()
    outlet.close(1012, "restarting", last=b"bye")
    outlet.close(4401, "again")
    outlet.put("a", b"1")
    assert (bytes(line.taken), line.ended) == (b"bye", (1012, "restarting"))


def test_who_makes_no_progress_is_ended() -> None:
    line, outlet, outlets, clock = made(room=0)
    outlet.put("a", b"x" * 100)
    for _ in range(7):
        clock.now += 0.5
        outlets.look()
    assert line.ended is None
    clock.now += 0.5
    outlets.look()
    assert line.ended == (4508, "too slow")
    assert line.aborted


def test_who_drains_is_left_alone_however_busy() -> None:
    line, outlet, outlets, clock = made(room=0)
    outlet.put("a", b"x" * 100)
    for _ in range(30):
        clock.now += 1.0
        # as many bytes wait as before, and yet some went
        line.drain(10)
        line.outlet = None
        assert outlet.watch is not None
        outlet.watch.written += 10
        line.kept += b"x" * 10
        outlet.watch.resumed_at = clock.now
        outlets.look()
    assert line.ended is None
    line.drain(10**6)
    outlets.look()
    clock.now += 100
    outlets.look()
    assert line.ended is None


def test_who_crawls_is_ended_after_a_while() -> None:
    line, outlet, outlets, clock = made(room=0)
    outlet.put("a", b"x" * 1000)
    assert outlet.paused
    for _ in range(39):
        clock.now += 1.0
        line.drain(1)
        outlets.look()
    assert line.ended is None
    clock.now += 1.0
    line.drain(1)
    outlets.look()
    assert line.ended == (4508, "too slow")


def test_frames_are_those_of_rfc_6455() -> None:
    for size in (0, 1, 125, 126, 127, 65_535, 65_536, 70_000):
        text = "é" * (size // 2) + "x" * (size % 2)
        assert text_frame(text.encode()) == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def test_a_rate_is_spent_and_comes_back() -> None:
    rate = Rate(2.0, 3)
    used: float | None = 0.0
    now = 100.0

    def spend() -> bool:
        nonlocal used
        after = rate.spend(used or 0.0, now)
        used = after if after is not None else used
        return after is not None

    assert [spend() for _ in range(4)] == [True, True, True, False]
    now += 0.5
    assert [spend() for _ in range(2)] == [True, False]
    now += 1000
    assert [spend() for _ in range(4)] == [True, True, True, False]


def test_what_is_put_within_a_turn_of_the_loop_is_one_write() -> None:
    line = Line()
    turns: list[Callable[[], None]] = []
    outlets = Outlets(4.0, clock=Clock(), soon=turns.append)
    one, other = Outlet(line, outlets), Outlet(Line(), outlets)
    one.put("a", b"1")
    other.put("a", b"1")
    one.put("a", b"2")
    one.put("b", b"3")
    assert (bytes(line.taken), len(turns)) == (b"", 1)
    turns[0]()
    # nothing is left out: only what waits for a full line is replaced by what is newer
    assert (bytes(line.taken), line.writes) == (b"123", 1)
    one.put("a", b"4")
    one.close(1000, last=b"5")
    assert (bytes(line.taken), len(turns)) == (b"12345", 2)
    turns[1]()
    assert bytes(line.taken) == b"12345"


def test_a_line_that_fails_keeps_no_other_from_its_frames() -> None:
    class Torn(Line):
        def write(self, frames: bytes) -> None:
            raise RuntimeError("torn")

    line, torn = Line(), Torn()
    turns: list[Callable[[], None]] = []
    outlets = Outlets(4.0, clock=Clock(), soon=turns.append)
    Outlet(torn, outlets).put("a", b"1")
    Outlet(line, outlets).put("a", b"1")
    turns[0]()
    assert torn.aborted
    assert bytes(line.taken) == b"1"


def test_who_is_too_far_behind_is_ended_at_once() -> None:
    line, outlet, *_ = made(room=0)
    outlet.put("first", b"0")
    for number in range(256):
        outlet.put(number, b"x" * 1024)
    assert line.ended is None
    outlet.put(0, b"x" * 1024)
    assert line.ended is None
    outlet.put("one more", b"x")
    assert line.ended == (4508, "too slow")
    assert line.aborted


async def test_whoever_has_much_to_send_waits_until_the_line_is_free() -> None:
    line, outlet, *_ = made(room=0)
    await outlet.free()
    outlet.put("first", b"0")
    waiting = asyncio.ensure_future(outlet.free())
    await asyncio.sleep(0)
    assert not waiting.done()
    line.drain(100)
    outlet.resume()
    await waiting
    line.room = 0
    outlet.put("second", b"0")
    waiting = asyncio.ensure_future(outlet.free())
    await asyncio.sleep(0)
    outlet.gone()
    await waiting
