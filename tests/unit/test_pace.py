"""A reader of Kafka pauses when much comes, and only then."""

import pytest

from messaging.pace import Pace


def pauses(rate: float, seconds: float, *, pace: Pace | None = None, start: float = 0.0) -> list[float]:
    """The pauses of a reader who looks again as soon as each is over, with events at this rate."""
    pace = pace or Pace(start)
    now, read, found = start, 0.0, []
    while now < start + seconds:
        # a fetch takes a moment too
        now += (found[-1] if found else 0.0) + 0.0004
        events, read = int((now - start) * rate - read), read + int((now - start) * rate - read)
        if events:
            found.append(pace.pause(events, now))
    return found


def test_nobody_waits_while_little_comes() -> None:
    assert set(pauses(1_000, 3)) == {0.0}


@pytest.mark.parametrize("rate", [3_000, 5_000, 20_000, 100_000])
def test_much_comes_together(rate: float) -> None:
    late = pauses(rate, 2)[-20:]
    assert all(0 < pause <= 0.006 for pause in late)
    # thirty at once, or what comes in the longest pause
    assert all(rate * (pause + 0.0004) >= min(29, rate * 0.006) for pause in late)


def test_a_burst_out_of_nothing_is_not_waited_for() -> None:
    pace = Pace(0.0)
    assert pace.pause(60, 10.0) == 0.0


def test_it_is_over_when_it_is_over() -> None:
    pace = Pace(0.0)
    assert pauses(10_000, 2, pace=pace)[-1] > 0
    assert pauses(500, 2, pace=pace, start=2.0)[-1] == 0.0
