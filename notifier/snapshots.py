"""The first thing a subscriber gets: all of its scope, or what it missed, and the position from which the rest follows.

Statements for the same scope are shared: who comes while one waits for its turn gets its rows, who comes while it runs
gets those of the next (its rows may be older than the moment from which he is told of changes). And only so many
scopes are read at a time, so that thousands who come back at once stand in line here and not in Postgres.
"""

import asyncio
from dataclasses import dataclass
from uuid import UUID

import structlog

from notifier.events import Event
from notifier.hub import Hub
from notifier.outlook import Outlook
from notifier.resumption import Resumed, Resumption
from notifier.scopes import Key
from storage.database import Unavailable
from storage.reading import Image, Reader
from telemetry import metrics

log = structlog.get_logger()


class Crowded(Unavailable):
    """Too many stand in line for a snapshot already."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`cursor` was read before the rows, so that nothing lies between the two.

    `resumed`: None when no cursor was given; `memory` or `log` when `images` are only what changed since it.
    """

    images: list[Image]
    cursor: str
    resumed: str | None = None

    @property
    def whole(self) -> bool:
        """Whether `images` are all of the scope."""
        return self.resumed in (None, "snapshot")


class _Reading:
    """One statement that is to come, or runs, and who waits for it."""

    def __init__(self, before: "asyncio.Task[Snapshot] | None") -> None:
        self.before = before
        self.began = False
        self.task: asyncio.Task[Snapshot]


class Snapshots:
    """`at_once` scopes are read at a time, `in_line` may wait for that."""

    def __init__(
        self,
        reader: Reader,
        hub: Hub,
        resumption: Resumption,
        outlook: Outlook,
        *,
        at_once: int,
        in_line: int,
    ) -> None:
        self._reader = reader
        self._outlook = outlook
        self._hub = hub
        self._resumption = resumption
        self._gate = asyncio.Semaphore(at_once)
        self._in_line = in_line
        self._readings: dict[Key, _Reading] = {}
        self._tasks: set[asyncio.Task[Snapshot]] = set()
        hub.unsure = self._make_sure

    async def take(self, key: Key, cursor: str | None = None) -> Snapshot:
        """Read a scope, or only what happened in it after a cursor. Whoever wants what follows has joined the hub.

        Raises `storage.database.Unavailable`.
        """
        resumed = await self._resumption.resume(key, cursor) if cursor else None
        if resumed is not None:
            return self._missed(key, resumed)
        snapshot = await self._all_of(key)
        word = "snapshot" if cursor else None
        metrics.count("snapshots", resumed=word or "none")
        return Snapshot(snapshot.images, snapshot.cursor, word)

    def at_once(self, key: Key, cursor: str) -> Snapshot | None:
        """What `take` gives, where memory has it and nothing has to be waited for; else None."""
        resumed = self._resumption.at_once(key, cursor)
        return None if resumed is None else self._missed(key, resumed)

    def _missed(self, key: Key, resumed: Resumed) -> Snapshot:
        metrics.count("snapshots", resumed=resumed.source)
        self._hub.hear(key, resumed.events)
        images = [_image_of(event) for event in resumed.events]
        return Snapshot(images, self._resumption.text(resumed.positions), resumed.source)

    def cursor(self, key: Key) -> str:
        """The position of a scope now."""
        return self._resumption.cursor(key)

    async def close(self) -> None:
        """Let go of what is still read."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _all_of(self, key: Key) -> Snapshot:
        # one who leaves must not end it for the others
        return await asyncio.shield(self._reading_of(key).task)

    def _reading_of(self, key: Key) -> _Reading:
        reading = self._readings.get(key)
        if reading is None or reading.began:
            if len(self._tasks) >= self._in_line:
                raise Crowded("Postgres: too many wait for a snapshot")
            reading = self._readings[key] = _Reading(reading.task if reading is not None else None)
            reading.task = asyncio.create_task(self._read(key, reading), name="snapshot")
            self._tasks.add(reading.task)
            reading.task.add_done_callback(self._read_through)
        return reading

    async def _read(self, key: Key, reading: _Reading) -> Snapshot:
        try:
            if reading.before is not None:
                await asyncio.wait({reading.before})
                reading.before = None
            async with self._gate:
                reading.began = True
                cursor = self.cursor(key)
                images = await self._outlook.fill(await self._rows(key))
            self._hub.load(key, images)
            return Snapshot(images, cursor)
        finally:
            if self._readings.get(key) is reading:
                del self._readings[key]

    def _read_through(self, task: "asyncio.Task[Snapshot]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # those who asked may all be gone
            task.exception()

    def _make_sure(self, key: Key) -> None:
        """All that is known of a scope has ended, and nobody has read yet whether that is all: for its `end`."""
        if key in self._readings:
            return
        try:
            self._reading_of(key)
        except Unavailable:
            # a hint is not worth standing in line for
            log.info("end_not_looked_up")

    async def _rows(self, key: Key) -> list[Image]:
        kind, owner, target = key
        user_id = UUID(int=owner)
        match kind, target:
            case "record", int():
                image = await self._reader.record(user_id, UUID(int=target))
                return [image] if image is not None else []
            case "chapter", int():
                return await self._reader.chapter(user_id, UUID(int=target))
            case _:
                return await self._reader.mine(user_id)


def _image_of(event: Event) -> Image:
    return Image(
        record_id=event.record_id,
        version=event.version,
        place=event.place,
        status=None,
        stage=None,
        created_at=event.created_at,
        text=event.image,
    )
