"""Status events are read the short way where they are as we write them, and give the same as the long one."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier import events
from notifier.cursors import Cursors, Position
from notifier.events import Unreadable, read
from notifier.scopes import Latest
from tests.unit.status_events import event, status

USER, CHAPTER = UUID(int=1), UUID(int=2)
WORDS = st.text(max_size=20)


@st.composite
def told(draw: st.DrawFn) -> str:
    """A status event, mostly as it should be: in any order and spacing, with members of others, with faults."""
    image = {**status(USER, CHAPTER), "error_message": draw(WORDS), "extra": draw(st.none() | WORDS)}
    envelope: dict[str, Any] = json.loads(event(image))
    envelope["source"] = draw(WORDS)
    for name, value in (
        ("specversion", "0.3"),
        ("id", ""),
        ("id", 7),
        ("time", "noon"),
        ("time", None),
        ("type", None),
    ):
        if draw(st.integers(0, 20)) == 0:
            envelope[name] = value
    if draw(st.integers(0, 9)) == 0:
        image[draw(st.sampled_from(["record_id", "version", "progress", "stage"]))] = draw(st.none() | WORDS)
    if draw(st.integers(0, 9)) == 0:
        del envelope[draw(st.sampled_from(sorted(envelope)))]
    names = list(envelope)
    if draw(st.booleans()):
        names = draw(st.permutations(names))
    if draw(st.integers(0, 4)) == 0:
        envelope[draw(st.sampled_from(["nested", "data2"]))] = {"data": {"a": draw(WORDS)}}
        names = [*names, *(name for name in envelope if name not in names)]
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : "), (", ", " : ")]))
    text = json.dumps({name: envelope[name] for name in names}, separators=separators, ensure_ascii=draw(st.booleans()))
    return draw(st.sampled_from(["", " ", "\n"])) + text + draw(st.sampled_from(["", "\n", "}", ","]))


@settings(max_examples=600, deadline=None)
@given(told())
def test_the_short_way_gives_what_the_long_one_does(told_text: str) -> None:
    text = told_text.encode()
    short = events._as_we_write_it(text)
    if short is not None:
        assert short == events._as_anybody_may(text.decode())


def test_our_own_events_go_the_short_way() -> None:
    assert events._as_we_write_it(event(status(USER, CHAPTER))) is not None


@pytest.mark.parametrize("moment", ["2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+01:00"])
def test_times_without_a_zone_are_utc_and_stop_nothing(moment: str) -> None:
    data = status(USER, CHAPTER, created_at=moment)
    found = read(event(data).replace(b'"time": "2026-01-01T00:00:00+00:00"', f'"time": "{moment}"'.encode()), b"cursor")
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    assert (found.created_at, found.told_at) == (midnight, midnight.timestamp())
    latest = Latest()
    latest.learn(found.place, found.record, 1, found.created_at, False)
    latest.learn(found.place, 9, 1, datetime(2026, 1, 2, tzinfo=UTC), True)


def test_no_event_is_read_from_its_beginning_alone() -> None:
    whole = event(status(USER, CHAPTER))
    for size in range(0, len(whole) - 1, 7):
        with pytest.raises(Unreadable):
            read(whole[:size], b"cursor")


@given(st.integers(0, 200), st.integers(0, 1 << 62), st.none() | st.integers(1, (1 << 32) - 1), st.integers(2, 300))
def test_the_cursor_of_one_event_is_packed_like_any(partition: int, offset: int, mark: int | None, of: int) -> None:
    cursors = Cursors([b"0123456789abcdef"])
    cursors.begin(b"a log's id", of)
    one = {partition: Position(offset, mark)}
    assert cursors.write_one(partition, *one[partition]) == cursors._signed(cursors._packed(one))
    assert cursors.read(cursors.write(one)) == one
