"""Steps on a database of their own, for every test of this room that does not set up its own."""

from collections.abc import AsyncIterator

import pytest

from tests.connected.steps import Steps, steps_of


@pytest.fixture
async def steps(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url) as steps:
        yield steps
