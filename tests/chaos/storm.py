"""Hundreds of pages by socket, stream and poll, each behind a cable that is cut all the time; and what they missed."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from messaging.sender import Outgoing, Sender, SendFailed
from messaging.settings import KafkaSettings
from messaging.tail import Tail
from schemas import topics
from tests.chaos.cables import Cable
from tests.chaos.pages import Page, Place, differing

KINDS = ("socket", "stream", "poll")
Images = Mapping[str, Mapping[str, Any]]
"""Record id -> its image as Postgres has it."""

_KEPT = 20_000
"""Events that may be told again."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whose pages these are."""

    user_id: UUID
    chapter_id: UUID
    token: str

    def pages(self, count: int, place: Callable[[], Callable[[], Place]]) -> list[Page]:
        """As `sockets`, with some of the chapter's by stream and by poll."""
        ways = itertools.cycle(("socket", "socket", "socket", "socket", "stream", "socket", "poll", "socket"))
        pages = self.sockets(count, place)
        for page, way in zip(pages, ways, strict=False):
            page.kind = way if "chapter_id" in page.scope else "socket"
        return pages

    def sockets(self, count: int, place: Callable[[], Callable[[], Place]]) -> list[Page]:
        """Half of them show the chapter, half all that is this user's."""
        scopes: Iterable[dict[str, Any]] = itertools.cycle(({"chapter_id": str(self.chapter_id)}, {"mine": True}))
        return [Page("socket", scope, self.token, place()) for scope in itertools.islice(scopes, count)]


@asynccontextmanager
async def watching(pages: Sequence[Page], within: float = 60.0) -> AsyncIterator[None]:
    """All of them at work, each with its first snapshot."""
    tasks = [asyncio.create_task(page.watch()) for page in pages]
    try:
        for page in pages:
            assert await page.until(lambda page=page: bool(page.resumed), within), (page.kind, page.faults)  # type: ignore[misc]
        yield
    finally:
        await _ended(tasks)


async def missing(pages: Sequence[Page], images: Images, within: float) -> list[str]:
    """What pages of one user do not show though it is theirs to show, having had so many seconds for it."""
    missed: list[str] = []
    left = asyncio.get_running_loop().time() + within
    for page in pages:

        def lacks(page: Page = page) -> list[str]:
            theirs = (one for one in images.items() if page.scope.get("chapter_id") in (None, one[1]["chapter_id"]))
            return [
                f"{page.kind} {sorted(page.scope)}: {record} at version {image['version']}: {wrong}"
                for record, image in theirs
                if (wrong := differing(image, page.seen.get(record)))
            ]

        await page.until(lambda lacks=lacks: not lacks(), max(0.0, left - asyncio.get_running_loop().time()))  # type: ignore[misc]
        missed += lacks()
    return missed


@dataclass
class Told:
    """Of all pages of one kind. `missed`: images that a page did not show at the end; `backwards`: versions that came
    after a newer one."""

    missed: int = 0
    pages: int = 0
    cuts: int = 0
    resumed: Counter[str] = field(default_factory=Counter)
    backwards: int = 0


class Storm:
    """`count` pages for each viewer, every one cut off for `down` seconds after `up` seconds; half of the cuts say
    nothing at first. They connect to one of `urls` after the other."""

    def __init__(
        self,
        urls: Sequence[str],
        viewers: Sequence[Viewer],
        chance: random.Random,
        *,
        count: int,
        up: float,
        down: float,
    ) -> None:
        self._urls = urls
        self._chance = chance
        self._up, self._down = up, down
        self._cables: list[Cable] = []
        self._pages = {viewer.user_id: viewer.pages(count, self._place) for viewer in viewers}
        self._missed: Counter[str] = Counter()

    @property
    def pages(self) -> list[Page]:
        return [page for theirs in self._pages.values() for page in theirs]

    def _place(self) -> Callable[[], Place]:
        cable = Cable(self._urls if len(self._cables) % 2 else self._urls[::-1])
        self._cables.append(cable)
        return lambda: ("127.0.0.1", cable.port)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Every page at work, on cables that are whole yet."""
        async with AsyncExitStack() as stack:
            for cable in self._cables:
                await cable.open()
                stack.push_async_callback(cable.close)
            await stack.enter_async_context(watching(self.pages))
            yield

    @asynccontextmanager
    async def raging(self) -> AsyncIterator[None]:
        """Cuts, until the end; then every cable is whole."""
        wear = [asyncio.create_task(one.wear(self._chance, up=self._up, down=self._down)) for one in self._cables]
        try:
            yield
        finally:
            await _ended(wear)
            for cable in self._cables:
                # a cut that was cut short
                cable.mend()

    async def faults(self, images: Mapping[UUID, Images], within: float = 30.0) -> list[str]:
        """By user, what is in Postgres now: what pages do not show of it within so many seconds, and all that went
        wrong before."""
        faults: list[str] = []
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        for user_id, pages in self._pages.items():
            missed = await missing(pages, images[user_id], max(0.0, until - loop.time()))
            self._missed.update(line.split()[0] for line in missed)
            faults += missed
        return faults + [f"{page.kind}: {fault}" for page in self.pages for fault in page.faults]

    def told(self) -> dict[str, Told]:
        """By kind of page."""
        told = {kind: Told(self._missed[kind]) for kind in KINDS}
        for page, cable in zip(self.pages, self._cables, strict=True):
            one = told[page.kind]
            one.pages += 1
            one.cuts += cable.cuts
            one.resumed += page.resumed
            one.backwards += page.backwards
        return told


class Repeats:
    """Status events that are told again, as a relay does that died between Kafka's answer and its own note of it."""

    def __init__(self, kafka_servers: str, chance: random.Random) -> None:
        settings = KafkaSettings(kafka_servers=kafka_servers)
        self._chance = chance
        self._tail = Tail(settings, topics.STATUS)
        self._sender = Sender(settings)
        self._told: deque[Outgoing] = deque(maxlen=_KEPT)
        self.count = 0

    @asynccontextmanager
    async def at_work(self, every: float) -> AsyncIterator[None]:
        """Up to five at a time."""
        await self._tail.start()
        await self._sender.start()
        tasks = [asyncio.create_task(one) for one in (self._listen(), self._repeat(every))]
        try:
            yield
        finally:
            await _ended(tasks)
            await self._tail.stop()
            await self._sender.discard()

    async def _listen(self) -> None:
        async for batch in self._tail.batches():
            self._told += [Outgoing(topics.STATUS, event.key, event.value) for event in batch]

    async def _repeat(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            some = self._chance.sample(self._told, min(5, len(self._told)))
            # Kafka may be away
            with contextlib.suppress(SendFailed):
                await self._sender.send(some)
                self.count += len(some)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel them. Raises what one ended with before."""
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(ended, asyncio.CancelledError):
            raise AssertionError("it came to an end by itself") from ended
