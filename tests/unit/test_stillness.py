"""A reader stands still when events waited for a whole look and nothing moved; never when something did."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from messaging.stillness import Standing, Stillness


def _looks(*looks: tuple[Mapping[int, int], int, Mapping[int, int]]) -> list[int]:
    """What each look (positions, batches, ends) gives."""
    stillness = Stillness()
    return [stillness.waiting(Standing(positions, batches), ends) for positions, batches, ends in looks]


def test_events_that_waited_for_a_whole_period() -> None:
    assert _looks(({0: 5, 1: 2}, 1, {0: 9, 1: 2}), ({0: 5, 1: 2}, 1, {0: 9, 1: 3})) == [0, 4]


def test_events_that_came_since_the_last_look_may_be_on_their_way() -> None:
    assert _looks(({0: 5}, 1, {0: 5}), ({0: 5}, 1, {0: 900})) == [0, 0]


def test_a_partition_that_never_got_its_position() -> None:
    assert _looks(({0: -1}, 0, {0: 3}), ({0: -1}, 0, {0: 3})) == [0, 3]
    assert _looks(({0: -1}, 0, {0: 0}), ({0: -1}, 0, {0: 0})) == [0, 0]


def test_one_partition_may_rest_while_others_go_on_but_not_for_ever() -> None:
    given_looks = [({0: 5, 1: batch}, batch, {0: 9, 1: 100}) for batch in range(10)]
    found = _looks(*given_looks)
    assert found[:6] == [0] * 6
    assert all(found[6:])


def test_what_is_forgotten_is_not_held_against_the_next() -> None:
    stillness = Stillness()
    assert stillness.waiting(Standing({0: 5}, 1), {0: 9}) == 0
    stillness.forget()
    assert stillness.waiting(Standing({0: 5}, 1), {0: 9}) == 0
    assert stillness.waiting(Standing({0: 5}, 1), {0: 9}) == 4


_offsets = st.dictionaries(st.integers(0, 3), st.integers(-1, 50), max_size=4)


@given(st.lists(st.tuples(_offsets, st.integers(0, 3), _offsets), max_size=20))
def test_nobody_who_has_read_everything_stands_still(
    looks: list[tuple[dict[int, int], int, dict[int, int]]],
) -> None:
    read = [
        (positions, batches, {p: min(end, max(0, positions.get(p, end))) for p, end in ends.items()})
        for positions, batches, ends in looks
    ]
    assert not any(_looks(*read))
