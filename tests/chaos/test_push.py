"""Hundreds of pages whose lines are cut, notifiers killed and told to stop, Kafka restarted, events told twice: each
page ends as Postgres has it, and no version goes back."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from storage.accepting import Acceptor
from storage.database import Database
from tests.chaos.askers import Asker, asking, images
from tests.chaos.books import until
from tests.chaos.pages import Place
from tests.chaos.storm import KINDS, Repeats, Storm, Told, missing, watching
from tests.chaos.street import Street

pytestmark = [pytest.mark.chaos, pytest.mark.connected]

_USERS = 30
_PAGES = 300
_STORM_SECONDS = 60.0


@dataclass
class Survived:
    faults: list[str]
    records: int
    repeated: int
    told: dict[str, Told]

    @property
    def cuts(self) -> int:
        return sum(one.cuts for one in self.told.values())

    @property
    def resumed(self) -> Counter[str]:
        return sum((one.resumed for one in self.told.values()), Counter[str]())


async def _storm(street: Street, database: Database) -> Survived:
    """A minute of it; then the books."""
    chance = random.Random(7)
    askers = [Asker() for _ in range(_USERS)]
    viewers = [one.viewer for one in askers]
    storm = Storm(street.urls("notifier"), viewers, chance, count=_PAGES // _USERS, up=8.0, down=2.0)
    repeats = Repeats(street.kafka.servers, chance)
    async with storm.open():
        async with repeats.at_work(0.2), storm.raging():
            load = asyncio.create_task(asking(askers, Acceptor(database, deadline=3600), chance, 0.1))
            await _faults(street)

            async def enough() -> bool:
                return _asked(askers) > 20 and repeats.count > 20

            # a busy machine takes longer for it
            assert await until(enough, 60.0), (_asked(askers), repeats.count)
            load.cancel()
            await asyncio.wait({load})
        assert load.cancelled(), load
        faults = await storm.faults(await images(database, askers))
    return Survived(faults, _asked(askers), repeats.count, storm.told())


def _asked(askers: Sequence[Asker]) -> int:
    return sum(len(one.accepted) for one in askers)


async def _faults(street: Street) -> None:
    """A notifier is killed, Kafka restarts, the other notifier is told to stop, with time to come back in between."""
    began = asyncio.get_running_loop().time()

    async def at(share: float) -> None:
        await asyncio.sleep(max(0.0, began + share * _STORM_SECONDS - asyncio.get_running_loop().time()))

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


async def test_three_hundred_pages_cut_for_two_seconds_of_ten(street: Street, database: Database) -> None:
    survived = await _storm(street, database)
    print(survived.told)
    assert survived.faults == []
    assert {kind: one.backwards for kind, one in survived.told.items()} == dict.fromkeys(KINDS, 0)
    # each of them more than once
    assert survived.cuts > 4 * _PAGES
    gone_on = survived.resumed["memory"] + survived.resumed["log"]
    assert gone_on > 0.8 * (gone_on + survived.resumed["snapshot"]), survived.told


def _direct(url: str) -> Place:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


@asynccontextmanager
async def _looking() -> AsyncIterator[list[float]]:
    """Seconds of each time in which this event loop did not turn, beyond a hundredth."""
    blind = [0.0]
    loop = asyncio.get_running_loop()

    async def look() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            blind.append(max(0.0, loop.time() - before - 0.02))

    looking = asyncio.create_task(look())
    try:
        yield blind
    finally:
        looking.cancel()


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

    askers = [Asker() for _ in range(_USERS)]
    of_each = {one.viewer.user_id: one.viewer.pages(10, place) for one in askers}
    pages = [page for theirs in of_each.values() for page in theirs]
    acceptor = Acceptor(database, deadline=3600)
    async with watching(pages), _looking() as blind:
        for page in pages:
            page.resumed.clear()
            page.back.clear()
        began = asyncio.get_running_loop().time()
        gone.set()
        # what happens while they are away
        asked = asyncio.gather(*(one.ask(acceptor) for one in askers for _ in range(2)))
        if how == "stop":
            assert await street.stop("notifier-leaving") == 0
        else:
            await street.kill("notifier-leaving")
        await asked
        for page in pages:
            assert await page.until(lambda page=page: bool(page.resumed), 10.0), page.kind  # type: ignore[misc]
        all_back = max(page.back[0] for page in pages) - began
        for user_id, theirs in (await images(database, askers)).items():
            assert await missing(of_each[user_id], theirs, 30.0) == []
        assert [page.faults for page in pages if page.faults] == []
    resumed = sum((page.resumed for page in pages if page.kind != "poll"), Counter[str]())
    assert resumed["memory"] + resumed["log"] >= 0.99 * resumed.total(), resumed
    if how == "stop":
        told = sorted(page.goodbyes[0] for page in pages if page.kind != "poll")
        assert len(told) == sum(page.kind != "poll" for page in pages)
        # what came while this process stood still was seen at once
        unseen = max(blind)
        assert told[-1] - told[0] > window / 2 - unseen
        # never many at once
        at_once = max(sum(one <= other < one + window / 10 for other in told) for one in told)
        assert at_once < len(told) * (1 / 2 + unseen / window)
    assert all_back < 10.0
