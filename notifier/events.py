"""One status event as the hub hands it on: parsed once, framed once, whatever the number of its subscribers."""

import re
from datetime import UTC, datetime
from json import JSONDecoder
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from typing import NamedTuple
from uuid import UUID

from notifier.frames import text_frame
from notifier.scopes import Key, place_of
from notifier.spelling import AS_WE_WRITE_IT, ENDED
from schemas.events import StatusEvent
from schemas.words import TERMINAL

_DECODER = JSONDecoder()
_HEAD, _CURSOR, _TAIL = b'{"type":"status","image":', b',"cursor":"', b'"}'
_UP_TO_DATA = re.compile(r'\s*\{[^{]*"data"\s*:\s*(?=\{)')


class Unreadable(Exception):
    """The bytes are no status event."""


class Told(NamedTuple):
    """What is read of one: `image` is the ImageStatus's own text, which is sent on without encoding it again; ids are
    numbers, `told_at` is POSIX time."""

    record: int
    owner: int | None
    chapter: int | None
    version: int
    place: str | None
    scene_number: int | None
    created_at: datetime | None
    terminal: bool
    told_at: float | None
    image: bytes


class Event:
    """`frame` is the finished WebSocket frame; the ImageStatus in it, as the event carried it, begins `starts_at`.

    `record`, `owner` and `chapter` are ids as numbers, `told_at` is POSIX time. Thousands of these are kept, and each
    object more is one that the garbage collector looks through while pictures wait: so ids and keys are made when asked
    for. Not frozen: a data class that forbids assignments costs three times the making of one.
    """

    __slots__ = (
        "chapter",
        "created_at",
        "ends_at",
        "frame",
        "owner",
        "place",
        "record",
        "scene_number",
        "starts_at",
        "terminal",
        "told_at",
        "version",
    )

    def __init__(self, told: Told, frame: bytes, starts_at: int, ends_at: int) -> None:
        (
            self.record,
            self.owner,
            self.chapter,
            self.version,
            self.place,
            self.scene_number,
            self.created_at,
            self.terminal,
            self.told_at,
            _,
        ) = told
        self.frame = frame
        self.starts_at = starts_at
        self.ends_at = ends_at

    @property
    def record_id(self) -> UUID:
        return UUID(int=self.record)

    @property
    def keys(self) -> tuple[Key, ...]:
        """The scopes it belongs to; none where it has no owner."""
        owner = self.owner
        if owner is None:
            return ()
        if self.chapter is None:
            return ("record", owner, self.record), ("mine", owner, None)
        return ("record", owner, self.record), ("mine", owner, None), ("chapter", owner, self.chapter)

    @property
    def image(self) -> str:
        """The ImageStatus as text."""
        return self.frame[self.starts_at : self.ends_at].decode()

    @property
    def cursor(self) -> str:
        """The position after it."""
        return self.frame[self.ends_at + len(_CURSOR) : -len(_TAIL)].decode()


def read(value: bytes, cursor: bytes) -> Event:
    """`cursor` is the position after the event, as base64. Raises `Unreadable`."""
    try:
        told = _as_we_write_it(value) or _as_anybody_may(value.decode())
    except ValueError as error:
        # a validation error's own text quotes the input
        raise Unreadable(type(error).__name__) from None
    image = told.image
    frame = text_frame(b"".join((_HEAD, image, _CURSOR, cursor, _TAIL)))
    ends_at = len(frame) - len(_CURSOR) - len(cursor) - len(_TAIL)
    return Event(told, frame, ends_at - len(image), ends_at)


def _as_we_write_it(value: bytes) -> Told | None:
    """Of an event as our outbox writes it: each byte is looked at once. None for any other, or one with a fault."""
    ours = AS_WE_WRITE_IT.fullmatch(value)
    if ours is None:
        return None
    try:
        # it must be text as a whole, also where nobody reads it
        if not value.isascii():
            value.decode()
    except UnicodeDecodeError:
        return None
    time, image, record, user, chapter, scene, kind, status, version, created = ours.groups()
    scene_number = None if scene is None else int(scene)
    return Told(
        record=_number(record),
        owner=None if user is None else _number(user),
        chapter=None if chapter is None else _number(chapter),
        version=int(version),
        place=place_of(kind[1:-1].decode(), None if chapter is None else chapter[1:-1].decode(), scene_number),
        scene_number=scene_number,
        created_at=None if created is None else _moment(created),
        terminal=status in ENDED,
        told_at=_moment(time).timestamp(),
        image=image,
    )


def _number(quoted: bytes) -> int:
    """Of a UUID in quotes."""
    return int(quoted[1:-1].replace(b"-", b""), 16)


def _moment(quoted: bytes) -> datetime:
    return datetime.fromisoformat(quoted[1:-1].decode())


def _as_anybody_may(text: str) -> Told:
    """Raises ValueError for what is no status event."""
    told = StatusEvent.model_validate_json(text)
    data = told.data
    told_at = _aware(told.time)
    return Told(
        record=data.record_id.int,
        owner=None if data.user_id is None else data.user_id.int,
        chapter=None if data.chapter_id is None else data.chapter_id.int,
        version=data.version,
        place=place_of(data.image_type, data.chapter_id, data.scene_number),
        scene_number=data.scene_number,
        created_at=_aware(data.created_at),
        terminal=data.status in TERMINAL,
        told_at=None if told_at is None else told_at.timestamp(),
        image=_raw_data(text).encode(),
    )


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
