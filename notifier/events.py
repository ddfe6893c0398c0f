"""One status event as the hub hands it on: parsed once, framed once, whatever the number of its subscribers."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import astuple

from notifier.frames import text_frame
from notifier.scopes import Key, place_of
from notifier.spelling import data_of, envelope_of, image_of
from schemas.events import StatusEvent
from schemas.words import TERMINAL

_HEAD, _CURSOR, _TAIL = b'{"type":"status","image":', b',"cursor":"', b'"}'


class Unreadable(Exception):
    """The bytes are no status event."""


class Told(Struct, frozen=True, gc=False):
    """What is read of one. `record`, `owner` and `chapter` are ids as numbers, `told_at` is POSIX time."""

    record: int
    owner: int | None
    chapter: int | None
    version: int
    place: str | None
    scene_number: int | None
    created_at: datetime | None
    terminal: bool
    told_at: float | None


class Event(Told, frozen=True, gc=False, eq=False):
    """`frame` is the finished WebSocket frame; the ImageStatus in it, as the event carried it, begins `starts_at`.

    Thousands of these are kept while pictures wait, so none is anything that the garbage collector looks through, and
    ids and keys are made when asked for.
    """

    frame: bytes
    starts_at: int
    ends_at: int

    def __repr__(self) -> str:
        # not what people have written
        return f"Event({self.record_id}, version {self.version})"

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
        told, image = _as_we_write_it(value) or _as_anybody_may(value.decode())
    except Exception as error:
        # ValueError and RecursionError are known. Whatever else it were, it would be raised by the same event whenever
        # the log is read again, and stop all others. A validation error's own text quotes the input
        raise Unreadable(type(error).__name__) from None
    frame = text_frame(_HEAD, image, _CURSOR, cursor, _TAIL)
    ends_at = len(frame) - len(_CURSOR) - len(cursor) - len(_TAIL)
    members: tuple[Any, ...] = (*astuple(told), frame, ends_at - len(image), ends_at)
    return Event(*members)


def _as_we_write_it(value: bytes) -> tuple[Told, bytes] | None:
    """Of an event as our outbox writes it, with its ImageStatus's own text, which is sent on without encoding it again.
    None for any other, or one with a fault."""
    try:
        envelope = envelope_of(value)
        image = image_of(envelope.data)
    except (ValueError, RecursionError):
        return None
    user, chapter = image.user_id, image.chapter_id
    told = Told(
        image.record_id.int,
        None if user is None else user.int,
        None if chapter is None else chapter.int,
        image.version,
        place_of(image.image_type, chapter, image.scene_number),
        image.scene_number,
        image.created_at,
        image.status in TERMINAL,
        envelope.time.timestamp(),
    )
    return told, bytes(envelope.data)


def _as_anybody_may(text: str) -> tuple[Told, bytes]:
    """The same. Raises ValueError for what is no status event."""
    event = StatusEvent.model_validate_json(text)
    data = event.data
    told_at = _aware(event.time)
    told = Told(
        record=data.record_id.int,
        owner=None if data.user_id is None else data.user_id.int,
        chapter=None if data.chapter_id is None else data.chapter_id.int,
        version=data.version,
        place=place_of(data.image_type, data.chapter_id, data.scene_number),
        scene_number=data.scene_number,
        created_at=_aware(data.created_at),
        terminal=data.status in TERMINAL,
        told_at=None if told_at is None else told_at.timestamp(),
    )
    return told, bytes(data_of(text).data)


def _aware(moment: datetime | None) -> datetime | None:
    """One without a zone cannot be compared with those that have one."""
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)
