"""The examples' chapter index: whatever comes twice, late or broken, the same pictures stand in it."""

import json
import logging
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples import request_scene
from examples.chapter_index import COMPLETED, ChapterIndex, read
from schemas.events import COMPLETED_TYPE, RequestedEvent
from schemas.topics import BY_NAME
from schemas.topics import COMPLETED as COMPLETED_TOPIC

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "completed.v1.json"
CHAPTERS = (UUID(int=1), UUID(int=2))
RECORDS = [UUID(int=number) for number in range(10, 16)]


def _event(**data: Any) -> bytes:
    event = json.loads(GOLDEN.read_bytes())
    event["data"] |= data
    return json.dumps(event).encode()


def _completed(record: int, version: int, moved: int = 0) -> bytes:
    """One record always has one place and time; some of them share both."""
    return _event(
        record_id=str(RECORDS[record]),
        chapter_id=str(CHAPTERS[record % 2]),
        scene_number=1 + record // 4,
        created_at=f"2026-11-23T15:02:5{record // 3}.{moved}+00:00",
        version=version,
        image_url=f"https://push.example.com/{record}/{version}",
    )


def test_the_topic_and_the_event_are_scenewires() -> None:
    assert COMPLETED in BY_NAME
    assert COMPLETED == COMPLETED_TOPIC == COMPLETED_TYPE
    assert request_scene.TOPIC in BY_NAME
    picture = read(GOLDEN.read_bytes())
    assert picture is not None
    assert (picture.scene_number, picture.version) == (9, 5)


def test_a_request_is_one_that_scenewire_accepts() -> None:
    record, user, chapter = (str(uuid4()) for _ in range(3))
    event = RequestedEvent.model_validate_json(request_scene.event_of(record, user, chapter, 3, "a long table"))
    assert event.subject == str(event.data.record_id) == record
    assert (str(event.data.user_id), str(event.data.chapter_id), event.data.scene_number) == (user, chapter, 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_any_order_and_number_of_repetitions_leave_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    told = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=12), "told")
    again = data.draw(st.lists(st.sampled_from(told), max_size=8), "again")
    mixed = data.draw(st.permutations([*told, *again]), "mixed")
    cut = data.draw(st.integers(0, len(mixed)), "cut")
    straight = ChapterIndex(tmp_path_factory.mktemp("straight"))
    straight.keep([_completed(*one) for one in sorted(set(told))])
    crooked = ChapterIndex(tmp_path_factory.mktemp("crooked"))
    # a crash between two batches: the first comes again
    crooked.keep([_completed(*one) for one in mixed[:cut]])
    crooked.keep([_completed(*one) for one in mixed])
    for chapter in CHAPTERS:
        assert crooked.scenes(chapter) == straight.scenes(chapter)
        for number, scene in straight.scenes(chapter).items():
            rivals = [one for one in told if CHAPTERS[one[0] % 2] == chapter and 1 + one[0] // 4 == int(number)]
            record, version = max(rivals, key=lambda one: (one[0] // 3, one[0], one[1]))
            assert (scene["record_id"], scene["version"]) == (str(RECORDS[record]), version)
    assert crooked.keep([_completed(*one) for one in mixed]) == 0


def test_what_is_no_scene_is_passed_over_and_what_cannot_be_read_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = ChapterIndex(tmp_path)
    broken = [b"", b"\xff", b"[]", b"null", b"{}", b"[" * 100_000, _event(chapter_id="../../etc/passwd")]
    broken += [_event(created_at="soon"), _event(version=None), b'{"specversion": "1.0", "type": "another"}']
    others = [_event(image_type="character"), _event(chapter_id=None), _event(scene_number=None)]
    with caplog.at_level(logging.WARNING):
        assert index.keep([*broken, *others, _completed(0, 1)]) == 1
    assert len(caplog.records) == len(broken)
    assert [path.name for path in tmp_path.iterdir()] == [f"{CHAPTERS[0]}.json"]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    index = ChapterIndex(tmp_path / "chapters")
    (tmp_path / "chapters").rmdir()
    with pytest.raises(OSError, match="No such file"):
        index.keep([_completed(0, 1)])
    (tmp_path / "chapters").mkdir()
    assert index.keep([_completed(0, 1)]) == 1
