"""The hub: who gets an event, when a scope has ended, and what is known to be newer than a cursor."""

import json
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from notifier.events import Event, Unreadable, read
from notifier.hub import Hub
from notifier.scopes import Key, chapter_key, mine_key, record_key
from storage.reading import Image
from tests.unit.status_events import event, status


class Watcher:
    def __init__(self) -> None:
        self.got: list[tuple[UUID, int]] = []
        self.ends: list[Key] = []

    def offer(self, event: Event) -> None:
        self.got.append((event.record_id, event.version))

    def ended(self, key: Key) -> None:
        self.ends.append(key)


class Broken(Watcher):
    def offer(self, event: Event) -> None:
        raise RuntimeError("a listener with a fault")


USER, STRANGER, CHAPTER = uuid4(), uuid4(), uuid4()


def told(data: dict[str, Any]) -> Event:
    return read(event(data), b"cursor")


def image(data: dict[str, Any]) -> Image:
    return Image(
        record_id=UUID(data["record_id"]),
        version=data["version"],
        place=f"{data['chapter_id']}/{data['scene_number']}",
        status=data["status"],
        stage=data["stage"],
        created_at=datetime.fromisoformat(data["created_at"]),
        text="{}",
    )


def test_an_event_reaches_the_scopes_of_its_owner_and_no_other() -> None:
    hub = Hub()
    data = status(USER, CHAPTER)
    record = UUID(data["record_id"])
    keys = {
        "record": record_key(USER, record),
        "chapter": chapter_key(USER, CHAPTER),
        "mine": mine_key(USER),
        "stranger's record": record_key(STRANGER, record),
        "stranger's chapter": chapter_key(STRANGER, CHAPTER),
        "stranger's own": mine_key(STRANGER),
        "another chapter": chapter_key(USER, uuid4()),
    }
    watchers = {name: Watcher() for name in keys}
    for name, key in keys.items():
        hub.join(key, watchers[name])
    hub.publish(told(data))
    assert {name for name, watcher in watchers.items() if watcher.got} == {"record", "chapter", "mine"}


def test_who_left_hears_nothing() -> None:
    hub, watcher = Hub(), Watcher()
    key = chapter_key(USER, CHAPTER)
    hub.join(key, watcher)
    hub.leave(key, watcher)
    hub.leave(key, watcher)
    hub.publish(told(status(USER, CHAPTER)))
    assert watcher.got == []


def test_a_broken_listener_keeps_nothing_from_the_others() -> None:
    hub, watcher = Hub(), Watcher()
    key = chapter_key(USER, CHAPTER)
    hub.join(key, Broken())
    hub.join(key, watcher)
    hub.publish(told(status(USER, CHAPTER)))
    assert len(watcher.got) == 1


def test_an_event_without_owner_reaches_nobody() -> None:
    hub, watcher = Hub(), Watcher()
    hub.join(chapter_key(USER, CHAPTER), watcher)
    hub.publish(told({**status(USER, CHAPTER), "user_id": None}))
    assert watcher.got == []


def test_end_comes_each_time_that_all_latest_have_become_terminal() -> None:
    hub, watcher = Hub(), Watcher()
    key = chapter_key(USER, CHAPTER)
    first, second = status(USER, CHAPTER, 1), status(USER, CHAPTER, 2)
    hub.join(key, watcher)
    hub.publish(told(first))
    hub.load(key, [image(first), image(second)])
    assert not hub.finished(key)
    hub.publish(told({**first, "status": "completed", "version": 2}))
    assert watcher.ends == []
    hub.publish(told({**second, "status": "failed", "version": 2}))
    assert watcher.ends == [key]
    again = status(USER, CHAPTER, 1, age=5)
    hub.publish(told(again))
    assert not hub.finished(key)
    hub.publish(told({**again, "status": "cancelled", "version": 2}))
    assert watcher.ends == [key, key]
    # a late change of an older request says nothing about the latest
    hub.publish(told({**first, "status": "in_progress", "version": 3}))
    assert hub.finished(key)


