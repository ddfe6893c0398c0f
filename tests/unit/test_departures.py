"""Sending many away: each once, evenly over the window, a few sooner."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from pydantic import ValidationError

from notifier.departures import spread
from tests.flow.pushing import settings_for
from tests.idle import IdleClock


def test_each_leaves_once_and_evenly() -> None:
    left: dict[int, float] = {}
    with asyncio.Runner(loop_factory=IdleClock) as runner:
        loop = runner.get_loop()

        def leave(number: int) -> None:
            assert number not in left
            left[number] = loop.time()

        runner.run(spread([partial(leave, number) for number in range(400)], 0.4))
    assert sorted(left) == list(range(400))
    moments = sorted(left.values())
    assert moments[-1] - moments[0] > 0.3
    # in no tenth of the window a third of them
    assert max(sum(one <= other < one + 0.04 for other in moments) for one in moments) < 133
    assert list(left) != sorted(left)


def test_a_few_do_not_wait_for_the_window() -> None:
    left: list[int] = []
    with asyncio.Runner(loop_factory=IdleClock) as runner:
        runner.run(spread([partial(left.append, number) for number in range(3)], 3600.0))
        runner.run(spread([], 3600.0))
        assert runner.get_loop().time() < 1.0
    assert sorted(left) == [0, 1, 2]


def test_a_window_that_does_not_fit_into_the_stop_is_refused(tmp_path: Path) -> None:
    fixed = ("postgresql://x/y", "127.0.0.1:1", "", tmp_path)
    assert settings_for(*fixed, drain_window=10.0, stop_timeout=24.0).drain_window == 10.0
    with pytest.raises(ValidationError, match="SCENEWIRE_STOP_TIMEOUT must be at least twice"):
        settings_for(*fixed, drain_window=10.0)
