"""The subscriptions of one socket: which snapshot is still being read, and what was seen of each record."""

from collections.abc import Iterable
from uuid import UUID

from pydantic_core import to_json

from notifier.events import Event
from notifier.frames import frame_of, snapshot_frame
from notifier.scopes import Key, shows
from notifier.snapshots import Snapshot
from schemas.frames import End
from storage.reading import Image


class Subscription:
    """One `subscribe`. While its snapshot is read, `held` keeps the newest event of each record that matches it.

    `shared`: the chapter that its token shows alone, where that is a share token.
    """

    __slots__ = ("cursor_due", "held", "id", "key", "quoted", "shared", "told_at")

    def __init__(self, subscription_id: str, key: Key, shared: UUID | None = None) -> None:
        self.id = subscription_id
        self.key = key
        self.shared = shared
        self.quoted = to_json(subscription_id).decode()
        self.held: dict[UUID, Event] | None = {}
        self.cursor_due = False
        # when it last got a cursor of its own
        self.told_at = 0.0

    @property
    def end_frame(self) -> bytes:
        return frame_of(End(id=self.id))

    def is_shown(self, images: Iterable[Image]) -> bool:
        """Whether anything of its scope is known, in rows or events, that its token shows."""
        places = [image.place for image in images] + [event.place for event in (self.held or {}).values()]
        return any(shows(self.shared, place) for place in places)

    def is_told_by(self, missed: Iterable[Image]) -> bool:
        """Whether what a cursor was answered with is enough to know that."""
        return self.shared is None or self.key[0] != "record" or self.is_shown(missed)


class Subscriptions:
    """`mine`: whether any is of all that is its user's."""

    __slots__ = ("_by_id", "_by_key", "_loading", "_seen", "mine")

    def __init__(self) -> None:
        self._by_id: dict[str, Subscription] = {}
        self._by_key: dict[Key, dict[str, Subscription]] = {}
        # record (as a number: a UUID computes its hash anew, in Python, at each look) -> version
        self._seen: dict[int, int] = {}
        self._loading = 0
        self.mine = False

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, subscription: Subscription) -> bool:
        """Whether it is the first of its key."""
        self._by_id[subscription.id] = subscription
        self._loading += 1
        alike = self._by_key.setdefault(subscription.key, {})
        alike[subscription.id] = subscription
        self.mine = self.mine or subscription.key[0] == "mine"
        return len(alike) == 1

    def remove(self, subscription_id: str) -> Key | None:
        """The key that nothing is subscribed to any more."""
        subscription = self._by_id.pop(subscription_id, None)
        if subscription is None:
            return None
        if subscription.held is not None:
            self._loading -= 1
        alike = self._by_key[subscription.key]
        del alike[subscription_id]
        if alike:
            return None
        del self._by_key[subscription.key]
        if subscription.key[0] == "mine":
            self.mine = False
        if not self._by_id:
            self._seen = {}
        return subscription.key

    def holds(self, subscription: Subscription) -> bool:
        """Whether it is still there: a client may unsubscribe, or reuse its id, while the snapshot is read."""
        return self._by_id.get(subscription.id) is subscription

    def keys(self) -> Iterable[Key]:
        return self._by_key.keys()

    def live(self, key: Key) -> list[Subscription]:
        """Those of a key that have their snapshot."""
        return [one for one in self._by_key.get(key, {}).values() if one.held is None]

    def told_before(self, moment: float) -> list[Subscription]:
        """Those that have their snapshot, and no newer cursor than that."""
        return [one for one in self._by_id.values() if one.held is None and one.told_at < moment]

    def take(self, event: Event) -> bool:
        """Whether the event is to be sent now; else it was seen, or waits for a snapshot."""
        record = event.record
        wanted = not self._loading or self._hold(event)
        if event.version <= self._seen.get(record, -1) or not wanted:
            return False
        self._seen[record] = event.version
        return True

    def _hold(self, event: Event) -> bool:
        """Keep it for those whose snapshot is read; whether another subscription wants it now."""
        wanted = False
        for key in event.keys:
            for subscription in self._by_key.get(key, {}).values():
                if subscription.held is None:
                    wanted = True
                else:
                    known = subscription.held.get(event.record_id)
                    if known is None or known.version < event.version:
                        subscription.held[event.record_id] = event
        return wanted

    def settle(self, subscription: Subscription, snapshot: Snapshot) -> tuple[bytes, list[Event]]:
        """The snapshot's frame, and what is newer and still to be sent after it.

        What went out while the snapshot was read, for another subscription, takes the place of an older row in it: a
        snapshot never goes back behind what the socket has shown.
        """
        held = subscription.held or {}
        subscription.held = None
        self._loading -= 1
        later: list[Event] = []
        texts: list[str] = []
        for image in snapshot.images:
            event = held.pop(image.record_id, None)
            version, text = image.version, image.text
            if event is not None and event.version > version:
                if self._seen.get(event.record, -1) >= event.version:
                    version, text = event.version, event.image
                else:
                    later.append(event)
            if not snapshot.whole and self._seen.get(image.record_id.int, -1) > version:
                # the log was behind the rows that this socket has shown
                continue
            texts.append(text)
            if self._seen.get(image.record_id.int, -1) < version:
                self._seen[image.record_id.int] = version
        newest = {image.place: image for image in snapshot.images} if held else {}
        for event in held.values():
            if self._seen.get(event.record, -1) < event.version:
                later.append(event)
            elif snapshot.whole and _belongs(event, newest.get(event.place)):
                texts.append(event.image)
        for event in later:
            self._seen[event.record] = event.version
        return snapshot_frame(subscription.quoted, texts, snapshot.cursor, snapshot.resumed), later


def _belongs(event: Event, newest: Image | None) -> bool:
    """Whether an image that was sent, and is not among the rows, is newer than they are: the latest of its place."""
    if newest is None or newest.created_at is None or event.created_at is None:
        return newest is None
    return (event.created_at, event.record_id) > (newest.created_at, newest.record_id)
