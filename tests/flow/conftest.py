"""Who asks, and the notifier they ask, for every test of this room that does not need its own."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.flow.pushing import Builder, House


@pytest.fixture
def user() -> UUID:
    return uuid4()


@pytest.fixture
def chapter() -> UUID:
    return uuid4()


@pytest.fixture
def built(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> Builder:
    """Notifiers with settings of one's own, on this test's Kafka and Postgres."""
    return Builder(database_url, kafka_servers, namespace, tmp_path)


@pytest.fixture
async def here(built: Builder) -> AsyncIterator[House]:
    async with built() as running:
        yield running
