"""Hundreds of pages whose lines are cut, notifiers killed and told to stop, Kafka restarted, events told twice: each
page ends as Postgres has it, and no version goes back."""

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import jwt
import pytest
from pydantic_core import from_json

from messaging.sender import Outgoing, Sender, SendFailed
from messaging.settings import KafkaSettings
from messaging.tail import Tail
from schemas import topics
from schemas.requests import SceneImageRequest
from schemas.words import Tier
from storage.accepting import Acceptor, NewRequest
from storage.database import Database, Unavailable
from storage.fragments import STATUS_JSON
from tests.chaos.books import until
from tests.chaos.cables import Cable
from tests.chaos.pages import Page, Place
from tests.chaos.street import SECRET, Street

pytestmark = [pytest.mark.chaos, pytest.mark.connected]

_USERS = 30
_RECORDS = f"SELECT id, user_id, chapter_id, version, status, {STATUS_JSON} AS body FROM image_generations g"
_OPEN = "SELECT FROM image_generations WHERE user_id = ANY($1) AND status IN ('pending', 'in_progress') LIMIT 1"
_OUTBOX = "SELECT FROM outbox LIMIT 1"
_MINE: dict[str, Any] = {"mine": True}
_SHOWN = ("status", "stage", "version", "image_url")


@dataclass
class User:
    """One who asks for scenes of one chapter, and has ten pages open."""

    user_id: UUID = field(default_factory=uuid4)
    chapter_id: UUID = field(default_factory=uuid4)
    asked: int = 0
    #: the records that were accepted
    accepted: set[UUID] = field(default_factory=set)

    def __post_init__(self) -> None:
        claims = {"sub": str(self.user_id), "exp": time.time() + 3600}
        self.token = jwt.encode(claims, SECRET, algorithm="HS256")

    def pages(self, count: int, place: Callable[[], Callable[[], Place]]) -> list[Page]:
        chapter = {"chapter_id": str(self.chapter_id)}
        ways = itertools.cycle(("socket", "socket", "socket", "socket", "stream", "socket", "poll", "socket"))
        pages = self.sockets(count, place)
        for page, way in zip(pages, ways, strict=False):
            page.kind = way if page.scope == chapter else "socket"
        return pages

    def sockets(self, count: int, place: Callable[[], Callable[[], Place]]) -> list[Page]:
        """Half of them show the chapter, half all that is this user's."""
        scopes = itertools.cycle(({"chapter_id": str(self.chapter_id)}, _MINE))
        return [Page("socket", scope, self.token, place()) for scope in itertools.islice(scopes, count)]

    def request(self) -> NewRequest:
        self.asked += 1
        body = SceneImageRequest(scene_description="a table under a tree")
        return NewRequest(uuid4(), self.user_id, self.chapter_id, self.asked, body, Tier.PREMIUM)


@asynccontextmanager
async def watching(pages: Sequence[Page], within: float = 60.0) -> AsyncIterator[None]:
    """All of them at work, each with its first snapshot."""
    tasks = [asyncio.create_task(page.watch()) for page in pages]
    try:
        for page in pages:
            assert await page.until(lambda page=page: bool(page.resumed), within), (page.kind, page.faults)  # type: ignore[misc]
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                raise AssertionError("a page came to an end") from ended  # type: ignore[misc]


