"""Position and time left: the arithmetic, case by case."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from notifier.forecast import Forecast, dispatches
from schemas.words import Lane
from storage.queueing import Line, Pace, Place, Queue
from storage.reading import Standing
from storage.turns import LANE_WEIGHTS, take_turns

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EMPTY = Line((), True)
PACE = Pace(slot_held=10.0, slot_spent=10.0, whole=12.0, made=9.0, stored=2.0)


def place(turn: int, age: int = 0, number: int = 0) -> Place:
    return turn, NOON + timedelta(seconds=age), UUID(int=number)


def line(count: int, *, whole: bool = True) -> Line:
    return Line([place(turn) for turn in range(1, count + 1)], whole)


def queue(**changes: Any) -> Queue:
    """Ten wait in the standard lane; five slots, all taken two seconds apart."""
    given: dict[str, Any] = {
        "lines": {"interactive": EMPTY, "standard": line(10), "bulk": EMPTY},
        "busy": [0.0, 2.0, 4.0, 6.0, 8.0],
        "resting": [],
        "paused": False,
        "worked_on": True,
        "pace": PACE,
        "by_lane": {},
        "by_model": {},
        **changes,
    }
    return Queue(**given)


def waits(turn: int, lane: str = "standard", **changes: Any) -> Standing:
    return replace(Standing(lane, "queued", place(turn), False, None, None, None, None, None), **changes)


def being(stage: str, **changes: Any) -> Standing:
    return replace(Standing("standard", stage, None, False, "m", None, None, None, None), **changes)


class TestPosition:
    @pytest.mark.parametrize(
        ("standing", "expected"),
        [
            (waits(1), 1),
            (waits(10), 10),
            # admitted since: behind whoever has its turn and came before it
            (waits(10, place=place(10, age=1)), 11),
            (waits(10, place=place(10, age=-1)), 10),
            (waits(3, place=place(3, number=1)), 4),
            # stands in no line: not admitted, waits for its retry, is being made, is not ours
            (waits(1, place=None), None),
            (being("generating"), None),
            (waits(1, lane="of old"), None),
            (waits(1, halted=True), None),
        ],
    )
    def test_is_its_place_in_its_lane(self, standing: Standing, expected: int | None) -> None:
        assert Forecast(queue()).position(standing) == expected

    def test_is_not_told_behind_the_part_that_was_read(self) -> None:
        forecast = Forecast(queue(lines={"standard": line(10, whole=False)}))
        assert forecast.position(waits(10)) == 10
        assert forecast.position(waits(11)) is None
        assert forecast.seconds_left(waits(11)) is None

    def test_is_not_told_while_the_breaker_is_open(self) -> None:
        forecast = Forecast(queue(paused=True))
        assert (forecast.position(waits(1)), forecast.seconds_left(waits(1))) == (None, None)


class TestSecondsLeft:
    @pytest.mark.parametrize(
        ("position", "expected"),
        [
            # slots fall free after 2, 4, 6, 8 and 10 seconds, and then each every 10; a picture takes 12
            (1, 14),
            (2, 16),
            (5, 22),
            (6, 24),
            (10, 32),
        ],
    )
    def test_of_one_who_waits(self, position: int, expected: int) -> None:
        assert Forecast(queue()).seconds_left(waits(position)) == expected

    def test_is_the_pictures_own_time_where_a_slot_is_free(self) -> None:
        free = Forecast(queue(busy=[2.0], resting=[0.0, 0.0]))
        assert [free.seconds_left(waits(turn)) for turn in (1, 2, 3)] == [12, 12, 20]

    def test_allows_for_slots_that_rest(self) -> None:
        # after a rate limit: all of them, then only one that is not back before the others are used again
        assert Forecast(queue(busy=[], resting=[30.0, 31.0])).seconds_left(waits(1)) == 42
        mixed = Forecast(queue(busy=[5.0], resting=[30.0]))
        assert [mixed.seconds_left(waits(turn)) for turn in (1, 2, 3)] == [17, 27, 37]

    def test_allows_for_the_other_lanes(self) -> None:
        crowded = {"interactive": line(1000, whole=False), "standard": line(1000, whole=False), "bulk": line(10)}
        forecast = Forecast(queue(lines=crowded))
        # one in twelve goes to bulk, eight to interactive; five slots of ten seconds are one every two
        assert forecast.seconds_left(waits(10, "bulk")) == pytest.approx(120 * 2 + 12, abs=2)
        assert forecast.seconds_left(waits(8, "interactive")) == pytest.approx(12 * 2 + 12, abs=2)

    def test_allows_for_what_retries_cost(self) -> None:
        troubled = Forecast(queue(pace=replace(PACE, slot_spent=30.0)))
        assert troubled.seconds_left(waits(10)) == 10 + 30 + 12

    def test_takes_a_lanes_own_pictures_for_its_time(self) -> None:
        assert Forecast(queue(by_lane={"standard": replace(PACE, whole=40.0)})).seconds_left(waits(1)) == 42
        assert Forecast(queue(by_lane={"standard": replace(PACE, whole=None)})).seconds_left(waits(1)) == 14

    @pytest.mark.parametrize(
        ("standing", "expected"),
        [
            (being("retry_wait", retry_in=4.0), 16),
            # due before a slot falls free
            (being("retry_wait", retry_in=0.5), 14),
            (being("retry_wait", retry_in=60.0), 72),
            # due, and in its place again
            (waits(3, stage="retry_wait", retry_in=-1.0), 18),
            # its models are shut: nobody knows when one will work
            (being("retry_wait", retry_in=4.0, halted=True), None),
            (being("provider_paused", halted=True), None),
            (waits(1, place=None), None),
        ],
    )
    def test_of_one_who_waits_for_something_else(self, standing: Standing, expected: int | None) -> None:
        assert Forecast(queue()).seconds_left(standing) == expected

    @pytest.mark.parametrize(
        ("standing", "expected"),
        [
            (being("submitting", made_for=1.0), 10),
            (being("generating", made_for=4.0), 7),
            # what the provider said, if that is longer than such pictures take
            (being("generating", made_for=4.0, provider_eta=20.0), 18),
            (being("generating", made_for=4.0, provider_eta=3.0), 7),
            # overdue: another tenth, and after a while nothing
            (being("generating", made_for=12.0), 3),
            (being("generating", made_for=29.0), 3),
            (being("generating", made_for=31.0), None),
            (being("generating", made_for=100.0, provider_eta=60.0), 8),
            (being("generating"), None),
            (being("storing", stored_for=0.5), 2),
            (being("storing", stored_for=25.0), 1),
            (being("storing", stored_for=40.0), None),
            (being("storing"), None),
        ],
    )
    def test_of_one_that_is_being_made(self, standing: Standing, expected: int | None) -> None:
        assert Forecast(queue()).seconds_left(standing) == expected

    def test_goes_by_the_models_own_time(self) -> None:
        forecast = Forecast(queue(by_model={"m": replace(PACE, made=30.0)}))
        assert forecast.seconds_left(being("generating", made_for=4.0)) == 28
        assert forecast.seconds_left(being("generating", made_for=4.0, model_id="other")) == 7

    def test_of_what_is_being_made_is_known_while_the_breaker_is_open(self) -> None:
        assert Forecast(queue(paused=True)).seconds_left(being("generating", made_for=4.0)) == 7

    @pytest.mark.parametrize(
        "standing", [waits(1), being("generating", made_for=1.0), being("storing", stored_for=0.1)]
    )
    def test_is_not_known_without_a_worker_and_never_less_than_one(self, standing: Standing) -> None:
        assert Forecast(queue(worked_on=False)).seconds_left(standing) is None
        quick = replace(PACE, slot_held=0.01, slot_spent=0.01, whole=0.01, made=0.01, stored=0.01)
        assert Forecast(queue(pace=quick)).seconds_left(standing) == 1

    def test_before_the_first_attempt_only_the_provider_can_say(self) -> None:
        fresh = Forecast(queue(pace=None, busy=[], resting=[0.0]))
        assert fresh.seconds_left(waits(1)) is None
        assert fresh.seconds_left(being("generating", made_for=1.0)) is None
        assert fresh.seconds_left(being("generating", made_for=1.0, provider_eta=5.0)) == 4

    def test_without_slots_nothing_is_known(self) -> None:
        assert Forecast(queue(busy=[])).seconds_left(waits(1)) is None


class Due:
    def __init__(self, lane: str, turn: int) -> None:
        self.lane, self.turn = lane, turn


@pytest.mark.parametrize(
    "counts",
    [
        {"interactive": 200, "standard": 200, "bulk": 200},
        {"interactive": 10, "standard": 200, "bulk": 50},
        {"interactive": 0, "standard": 7, "bulk": 100},
        {"interactive": 100, "standard": 0, "bulk": 100},
        {"interactive": 0, "standard": 0, "bulk": 30},
    ],
)
def test_the_number_of_dispatches_is_what_taking_turns_comes_to(counts: dict[str, int]) -> None:
    due = [Due(lane, turn) for lane, count in counts.items() for turn in range(1, count + 1)]
    order = take_turns(due, {lane: [0, 0] for lane in sorted(LANE_WEIGHTS)}, len(due))
    ahead = {lane: (count, True) for lane, count in counts.items()}
    for number, one in enumerate(order, start=1):
        # within a lap of the lanes
        assert dispatches(one.lane, one.turn, ahead) == pytest.approx(number, abs=13)


def test_a_lane_that_was_not_read_to_its_end_does_not_end() -> None:
    ahead = {lane.value: (10, False) for lane in Lane}
    assert dispatches("bulk", 10, ahead) == 120
    assert dispatches("interactive", 8, ahead) == 12
