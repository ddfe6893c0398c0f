"""The first thing a subscriber gets: all of its scope, and the position from which the rest follows."""

from dataclasses import dataclass
from uuid import UUID

from notifier.cursors import Cursors
from notifier.hub import Hub
from notifier.outlook import Outlook
from notifier.scopes import Key
from storage.reading import Image, Reader


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`cursor` was read before the rows, so that nothing lies between the two."""

    images: list[Image]
    cursor: str


class Snapshots:
    def __init__(self, reader: Reader, hub: Hub, cursors: Cursors, outlook: Outlook) -> None:
        self._reader = reader
        self._outlook = outlook
        self._hub = hub
        self._cursors = cursors

    async def take(self, key: Key) -> Snapshot:
        """Read a scope. Whoever wants what follows has joined the hub before. Raises `storage.database.Unavailable`."""
        cursor = self._cursors.write(self._hub.positions)
        images = await self._outlook.fill(await self._read(key))
        self._hub.load(key, images)
        return Snapshot(images, cursor)

    def cursor(self) -> str:
        """The position now."""
        return self._cursors.write(self._hub.positions)

    async def _read(self, key: Key) -> list[Image]:
        kind, user_id, target = key
        match kind, target:
            case "record", UUID():
                image = await self._reader.record(user_id, target)
                return [image] if image is not None else []
            case "chapter", UUID():
                return await self._reader.chapter(user_id, target)
            case _:
                return await self._reader.mine(user_id)
