"""Snapshot, then what is newer: no interleaving of the two loses a change, repeats one or goes back."""

import json
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from hypothesis import example, given, settings
from hypothesis import strategies as st

from notifier.events import Event, read
from notifier.scopes import chapter_key, mine_key
from notifier.snapshots import Snapshot
from notifier.subscriptions import Subscription, Subscriptions
from storage.reading import Image
from tests.unit.status_events import event, status

USER, CHAPTER = uuid4(), uuid4()
CHAPTER_KEY, MINE_KEY = chapter_key(USER, CHAPTER), mine_key(USER)
RECORDS = [uuid4() for _ in range(3)]


def data(record: int, version: int) -> dict[str, Any]:
    return status(USER, CHAPTER, record + 1, record=RECORDS[record], age=record, version=version)


def told(record: int, version: int) -> Event:
    return read(event(data(record, version)), b"c")


def rows(versions: dict[int, int]) -> Snapshot:
    images = []
    for record, version in versions.items():
        row = data(record, version)
        place = f"{CHAPTER}/{record + 1}"
        created_at = datetime.fromisoformat(row["created_at"])
        images.append(Image(RECORDS[record], version, place, row["status"], row["stage"], created_at, json.dumps(row)))
    return Snapshot(images, "cursor")


def missed(versions: dict[int, int]) -> Snapshot:
    """What a cursor was answered with."""
    return replace(rows(versions), resumed="memory")


def shown(frame: bytes) -> dict[UUID, int]:
    """Versions in a snapshot frame, by record."""
    body = json.loads(frame[frame.index(b"{") :])
    assert body["type"] == "snapshot"
    found = [(UUID(image["record_id"]), image["version"]) for image in body["images"]]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_what_comes_while_the_snapshot_is_read_follows_it_if_newer() -> None:
    subscriptions = Subscriptions()
    one = Subscription("s", CHAPTER_KEY)
    assert subscriptions.add(one)
    assert not subscriptions.take(told(0, 2))
    assert not subscriptions.take(told(0, 3))
    assert not subscriptions.take(told(1, 1))
    frame, later = subscriptions.settle(one, rows({0: 2, 1: 4}))
    assert shown(frame) == {RECORDS[0]: 2, RECORDS[1]: 4}
    assert [(event.record_id, event.version) for event in later] == [(RECORDS[0], 3)]
    assert not subscriptions.take(told(0, 3))
    assert not subscriptions.take(told(1, 4))
    assert subscriptions.take(told(1, 5))


def test_a_second_snapshot_never_goes_back_behind_what_was_sent() -> None:
    subscriptions = Subscriptions()
    first, second = Subscription("a", CHAPTER_KEY), Subscription("b", MINE_KEY)
    subscriptions.add(first)
    subscriptions.settle(first, rows({0: 1}))
    subscriptions.add(second)
    # the first one wants it now; the rows of the second were read before
    assert subscriptions.take(told(0, 2))
    assert subscriptions.take(told(1, 1))
    frame, later = subscriptions.settle(second, rows({0: 1}))
    assert shown(frame) == {RECORDS[0]: 2, RECORDS[1]: 1}
    assert later == []


def test_what_a_second_one_missed_never_goes_back_behind_what_was_sent() -> None:
    subscriptions = Subscriptions()
    first, second = Subscription("a", CHAPTER_KEY), Subscription("b", MINE_KEY)
    subscriptions.add(first)
    # rows may be ahead of the log
    subscriptions.settle(first, rows({0: 3, 1: 2}))
    subscriptions.add(second)
    assert not subscriptions.take(told(0, 2))
    frame, later = subscriptions.settle(second, missed({0: 2, 1: 2}))
    assert shown(frame) == {RECORDS[1]: 2}
    assert later == []
    assert subscriptions.take(told(0, 4))


def test_nothing_is_added_to_what_a_cursor_missed() -> None:
    subscriptions = Subscriptions()
    first, second = Subscription("a", CHAPTER_KEY), Subscription("b", MINE_KEY)
    subscriptions.add(first)
    subscriptions.settle(first, rows({}))
    subscriptions.add(second)
    # the first one got it: the page has it
    assert subscriptions.take(told(0, 1))
    assert not subscriptions.take(told(0, 1))
    frame, later = subscriptions.settle(second, missed({}))
    assert shown(frame) == {}
    assert later == []


def test_an_id_may_be_used_again_and_left_while_its_snapshot_is_read() -> None:
    subscriptions = Subscriptions()
    first = Subscription("s", CHAPTER_KEY)
    subscriptions.add(first)
    assert subscriptions.remove("s") == CHAPTER_KEY
    again = Subscription("s", CHAPTER_KEY)
    assert subscriptions.add(again)
    assert not subscriptions.holds(first)
    assert subscriptions.holds(again)
    assert subscriptions.remove("s") == CHAPTER_KEY
    assert subscriptions.remove("s") is None
    assert len(subscriptions) == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.integers(0, 2)),
        st.tuples(st.just("deliver"), st.integers(0, 2)),
        st.tuples(st.just("again"), st.integers(0, 2)),
        st.tuples(st.just("subscribe"), st.sampled_from([0, 1])),
        st.tuples(st.just("read"), st.sampled_from([0, 1])),
        st.tuples(st.just("show"), st.sampled_from([0, 1])),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@example([("change", 0), ("subscribe", 1), ("read", 1), ("change", 0), ("show", 0), ("show", 1)])
@given(steps)
def test_what_a_socket_shows_ends_as_the_table_and_versions_only_rise(taken: list[tuple[str, int]]) -> None:
    """`change` commits, `deliver` brings the next event of a record in order, `again` repeats the last one; a
    subscription is made, its rows are read, and it is shown, with anything in between."""
    table: dict[int, int] = {}
    delivered: dict[int, int] = {}
    subscriptions = Subscriptions()
    made: dict[int, Subscription] = {}
    reading: dict[int, Snapshot] = {}
    finished: set[int] = set()
    view: dict[UUID, int] = {}

    def offer(event: Event) -> None:
        if subscriptions.take(event):
            send(event)

    def send(event: Event) -> None:
        assert view.get(event.record_id, -1) < event.version
        view[event.record_id] = event.version

    def bring(record: int) -> None:
        if delivered.get(record, 0) < table.get(record, 0):
            delivered[record] = delivered.get(record, 0) + 1
            offer(told(record, delivered[record]))

    def subscribe(which: int) -> None:
        if which not in made:
            made[which] = Subscription(str(which), CHAPTER_KEY if which == 0 else MINE_KEY)
            subscriptions.add(made[which])

    def show(which: int) -> None:
        subscribe(which)
        for other in [other for other in reading if other != which]:
            # a connection reads one snapshot at a time
            show(other)
        if which in finished:
            return
        finished.add(which)
        frame, later = subscriptions.settle(made[which], reading.pop(which, None) or rows(table))
        snapshot = shown(frame)
        for record, version in view.items():
            # a client may put the snapshot in the place of all that it knew
            assert snapshot.get(record, -1) >= version
        view.update(snapshot)
        for newer in later:
            send(newer)

    for step, which in taken:
        match step:
            case "change":
                table[which] = table.get(which, 0) + 1
            case "deliver":
                bring(which)
            case "again" if which in delivered:
                offer(told(which, delivered[which]))
            case "subscribe":
                subscribe(which)
            case "read" if which in made and which not in finished and not reading:
                reading[which] = rows(table)
            case "show":
                show(which)
    for which in (0, 1):
        show(which)
    for record in table:
        while delivered.get(record, 0) < table[record]:
            bring(record)
    assert view == {RECORDS[record]: version for record, version in table.items()}
