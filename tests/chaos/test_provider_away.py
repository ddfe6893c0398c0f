"""The provider is away for longer than any retry lasts: the breaker holds, and everything completes by itself after."""

import asyncio
from typing import Any

import pytest

from schemas.errors import ErrorClass
from storage.database import Database
from tests.chaos import books
from tests.chaos.people import person
from tests.chaos.scenes import AT_ONCE, JOB, comes_true
from tests.chaos.street import Street

pytestmark = [pytest.mark.chaos, pytest.mark.connected]

_AWAY_SECONDS = 6.0
"""Longer than four attempts with all their pauses, counted from the opening of the breaker."""
_OPENED_BY = 3
"""Failures of `auth` in a row that open the breaker, each the end of its scene."""

_PAUSED = "SELECT FROM breakers WHERE scope = 'provider' AND opened_at IS NOT NULL"


@pytest.mark.parametrize(
    "how",
    [
        "refused",
        pytest.param("unavailable", marks=pytest.mark.lengthy),
        pytest.param("invalid_key", marks=pytest.mark.lengthy),
    ],
)
async def test_nobody_loses_a_scene_to_a_provider_that_is_away(street: Street, database: Database, how: str) -> None:
    job: dict[str, Any] = {"text": JOB, "action": {"answer": "processing", "duration": 1}}
    await street.script(job)
    async with person(street) as one, person(street, "premium") as other:
        await asyncio.gather(one.asks(JOB, 3), other.asks(AT_ONCE, 3))
        if how == "refused":
            await street.kill("simulator")
        else:
            await street.script({"action": {"answer": "error", "fault": how}})
        await asyncio.gather(one.asks(JOB, 10), other.asks(JOB, 10))
        await comes_true(database, _PAUSED)
        await asyncio.sleep(_AWAY_SECONDS)
        if how == "refused":
            await street.start("simulator")
        await street.script(job)
        balance = await books.close(street, database, one, other)
    assert balance.faults == []
    buried = [r for r in balance.records.values() if r["status"] == "failed"]
    if how == "invalid_key":
        assert {record["error_class"] for record in buried} <= {ErrorClass.AUTH}
        assert len(buried) <= _OPENED_BY
    else:
        assert buried == []
    assert balance.completed == balance.accepted - len(buried)
