"""The way out to one client: what waits, in which order, and who is ended for not reading."""

from websockets.frames import Frame, Opcode

from notifier.frames import text_frame
from notifier.outlet import Outlet, Stalls
from notifier.rates import Allowance
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
        self.outlet: Outlet | None = None

    def write(self, frames: bytes) -> None:
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


def made(room: int = 10**9, *, timeout: float = 4.0) -> tuple[Line, Outlet, Stalls, Clock]:
    clock, line = Clock(), Line(room)
    stalls = Stalls(timeout, clock=clock)
    outlet = Outlet(line, stalls)
    line.outlet = outlet
    return line, outlet, stalls, clock


def test_every_frame_that_is_written_is_counted_once() -> None:
    line, outlet, stalls, _ = made(room=4)
    told = metrics.of_process().value("frames")
    for number in range(3):
        outlet.put(number, b"four")
    line.drain(100)
    outlet.resume()
    outlet.close(1000, last=b"last")
    for _ in range(2):
        stalls.look()
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
    line, outlet, stalls, clock = made(room=0)
    outlet.put("a", b"x" * 100)
    for _ in range(7):
        clock.now += 0.5
        stalls.look()
    assert line.ended is None
    clock.now += 0.5
    stalls.look()
    assert line.ended == (4508, "too slow")
    assert line.aborted


def test_who_drains_is_left_alone_however_busy() -> None:
    line, outlet, stalls, clock = made(room=0)
    outlet.put("a", b"x" * 100)
    for _ in range(30):
        clock.now += 1.0
        # as many bytes wait as before, and yet some went
        line.drain(10)
        line.outlet = None
        outlet.written += 10
        line.kept += b"x" * 10
        outlet.resumed_at = clock.now
        stalls.look()
    assert line.ended is None
    line.drain(10**6)
    stalls.look()
    clock.now += 100
    stalls.look()
    assert line.ended is None


def test_who_crawls_is_ended_after_a_while() -> None:
    line, outlet, stalls, clock = made(room=0)
    outlet.put("a", b"x" * 1000)
    assert outlet.paused
    for _ in range(39):
        clock.now += 1.0
        line.drain(1)
        stalls.look()
    assert line.ended is None
    clock.now += 1.0
    line.drain(1)
    stalls.look()
    assert line.ended == (4508, "too slow")


def test_frames_are_those_of_rfc_6455() -> None:
    for size in (0, 1, 125, 126, 127, 65_535, 65_536, 70_000):
        text = "é" * (size // 2) + "x" * (size % 2)
        assert text_frame(text) == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def test_an_allowance_is_spent_and_comes_back() -> None:
    clock = Clock()
    allowance = Allowance(2.0, 3, clock)
    assert [allowance.spend() for _ in range(4)] == [True, True, True, False]
    clock.now += 0.5
    assert [allowance.spend() for _ in range(2)] == [True, False]
    clock.now += 1000
    assert [allowance.spend() for _ in range(4)] == [True, True, True, False]
