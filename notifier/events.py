"""One status event as the hub hands it on: parsed once, framed once, whatever the number of its subscribers."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from json import JSONDecoder
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from uuid import UUID

from pydantic_core import from_json

from notifier.frames import text_frame
from notifier.scopes import Key, chapter_key, mine_key, place_of, record_key
from schemas.events import StatusEvent
from schemas.statuses import ImageStatus

_DECODER = JSONDecoder()
_HEAD, _CURSOR, _TAIL = '{"type":"status","image":', ',"cursor":"', '"}'
# as our outbox writes it: nothing nested stands before `data` (a quote inside of a string has a backslash before it)
_UP_TO_DATA = re.compile(r'\s*\{[^{]*"data"\s*:\s*(?=\{)')


class Unreadable(Exception):
    """The bytes are no status event."""


# not frozen: what forbids an assignment costs three times the making of one
@dataclass(slots=True, eq=False)
class Event:
    """`frame` is the finished WebSocket frame; the ImageStatus in it, as the event carried it, begins `starts_at`."""

    record_id: UUID
    version: int
    place: str | None
    scene_number: int | None
    created_at: datetime | None
    terminal: bool
    told_at: datetime | None
    keys: tuple[Key, ...]
    frame: bytes
    starts_at: int
    ends_at: int

    @property
    def image(self) -> str:
        """The ImageStatus as text."""
        return self.frame[self.starts_at : self.ends_at].decode()

    @property
    def cursor(self) -> str:
        """The position after it."""
        return self.frame[self.ends_at + len(_CURSOR) : -len(_TAIL)].decode()


def read(value: bytes, cursor: str) -> Event:
    """`cursor` is the position after the event. Raises `Unreadable`."""
    try:
        text = value.decode()
        told_at, data, image = _as_we_write_it(text) or _as_anybody_may(text)
    except ValueError as error:
        # a validation error's own text quotes the input
        raise Unreadable(type(error).__name__) from None
    keys: list[Key] = []
    if data.user_id is not None:
        keys = [record_key(data.user_id, data.record_id), mine_key(data.user_id)]
        if data.chapter_id is not None:
            keys.append(chapter_key(data.user_id, data.chapter_id))
    frame = text_frame(f"{_HEAD}{image}{_CURSOR}{cursor}{_TAIL}")
    ends_at = len(frame) - len(_CURSOR) - len(cursor) - len(_TAIL)
    return Event(
        record_id=data.record_id,
        version=data.version,
        place=place_of(data.image_type, data.chapter_id, data.scene_number),
        scene_number=data.scene_number,
        created_at=_aware(data.created_at),
        terminal=data.status.terminal,
        told_at=_aware(told_at),
        keys=tuple(keys),
        frame=frame,
        starts_at=ends_at - len(image.encode()),
        ends_at=ends_at,
    )


_Told = tuple[datetime | None, ImageStatus, str]
"""When it was told, its image, and that one's own text, which is sent on without encoding it again."""


def _as_we_write_it(text: str) -> _Told | None:
    """Of an event whose last member is `data`: each byte is parsed once. None for any other, or one with a fault."""
    usual = _UP_TO_DATA.match(text)
    if usual is None or text[-1] != "}":
        return None
    start = usual.end()
    image = text[start:-1]
    try:
        # one JSON value, and so nothing but `data`
        data = ImageStatus.model_validate_json(image)
        envelope = from_json(text[:start] + "null}")
        for member in ("id", "source", "type"):
            if not envelope[member] or not isinstance(envelope[member], str):
                return None
        if envelope["specversion"] != "1.0":
            return None
        return datetime.fromisoformat(envelope["time"]), data, image
    except (ValueError, KeyError, TypeError):
        return None


def _as_anybody_may(text: str) -> _Told:
    """Raises ValueError for what is no status event."""
    told = StatusEvent.model_validate_json(text)
    return told.time, told.data, _raw_data(text)


def _aware(moment: datetime | None) -> datetime | None:
    """One without a zone cannot be compared with those that have one."""
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _raw_data(text: str) -> str:
    """The text of the member `data` of an object that is known to be valid JSON: sent on without encoding it again."""
    usual = _UP_TO_DATA.match(text)
    if usual is not None:
        return text[usual.end() : _DECODER.raw_decode(text, usual.end())[1]]
    at = text.index("{") + 1
    while True:
        name, at = _DECODER.raw_decode(text, _skip(text, at))
        start = _skip(text, _skip(text, at) + 1)
        _, at = _DECODER.raw_decode(text, start)
        if name == "data":
            return text[start:at]
        at = _skip(text, at) + 1


def _skip(text: str, at: int) -> int:
    found = WHITESPACE.match(text, at)
    return int(found.end())
