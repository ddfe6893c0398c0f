"""One service of real processes for all chaos tests, mended before each; who is in it is new in each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from storage.database import Database
from storage.settings import DatabaseSettings
from tests.chaos.nursery import Nursery
from tests.chaos.periods import shortened
from tests.chaos.street import Street


class Streets:
    """The street in use; one that could not be mended is replaced, so that a fault is one test's."""

    def __init__(self, folders: pytest.TempPathFactory, nursery: Nursery) -> None:
        self._folders = folders
        self._nursery = nursery
        self._street: Street | None = None

    async def mended(self) -> Street:
        if self._street is not None:
            try:
                await self._street.mend()
                await self._street.forget()
                return self._street
            except Exception:
                self.close()
        self._street = Street(self._folders.mktemp("street"), shortened(), nursery=self._nursery)
        await self._street.open()
        return self._street

    def close(self) -> None:
        if self._street is not None:
            self._street.close()
            self._street = None


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery("nursery", tmp_path_factory.mktemp("nursery") / "nursery.log")
    nursery.launch()
    yield nursery
    nursery.kill()


@pytest.fixture(scope="session")
def streets(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Streets]:
    streets = Streets(tmp_path_factory, nursery)
    yield streets
    streets.close()


@pytest.fixture
async def street(streets: Streets) -> Street:
    """A whole service, everything running."""
    return await streets.mended()


@pytest.fixture
async def database(street: Street) -> AsyncIterator[Database]:
    """The service's Postgres, looked into."""
    settings = DatabaseSettings(database_url=street.postgres.url(), database_timeout=5.0)
    database = Database(settings, application="test")
    yield database
    await database.close()
