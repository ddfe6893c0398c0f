"""Status events are read the short way where they are as we write them, and give the same as the long one."""

import contextlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from notifier import events, spelling
from notifier.cursors import Cursors, Position
from notifier.events import Unreadable, read
from notifier.scopes import Latest
from schemas.errors import ErrorClass
from schemas.events import StatusEvent
from schemas.statuses import ImageStatus
from schemas.words import Stage, Status
from tests.unit.status_events import event, status

USER, CHAPTER = UUID(int=1), UUID(int=2)
WORDS = st.text(max_size=20)
MOMENTS = st.sampled_from(
    [
        None,
        "2026-02-28T23:59:59.999999+00:00",
        "2026-02-29T00:00:00+00:00",
        "2028-02-29T00:00:00+00:00",
        "2026-04-31T00:00:00+00:00",
        "2026-12-31T24:00:00+00:00",
        "2026-13-01T00:00:00+00:00",
        "2026-01-00T00:00:00+00:00",
        "2026-01-31T12:00:00.5+00:00",
        "2026-01-31T12:00:00.1234567+00:00",
        "2026-01-31T12:00:60+00:00",
        "2026-01-31T12:00:00+02:00",
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00",
        "0000-01-31T12:00:00+00:00",
    ]
)
NUMBERS = st.sampled_from([None, 0, 7, 100, 101, -1, 10**14, 10**15, 1.0, 1.5, "1", True])
IDS = st.sampled_from(
    [None, str(UUID(int=7)), str(UUID(int=0xAB)).upper(), f"{{{UUID(int=7)}}}", UUID(int=7).hex, "", 7]
)
OTHERS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("record_id", "task_id", "user_id", "chapter_id", "script_id"), IDS),
    **dict.fromkeys(("scene_number", "progress", "version", "attempt", "retry_count"), NUMBERS),
    **dict.fromkeys(("queue_position", "eta_seconds", "cost_usd"), NUMBERS),
    **dict.fromkeys(("retry_at", "created_at", "updated_at", "completed_at"), MOMENTS),
    **dict.fromkeys(("image_url", "thumbnail_url", "model_id", "error_code"), st.none() | WORDS),
    "image_type": st.sampled_from(["scene", "character", "", 'sc"ene', "Scene", None]),
    "status": st.sampled_from([*Status, "done", "", None]),
    "stage": st.sampled_from([*Stage, "waiting", None]),
    "error_class": st.sampled_from([*ErrorClass, "mine", None]),
}


FAULTS = [("specversion", "0.3"), ("id", ""), ("id", 7), ("time", "noon"), ("time", None), ("type", None)]


def rarely(draw: st.DrawFn) -> bool:
    return draw(st.integers(0, 19)) == 11


@st.composite
def told(draw: st.DrawFn) -> bytes:
    """A status event, mostly as it should be: in any order and spacing, now and then with members of others or with
    faults, so that about half of them are read the short way."""
    image = {**status(USER, CHAPTER), "error_message": draw(WORDS)}
    if rarely(draw):
        image |= {"extra": draw(st.none() | WORDS)}
    for name in draw(st.lists(st.sampled_from(sorted(OTHERS)), max_size=2)):
        image[name] = draw(OTHERS[name])
    envelope: dict[str, Any] = json.loads(event(image))
    envelope["source"] = draw(WORDS)
    if rarely(draw):
        name, value = draw(st.sampled_from(FAULTS))
        envelope[name] = value
    if rarely(draw):
        envelope["time"] = draw(MOMENTS)
    if rarely(draw):
        image[draw(st.sampled_from(["record_id", "version", "progress", "stage"]))] = draw(st.none() | WORDS)
    if rarely(draw):
        del envelope[draw(st.sampled_from(sorted(envelope)))]
    names = list(envelope)
    if draw(st.booleans()):
        names = draw(st.permutations(names))
    if rarely(draw):
        envelope[draw(st.sampled_from(["nested", "data2"]))] = {"data": {"a": draw(WORDS)}}
        names = [*names, *(name for name in envelope if name not in names)]
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : "), (", ", " : "), (",\n", ":\t")]))
    text = json.dumps({name: envelope[name] for name in names}, separators=separators, ensure_ascii=draw(st.booleans()))
    text = draw(st.sampled_from(["", " ", "\n"])) + text + draw(st.sampled_from(["", "\n"]))
    value = bytearray(text.encode())
    if draw(st.integers(0, 9)) == 7:
        value[draw(st.integers(0, len(value) - 1))] = draw(st.integers(0, 255))
    elif rarely(draw):
        value += draw(st.sampled_from([b"}", b",", b"\x00"]))
    return bytes(value)


