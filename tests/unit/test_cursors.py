"""Cursors: what is written is read again, what was touched is not."""

from hypothesis import given
from hypothesis import strategies as st

from notifier.cursors import Cursors, Position, mark_of, same_mark

OLD, NEW = b"the old secret of this deployment", b"the new secret of this deployment"
LOG = bytes(range(16))

places = st.builds(Position, st.integers(0, 2**62), st.none() | st.integers(1, 2**32 - 1))
positions = st.dictionaries(st.integers(0, 5_000), places, min_size=1, max_size=40)


def cursors_of(*secrets: bytes, log: bytes | None = LOG, partitions: int = 4) -> Cursors:
    made = Cursors(secrets)
    made.begin(log, partitions)
    return made


@given(positions)
def test_what_is_written_is_read(given_positions: dict[int, Position]) -> None:
    cursors = cursors_of(NEW)
    assert cursors.read(cursors.write(given_positions)) == given_positions


@given(st.lists(places, min_size=1, max_size=90))
def test_a_position_of_every_partition_needs_no_numbers(given_places: list[Position]) -> None:
    cursors = cursors_of(NEW, partitions=len(given_places))
    read = cursors.read(cursors.write(dict(enumerate(given_places))))
    assert read is not None
    assert [place.offset for place in read.values()] == [place.offset for place in given_places]
    assert list(read) == list(range(len(given_places)))
    for place, told in zip(given_places, read.values(), strict=True):
        assert same_mark(told.mark, place.mark)


@given(positions, st.integers(0, 10_000), st.sampled_from("AZaz09-_"))
def test_a_touched_cursor_is_none(given_positions: dict[int, Position], where: int, letter: str) -> None:
    cursors = cursors_of(NEW)
    written = cursors.write(given_positions)
    at = where % len(written)
    touched = written[:at] + letter + written[at + 1 :]
    read = cursors.read(touched)
    # the last letter of base64 holds bits that mean nothing
    assert read is None or (touched == written or at == len(written) - 1)


@given(st.one_of(st.none(), st.text(max_size=2_000)))
def test_any_other_text_is_none(text: str | None) -> None:
    assert cursors_of(NEW).read(text) is None


def test_secrets_rotate() -> None:
    place = {0: Position(17, 5)}
    before = cursors_of(OLD).write(place)
    assert cursors_of(NEW, OLD).read(before) == place
    assert cursors_of(NEW).read(before) is None
    assert cursors_of(OLD).read(cursors_of(NEW, OLD).write(place)) is None


def test_a_cursor_of_another_log_or_of_other_partitions_is_none() -> None:
    cursors = Cursors([NEW])
    place = {0: Position(17, 5)}
    unknown = cursors.write(place)
    assert cursors.read(unknown) is None
    cursors.begin(LOG, 4)
    assert cursors.read(unknown) is None
    known = cursors.write(place)
    assert cursors.read(known) == place
    # keys go elsewhere since
    cursors.begin(LOG, 5)
    assert cursors.read(known) is None
    cursors.begin(LOG[::-1], 4)
    assert cursors.read(known) is None


def test_where_kafka_does_not_tell_logs_apart_the_event_before_must() -> None:
    cursors = cursors_of(NEW, log=None)
    assert cursors.read(cursors.write({0: Position(17, 5)})) == {0: Position(17, 5)}
    assert cursors.read(cursors.write({0: Position(0, None)})) == {0: Position(0, None)}
    assert cursors.read(cursors.write({0: Position(17, None)})) is None


def test_a_cursor_of_a_hundred_partitions_stays_below_a_kilobyte() -> None:
    places = dict.fromkeys(range(100), Position(10**9, mark_of(b"an event")))
    cursors = cursors_of(NEW, partitions=100)
    written = cursors.write(places)
    assert len(written) <= 1024
    read = cursors.read(written)
    assert read is not None
    assert all(place.offset == 10**9 and same_mark(place.mark, mark_of(b"an event")) for place in read.values())
    assert not any(same_mark(place.mark, mark_of(b"another")) for place in read.values())


def test_a_cursor_of_more_partitions_than_fit_is_of_no_use() -> None:
    cursors = cursors_of(NEW, partitions=5_000)
    written = cursors.write(dict.fromkeys(range(5_000), Position(10**9, 7)))
    assert len(written) <= 1024
    assert cursors.read(written) is None
