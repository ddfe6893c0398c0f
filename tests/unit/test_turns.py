"""Whose turn it is: every lane's share, over any stretch and whatever comes and goes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.words import Lane
from storage.turns import LANE_WEIGHTS, take_turns

ALL = tuple(Lane)
# of the picks made while a lane waits: those of the others in one lap, and one more
LONGEST = {"interactive": 2, "standard": 4, "bulk": 13}


@dataclass(frozen=True)
class Due:
    lane: str
    turn: int = 1


def fresh() -> dict[str, list[int]]:
    return {lane: [0, 0] for lane in sorted(LANE_WEIGHTS)}


def pick(lanes: dict[str, list[int]], working: Sequence[str]) -> str:
    """One slot falls free, and these lanes have something for it."""
    (one,) = take_turns([Due(lane) for lane in working], lanes, 1)
    return one.lane


@pytest.mark.parametrize(
    ("working", "expected"),
    [
        (ALL, {"interactive": 8, "standard": 3, "bulk": 1}),
        (("standard", "bulk"), {"standard": 9, "bulk": 3}),
        (("interactive", "bulk"), {"interactive": 16, "bulk": 2}),
        (("bulk",), {"bulk": 12}),
    ],
)
def test_slots_are_given_by_weight(working: Sequence[str], expected: dict[str, int]) -> None:
    due = [Due(lane, turn) for lane in working for turn in range(1, 21)]
    picked = take_turns(due, fresh(), sum(expected.values()))
    assert Counter(one.lane for one in picked) == expected
    # each lane in its own order
    for lane in working:
        turns = [one.turn for one in picked if one.lane == lane]
        assert turns == list(range(1, len(turns) + 1))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=3, max_size=3))
def test_full_lanes_get_their_shares_exactly_whatever_was_before(credits: list[int]) -> None:
    lanes = {lane: [credit, 0] for lane, credit in zip(sorted(LANE_WEIGHTS), credits, strict=True)}
    for _ in range(24):
        pick(lanes, ALL)
    for _ in range(10):
        assert Counter(pick(lanes, ALL) for _ in range(12)) == {"interactive": 8, "standard": 3, "bulk": 1}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.sampled_from(sorted(LANE_WEIGHTS)), min_size=1), min_size=20, max_size=80))
def test_no_lane_waits_longer_than_a_lap_whoever_comes_and_goes(slots: list[set[str]]) -> None:
    lanes, waited = fresh(), Counter[str]()
    for working in slots:
        chosen = pick(lanes, sorted(working))
        assert chosen in working
        waited = Counter({lane: waited[lane] + 1 for lane in working if lane != chosen})
        assert all(waited[lane] <= LONGEST[lane] for lane in working), waited
        assert all(-24 <= credit <= 0 for credit, _ in lanes.values())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.sampled_from(sorted(LANE_WEIGHTS)), min_size=1), max_size=60), st.integers(1, 20))
def test_a_request_that_meets_only_bulk_gets_the_next_slot(before: list[set[str]], alone: int) -> None:
    lanes = fresh()
    for working in before:
        pick(lanes, sorted(working))
    for _ in range(alone):
        pick(lanes, ["bulk"])
    assert pick(lanes, ["bulk", "interactive"]) == "interactive"


def test_an_alternation_of_others_starves_nobody() -> None:
    lanes = fresh()
    slots = [("bulk", "standard"), ("bulk", "interactive", "standard"), ("bulk", "interactive")]
    picked = [pick(lanes, slots[number % 3]) for number in range(600)]
    at = [number for number, lane in enumerate(picked) if lane == "bulk"]
    assert all(later - earlier <= LONGEST["bulk"] for earlier, later in pairwise(at))


def test_a_lane_remembers_the_highest_turn_it_has_reached() -> None:
    lanes = fresh()
    # the retry of an early turn comes after a later one
    take_turns([Due("bulk", 7)], lanes, 1)
    take_turns([Due("bulk", 3)], lanes, 1)
    assert lanes["bulk"][1] == 7


def test_no_more_are_picked_than_there_are() -> None:
    assert take_turns([], fresh(), 5) == []
    assert len(take_turns([Due("bulk"), Due("standard")], fresh(), 5)) == 2