@settings(max_examples=1_500, deadline=None)
@given(told())
def test_the_short_way_gives_what_the_long_one_does(value: bytes) -> None:
    short = events._as_we_write_it(value)
    if short is not None:
        long = events._as_anybody_may(value.decode())
        (facts, image), (others, text) = short, long
        if re.search(rb"\.\d{7}", value):
            # more digits than six are rounded by one, cut by the other
            assert facts.told_at == pytest.approx(others.told_at, abs=2e-6)
            if facts.created_at is not None and others.created_at is not None:
                assert abs(facts.created_at - others.created_at) <= timedelta(microseconds=1)
                others = replace(others, created_at=facts.created_at)
            others = replace(others, told_at=facts.told_at)
        assert (facts, image) == (others, text)


@pytest.mark.parametrize("levels", [300, 1_100, 100_000])
@pytest.mark.parametrize(
    "of",
    [
        lambda deep: b'{"data":%b' % deep,
        lambda deep: event(status(USER, CHAPTER)).replace(b'"record_id":', b'"deep": %b, "record_id":' % deep),
        lambda deep: event(status(USER, CHAPTER)).replace(b'"data":', b'"data": %b, "data":' % deep),
        lambda deep: event(status(USER, CHAPTER)).replace(b'"data":', b'"deep": %b, "data":' % deep),
    ],
    ids=["as data", "within data", "before data", "beside data"],
)
def test_what_is_nested_too_deeply_stops_nothing(of: Callable[[bytes], bytes], levels: int) -> None:
    with contextlib.suppress(Unreadable):
        read(of(b"[" * levels + b"]" * levels), b"cursor")


def test_what_is_replaced_is_not_looked_at() -> None:
    data = status(USER, CHAPTER)
    value = event(data).replace(b'"data":', b'"data": {"a": "\xff"}, "data":')
    assert json.loads(read(value, b"cursor").image) == data


def test_the_short_way_knows_each_member_by_its_name() -> None:
    assert set(spelling.Image.__struct_fields__) == set(ImageStatus.model_fields)
    assert set(spelling.Envelope.__struct_fields__) == set(StatusEvent.model_fields)


def test_no_part_of_an_event_is_anything_but_text() -> None:
    value = event(status(USER, CHAPTER)).replace(b"/scenewire/test", b"/scenewire/\xff")
    with pytest.raises(Unreadable):
        read(value, b"cursor")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"thumbnail_url": None, "cost_usd": None},
        {"chapter_id": None, "scene_number": None, "user_id": None, "created_at": None},
        {"image_type": "character", "status": "failed", "stage": "done", "error_class": "content"},
        {"error_message": 'It said "no"\n\\ / and left: Grüße, 図', "error_code": "x"},
        {"status": "completed", "version": 123_456, "completed_at": "2026-12-31T23:59:59.999999+00:00"},
    ],
)
def test_our_own_events_go_the_short_way(changes: dict[str, Any]) -> None:
    data = status(USER, CHAPTER)
    if "thumbnail_url" in changes:
        # where the outbox has it
        names = list(data)
        names.insert(names.index("image_url") + 1, "thumbnail_url")
        names.insert(names.index("model_id") + 1, "cost_usd")
        data = {name: data.get(name) for name in names}
    whole = json.loads(event({**data, **changes}))
    for separators in ((", ", " : "), (", ", ": "), (",", ":")):
        value = json.dumps(whole, separators=separators, ensure_ascii=False).encode()
        short = events._as_we_write_it(value)
        assert short is not None
        assert short == events._as_anybody_may(value.decode())


@pytest.mark.parametrize("moment", ["2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+01:00"])
def test_times_without_a_zone_are_utc_and_stop_nothing(moment: str) -> None:
    data = status(USER, CHAPTER, created_at=moment)
    found = read(event(data).replace(b'"time": "2026-01-01T00:00:00+00:00"', f'"time": "{moment}"'.encode()), b"cursor")
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    assert (found.created_at, found.told_at) == (midnight, midnight.timestamp())
    latest = Latest()
    latest.learn(found.place, found.record, 1, found.created_at, False)
    latest.learn(found.place, 9, 1, datetime(2026, 1, 2, tzinfo=UTC), True)


@pytest.mark.parametrize("extra", [{}, {"extra": 1}], ids=["short", "long"])
def test_of_a_member_that_comes_twice_the_last_one_counts(extra: dict[str, Any]) -> None:
    first, last = status(USER, CHAPTER, version=1), status(USER, CHAPTER, version=2, **extra)
    value = event(last).replace(b'"data":', f'"data": {json.dumps(first)}, "data":'.encode())
    assert (events._as_we_write_it(value) is None) == bool(extra)
    found = read(value, b"cursor")
    assert (found.version, json.loads(found.image)) == (2, last)


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