async def differing(
    database: Database, users: Sequence[User], pages: Sequence[Page], *, ended: bool = True
) -> list[str]:
    """Wait until all has been sent (and `ended`), and until the pages show it; what they do not show then."""
    ids = [user.user_id for user in users]

    async def all_told() -> bool:
        return not (ended and await database.fetch(_OPEN, ids)) and not await database.fetch(_OUTBOX)

    assert await until(all_told, 60.0)
    rows = await database.fetch(f"{_RECORDS} WHERE user_id = ANY($1)", ids)
    theirs: dict[UUID, dict[str, dict[str, Any]]] = {user.user_id: {} for user in users}
    for row in rows:
        theirs[row.user_id][str(row.id)] = {**from_json(row.body), "status": row.status}
    for user in users:
        assert {str(record_id) for record_id in user.accepted} <= theirs[user.user_id].keys()

    def lacks(page: Page, records: dict[str, dict[str, Any]]) -> list[str]:
        return [
            f"{page.kind} {sorted(page.scope)}: {record} is {page.seen.get(record)}"
            for record, image in records.items()
            if record not in page.seen or any(page.seen[record][name] != image[name] for name in _SHOWN)
        ]

    by_token = {user.token: user for user in users}
    faults: list[str] = []
    loop = asyncio.get_running_loop()
    patience = loop.time() + 30.0
    for page in pages:
        records = theirs[by_token[page.token].user_id]
        left = max(0.0, patience - loop.time())
        await page.until(lambda page=page, records=records: not lacks(page, records), left)  # type: ignore[misc]
        faults += lacks(page, records) + page.faults
    return faults


class Load:
    """Scenes that are asked for, and status events that are told again."""

    def __init__(self, street: Street, database: Database, users: Sequence[User], chance: random.Random) -> None:
        self._users = users
        self._chance = chance
        self._acceptor = Acceptor(database, deadline=3600)
        settings = KafkaSettings(kafka_servers=street.kafka.servers)
        self._tail = Tail(settings, topics.STATUS)
        self._sender = Sender(settings)
        self._told: list[Outgoing] = []
        self.repeated = 0

    async def ask(self, every: float) -> None:
        """Until cancelled, one after another."""
        while True:
            user = self._chance.choice(self._users)
            request = user.request()
            while True:
                try:
                    user.accepted.add((await self._acceptor.accept(request)).record_id)
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(every)

    async def begin(self) -> None:
        await self._tail.start()
        await self._sender.start()

    async def listen(self) -> None:
        """Until cancelled: keep what is told."""
        async for batch in self._tail.batches():
            self._told += [Outgoing(topics.STATUS, event.key, event.value) for event in batch]

    async def repeat(self, every: float) -> None:
        """Until cancelled: tell some of it again."""
        while True:
            await asyncio.sleep(every)
            some = self._chance.sample(self._told, min(5, len(self._told)))
            # Kafka may be away
            with contextlib.suppress(SendFailed):
                await self._sender.send(some)
                self.repeated += len(some)

    async def close(self) -> None:
        await self._tail.stop()
        await self._sender.discard()


