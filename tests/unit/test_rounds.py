"""The clock of all lines: each has its turn once an interval, and is looked at when its answer is due."""

import math

import pytest

from notifier.rounds import Rounds


class Line:
    def __init__(self) -> None:
        self.pinged: list[float] = []
        self.looked: list[float] = []

    def ping(self, now: float) -> None:
        self.pinged.append(now)

    def look(self, now: float) -> None:
        self.looked.append(now)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(rounds: Rounds, clock: Clock, seconds: float, step: float) -> None:
    for _ in range(math.ceil(seconds / step)):
        clock.now = round(clock.now + step, 6)
        rounds.advance()


@pytest.mark.parametrize(("interval", "timeout", "step"), [(15.0, 8.0, 0.02), (0.04, 0.02, 0.01), (2.0, 5.0, 0.02)])
def test_each_is_pinged_once_an_interval_and_looked_at_after_the_timeout(
    interval: float, timeout: float, step: float
) -> None:
    clock = Clock()
    rounds = Rounds(interval=interval, timeout=timeout, clock=clock)
    lines = [Line() for _ in range(100)]
    for line in lines:
        rounds.join(line)
    run(rounds, clock, 4 * interval + timeout, step)
    for line in lines:
        # a line that has just come is not pinged at once
        assert 0.75 * interval <= line.pinged[0] <= interval + step
        gaps = [later - sooner for sooner, later in zip(line.pinged, line.pinged[1:], strict=False)]
        assert gaps == pytest.approx([interval] * len(gaps), abs=1e-3)
        # whatever the timeout is, some look comes when it is just over
        assert any(-1e-6 <= look - line.pinged[0] - timeout <= step + 1e-6 for look in line.looked)


def test_lines_that_come_all_at_once_are_not_pinged_all_at_once() -> None:
    clock = Clock()
    rounds = Rounds(interval=15.0, timeout=8.0, clock=clock)
    lines = [Line() for _ in range(1500)]
    for line in lines:
        rounds.join(line)
    run(rounds, clock, 15.0, 0.02)
    at = [line.pinged[0] for line in lines]
    assert max(at.count(moment) for moment in set(at)) == 9


def test_who_left_is_left_alone() -> None:
    clock = Clock()
    rounds = Rounds(interval=1.0, timeout=0.5, clock=clock)
    line, other = Line(), Line()
    turn, _ = rounds.join(line), rounds.join(other)
    rounds.leave(line, turn)
    rounds.leave(line, turn)
    run(rounds, clock, 3.0, 0.02)
    assert (line.pinged, line.looked) == ([], [])
    assert other.pinged
