"""One status event as the hub hands it on: parsed once, framed once, whatever the number of its subscribers."""

import re
from datetime import UTC, datetime
from json import JSONDecoder
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from uuid import UUID

from notifier.frames import text_frame
from notifier.scopes import Key, place_of
from schemas.events import StatusEvent
from schemas.statuses import ImageStatus
from schemas.words import TERMINAL

_DECODER = JSONDecoder()
_HEAD, _CURSOR, _TAIL = b'{"type":"status","image":', b',"cursor":"', b'"}'
_WORD = rb'"[^"\\\x00-\x1f]+"'
_MAYBE = rb'(?:null|"[^"\\\x00-\x1f]*")'
# member by member as our outbox writes them; any other event is valid too, and is read the long way
_AS_WE_WRITE_IT = re.compile(
    b", ?".join(
        (
            rb'\{"specversion" ?: ?"1\.0"',
            rb'"id" ?: ?%b' % _WORD,
            rb'"source" ?: ?%b' % _WORD,
            rb'"type" ?: ?%b' % _WORD,
            rb'"subject" ?: ?%b' % _MAYBE,
            rb'"time" ?: ?"([^"\\\x00-\x1f]+)"',
            rb'"datacontenttype" ?: ?%b' % _MAYBE,
            rb'"sequence" ?: ?%b' % _MAYBE,
            rb'"partitionkey" ?: ?%b' % _MAYBE,
            rb'"traceparent" ?: ?%b' % _MAYBE,
            rb'"data" ?: ?(?=\{)',
        )
    )
)
_UP_TO_DATA = re.compile(r'\s*\{[^{]*"data"\s*:\s*(?=\{)')
_validated = ImageStatus.__pydantic_validator__.validate_json


class Unreadable(Exception):
    """The bytes are no status event."""


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

    def __init__(self, data: ImageStatus, told_at: float | None, frame: bytes, starts_at: int, ends_at: int) -> None:
        user_id, chapter_id = data.user_id, data.chapter_id
        self.record = data.record_id.int
        self.owner = None if user_id is None else user_id.int
        self.chapter = None if chapter_id is None else chapter_id.int
        self.version = data.version
        self.place = place_of(data.image_type, chapter_id, data.scene_number)
        self.scene_number = data.scene_number
        self.created_at = _aware(data.created_at)
        self.terminal = data.status in TERMINAL
        self.told_at = told_at
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
        told_at, data, image = _as_we_write_it(value) or _as_anybody_may(value.decode())
    except ValueError as error:
        # a validation error's own text quotes the input
        raise Unreadable(type(error).__name__) from None
    frame = text_frame(b"".join((_HEAD, image, _CURSOR, cursor, _TAIL)))
    ends_at = len(frame) - len(_CURSOR) - len(cursor) - len(_TAIL)
    return Event(data, told_at, frame, ends_at - len(image), ends_at)


_Told = tuple[float | None, ImageStatus, bytes]
"""When it was told, its image, and that one's own text, which is sent on without encoding it again."""


def _as_we_write_it(value: bytes) -> _Told | None:
    """Of an event as our outbox writes it: each byte is parsed once. None for any other, or one with a fault."""
    ours = _AS_WE_WRITE_IT.match(value)
    if ours is None or not value.endswith(b"}"):
        return None
    image = value[ours.end() : -1]
    try:
        # one JSON value, and so nothing but `data`; what is sent on must be text as a whole, also where nobody reads it
        if not image.isascii():
            image.decode()
        return _posix(datetime.fromisoformat(ours[1].decode())), _validated(image), image
    except ValueError:
        return None


def _as_anybody_may(text: str) -> _Told:
    """Raises ValueError for what is no status event."""
    told = StatusEvent.model_validate_json(text)
    return _posix(told.time), told.data, _raw_data(text).encode()


def _aware(moment: datetime | None) -> datetime | None:
    """One without a zone cannot be compared with those that have one."""
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _posix(moment: datetime | None) -> float | None:
    aware = _aware(moment)
    return None if aware is None else aware.timestamp()


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
