"""What can be watched, and what all who watch the same have in common: whether its latest images are all terminal."""

from datetime import UTC, datetime
from uuid import UUID

Key = tuple[str, int, int | None]
"""A scope and its owner: what is subscribed to, and under what an event is looked up. Ids stand as numbers in it, for a
UUID computes its hash anew, in Python, at each look."""

_EARLIEST = datetime.min.replace(tzinfo=UTC)

_Known = tuple[datetime | None, int, int, bool]
"""The newest of a place: when it was asked for, the record's number, its version, and whether that is terminal."""


def record_key(user_id: UUID, record_id: UUID) -> Key:
    return ("record", user_id.int, record_id.int)


def mine_key(user_id: UUID) -> Key:
    return ("mine", user_id.int, None)


def chapter_key(user_id: UUID, chapter_id: UUID) -> Key:
    return ("chapter", user_id.int, chapter_id.int)


def reaches(shared: UUID | None, key: Key) -> bool:
    """Whether a token that shows the chapter `shared` alone (None: all that its user has) may watch a scope.

    Of a record it is known only once that is read: see `shows`.
    """
    kind, _, target = key
    return shared is None or kind == "record" or (kind == "chapter" and target == shared.int)


def shows(shared: UUID | None, place: str | None) -> bool:
    """Whether such a token shows an image of this place."""
    # rows of the old system may have it in capitals
    return shared is None or (place is not None and place.partition("/")[0].lower() == str(shared))


def place_of(image_type: str, chapter_id: UUID | None, scene_number: int | None) -> str | None:
    """Where an image belongs: the same text that `storage.reading` gives."""
    if image_type != "scene" or chapter_id is None or scene_number is None:
        return None
    # !s: formatting a UUID costs twice what its text does
    return f"{chapter_id!s}/{scene_number}"


class Latest:
    """`latest` of each place of one scope, as far as it was told."""

    __slots__ = ("_open", "_places", "heard", "loaded")

    def __init__(self) -> None:
        # place, or the record's number where it has none -> the newest that is known of it
        self._places: dict[str | int, _Known] = {}
        self._open = 0
        self.loaded = False
        """Whether a snapshot was read: before that the scope may hold more than is known here."""
        self.heard = False
        """Whether somebody goes on in it without a snapshot, and is to hear of its end all the same."""

    @property
    def finished(self) -> bool:
        """It holds at least one image, and all of its latest are terminal."""
        return self.loaded and self._open == 0 and bool(self._places)

    @property
    def perhaps_finished(self) -> bool:
        """As far as it is known; whether that is all is not."""
        return self.heard and not self.loaded and self._open == 0 and bool(self._places)

    def learn(self, place: str | None, record: int, version: int, created_at: datetime | None, terminal: bool) -> None:
        """Take one image in, unless it is older than what is known. Requests are in order of time, then of their id
        (`record`, as a number)."""
        spot = place or record
        known = self._places.get(spot)
        if known is not None:
            _, other, older_than, was_terminal = known
            if record == other:
                if version < older_than:
                    return
            elif (created_at or _EARLIEST, record) < (known[0] or _EARLIEST, other):
                return
            self._open -= not was_terminal
        self._places[spot] = (created_at, record, version, terminal)
        self._open += not terminal