def test_an_empty_scope_and_one_without_snapshot_have_not_ended() -> None:
    hub, watcher = Hub(), Watcher()
    key = chapter_key(USER, CHAPTER)
    hub.join(key, watcher)
    hub.publish(told(status(USER, CHAPTER, status="completed")))
    assert watcher.ends == []
    assert not hub.finished(key)
    hub.load(key, [])
    assert hub.finished(key)
    other = chapter_key(USER, uuid4())
    hub.join(other, watcher)
    hub.load(other, [])
    assert not hub.finished(other)


def test_an_old_event_does_not_open_what_a_snapshot_closed() -> None:
    hub, watcher = Hub(), Watcher()
    key = chapter_key(USER, CHAPTER)
    data = status(USER, CHAPTER)
    hub.join(key, watcher)
    hub.load(key, [image({**data, "status": "completed", "version": 3})])
    hub.publish(told({**data, "version": 2}))
    assert hub.finished(key)


def test_the_end_of_a_scope_without_snapshot_is_looked_up_for_who_goes_on_in_it() -> None:
    hub, watcher, asked = Hub(), Watcher(), list[Key]()
    hub.unsure = asked.append
    key = chapter_key(USER, CHAPTER)
    data = status(USER, CHAPTER)
    hub.join(key, watcher)
    # nobody goes on from a cursor
    hub.publish(told({**data, "status": "completed", "version": 2}))
    assert asked == []
    hub.hear(key, [told({**data, "version": 3})])
    assert asked == []
    hub.publish(told({**data, "status": "completed", "version": 4}))
    assert asked == [key]
    assert watcher.ends == []
    hub.load(key, [image({**data, "status": "completed", "version": 4})])
    assert watcher.ends == [key]
    hub.load(key, [image({**data, "status": "completed", "version": 4})])
    assert watcher.ends == [key]


def test_of_one_record_nothing_has_to_be_looked_up() -> None:
    hub, watcher = Hub(), Watcher()
    data = status(USER, CHAPTER)
    key = record_key(USER, UUID(data["record_id"]))
    hub.join(key, watcher)
    hub.hear(key, [])
    assert not hub.finished(key)
    hub.hear(key, [told({**data, "status": "completed", "version": 2})])
    assert hub.finished(key)


def test_reading_gives_the_image_as_it_was_written() -> None:
    data = status(USER, CHAPTER, error_message='a "quoted" \\ tail, with {braces}: é')
    raw = event(data).replace(b'"data": ', b'"data"\n :\t')
    found = read(raw, b"c")
    assert found.image in raw.decode()
    assert found.image.startswith('{"record_id"')
    assert found.image.endswith("}")
    assert f'"image":{found.image},"cursor":"c"}}'.encode() in found.frame


def test_a_data_member_inside_of_data_is_not_taken_for_it() -> None:
    data = {"data": {"data": 1}, **status(USER, CHAPTER)}
    assert read(event(data), b"c").image.startswith('{"data": {"data": 1}')


def test_data_is_found_wherever_it_stands() -> None:
    data = status(USER, CHAPTER)
    envelope = json.loads(event(data))
    for odd in ({"a": {"data": {}}}, {"a": '"data": {'}, {"a": "{"}, {"data": data, "z": [{"data": {}}]}):
        changed = {**odd, **{name: value for name, value in envelope.items() if name not in odd}}
        assert json.loads(read(json.dumps(changed).encode(), b"c").image) == data


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"specversion": "1.0"',
        event(status(USER, CHAPTER))[:-1],
        event({**status(USER, CHAPTER), "status": "sleeping"}),
        event({**status(USER, CHAPTER), "version": "new"}),
    ],
)
def test_what_is_no_status_event_is_unreadable(value: bytes) -> None:
    with pytest.raises(Unreadable):
        read(value, b"c")