async def _storm(street: Street, database: Database, *, seconds: float, pages: int) -> dict[str, Any]:
    """`seconds` of it, each page cut for a thirtieth after each two fifteenths of that; then the books."""
    chance = random.Random(7)
    up, down = seconds / 7.5, seconds / 30
    async with AsyncExitStack() as stack:
        users = [User() for _ in range(_USERS)]
        urls = street.urls("notifier")
        cables: list[Cable] = []

        def place() -> Callable[[], Place]:
            cables.append(Cable(urls if len(cables) % 2 else urls[::-1]))
            return lambda cable=cables[-1]: ("127.0.0.1", cable.port)  # type: ignore[misc]

        watchers = [page for user in users for page in user.pages(pages // _USERS, place)]
        for cable in cables:
            await cable.open()
            stack.push_async_callback(cable.close)
        load = Load(street, database, users, chance)
        stack.push_async_callback(load.close)
        await load.begin()
        await stack.enter_async_context(watching(watchers))
        storm = [asyncio.create_task(cable.wear(chance, up=up, down=down)) for cable in cables]
        storm += [asyncio.create_task(one) for one in (load.ask(0.1), load.listen(), load.repeat(0.2))]
        try:
            await _faults(street, seconds)
        finally:
            for task in storm:
                task.cancel()
            for ended in await asyncio.gather(*storm, return_exceptions=True):
                assert isinstance(ended, asyncio.CancelledError), ended
        for cable in cables:
            # those whose cut was cut short
            await cable.cut(0, silent=False)
        faults = await differing(database, users, watchers)
        return {
            "faults": faults,
            "records": sum(len(user.accepted) for user in users),
            "cuts": sum(cable.cuts for cable in cables),
            "repeated": load.repeated,
            "resumed": sum((page.resumed for page in watchers), Counter[str]()),
        }


async def _faults(street: Street, seconds: float) -> None:
    """A notifier is killed, Kafka restarts, the other notifier is told to stop, with time to come back in between."""
    began = asyncio.get_running_loop().time()

    async def at(share: float) -> None:
        await asyncio.sleep(max(0.0, began + share * seconds - asyncio.get_running_loop().time()))

    await at(0.15)
    await street.kill("notifier-1")
    await at(0.25)
    await street.start("notifier-1")
    await at(0.4)
    await street.kill("kafka")
    await street.start("kafka")
    await at(0.75)
    assert await street.stop("notifier-2") == 0
    await street.start("notifier-2")
    await at(1.0)


async def test_three_hundred_pages_whose_lines_are_cut_all_the_time(street: Street, database: Database) -> None:
    told = await _storm(street, database, seconds=13.0, pages=300)
    print(told["resumed"], told["records"], told["cuts"], told["repeated"])
    assert told["faults"] == []
    # a busy machine does less of each
    assert told["records"] > 10
    assert told["repeated"] > 0
    assert told["cuts"] > 300
    gone_on = told["resumed"]["memory"] + told["resumed"]["log"]
    assert gone_on > 0.8 * (gone_on + told["resumed"]["snapshot"]), told["resumed"]


@pytest.mark.lengthy
async def test_three_hundred_pages_cut_for_two_seconds_of_ten(street: Street, database: Database) -> None:
    told = await _storm(street, database, seconds=60.0, pages=300)
    assert told["faults"] == []
    print(told)


def _direct(url: str) -> Place:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_one_of_two_notifiers_goes_with_all_its_sockets(street: Street, database: Database, how: str) -> None:
    window = 1.5
    street.add("notifier-leaving", SCENEWIRE_DRAIN_WINDOW=str(window))
    await street.start("notifier-leaving")
    leaving = street.servers["notifier-leaving"].http_url or ""
    remaining = street.urls("notifier")[0]
    gone = asyncio.Event()

    def place() -> Callable[[], Place]:
        return lambda: _direct(remaining if gone.is_set() else leaving)

    users = [User() for _ in range(_USERS)]
    pages = [page for user in users for page in user.pages(10, place)]
    acceptor = Acceptor(database, deadline=3600)

    async def ask(user: User) -> None:
        user.accepted.add((await acceptor.accept(user.request())).record_id)

    async with watching(pages):
        for page in pages:
            page.resumed.clear()
            page.back.clear()
        began = asyncio.get_running_loop().time()
        gone.set()
        # what happens while they are away
        asked = asyncio.gather(*(ask(user) for user in users for _ in range(2)))
        if how == "stop":
            assert await street.stop("notifier-leaving") == 0
        else:
            await street.kill("notifier-leaving")
        await asked
        for page in pages:
            assert await page.until(lambda page=page: bool(page.resumed), 10.0), page.kind  # type: ignore[misc]
        all_back = max(page.back[0] for page in pages) - began
        assert await differing(database, users, pages) == []
    resumed = sum((page.resumed for page in pages if page.kind != "poll"), Counter[str]())
    assert resumed["memory"] + resumed["log"] >= 0.99 * resumed.total(), resumed
    if how == "stop":
        told = sorted(page.goodbyes[0] for page in pages if page.kind != "poll")
        assert len(told) == sum(page.kind != "poll" for page in pages)
        assert told[-1] - told[0] > window / 2
        # never many at once
        assert max(sum(one <= other < one + window / 10 for other in told) for one in told) < len(told) / 2
    assert all_back < 10.0
