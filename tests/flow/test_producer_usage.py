"""`GET /me/usage` over HTTP: whose, of which period, and what is refused."""

from collections.abc import AsyncIterator
from datetime import date
from uuid import UUID, uuid4

import httpx
import pytest

from schemas.usage import Usage
from tests.connected.steps import Steps, request, steps_of
from tests.flow.accepting import bearer, client_of, fields_of, problem_of, settings_of

pytestmark = [pytest.mark.flow, pytest.mark.connected]

PATH = "/me/usage"


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(settings_of(database_url)) as client:
        yield client


@pytest.fixture
async def steps(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url) as steps:
        yield steps


async def test_what_ones_own_images_have_cost(client: httpx.AsyncClient, steps: Steps, user: UUID) -> None:
    chapter = uuid4()
    made = await steps.sent(None, request(user, chapter=chapter))
    await steps.generated(made)
    await steps.stored(made)
    await steps.sent(None, request(user, chapter=chapter, scene=2))
    await steps.sent(None, request(uuid4(), chapter=chapter))
    answer = await client.get(PATH, headers=bearer(user))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "private, no-cache"
    body = answer.json()
    Usage.model_validate(body)
    total = {
        "images": 2,
        "pictures": 1,
        "attempts": 2,
        "cost_usd": 0.033,
        "uncertain_attempts": 0,
        "uncertain_usd": 0.0,
        "open_usd": 0.033,
    }
    assert body["total"] == total
    assert body["by_day"] == [{**total, "day": body["to"]}]
    assert body["by_chapter"] == [{**total, "chapter_id": str(chapter)}]
    assert body["by_model"] == [{**total, "model_id": "first-model"}]
    stranger = (await client.get(PATH, headers=bearer(uuid4()))).json()
    assert (stranger["total"]["images"], stranger["by_day"], stranger["by_chapter"]) == (0, [], [])
    one = (await client.get(PATH, params={"chapter_id": str(uuid4())}, headers=bearer(user))).json()
    assert one["total"]["images"] == 0


async def test_a_period_is_answered_with_its_ends(client: httpx.AsyncClient, user: UUID) -> None:
    asked = {"from": "2025-12-31", "to": "2026-12-31"}
    body = (await client.get(PATH, params=asked, headers=bearer(user))).json()
    assert (body["from"], body["to"]) == ("2025-12-31", "2026-12-31")
    leap = {"from": "2024-01-01", "to": "2024-12-31"}
    assert (await client.get(PATH, params=leap, headers=bearer(user))).status_code == 200


REFUSED = [
    ({"from": "yesterday"}, "from"),
    ({"from": ""}, "from"),
    ({"to": "2026-02-30"}, "to"),
    ({"to": "20260228"}, "to"),
    ({"to": "2026-W09-6"}, "to"),
    ({"to": "2026-02-28T00:00:00"}, "to"),
    ({"to": "0001-01-01"}, "to"),
    ({"to": "9999-12-31"}, "to"),
    ({"from": "2026-03-02", "to": "2026-03-01"}, "from"),
    ({"from": "2025-12-30", "to": "2026-12-31"}, "from"),
    ({"from": "2001-01-01"}, "from"),
    ({"from": "9000-01-01"}, "from"),
    ({"chapter_id": "seven"}, "chapter_id"),
]


async def test_what_is_no_period_is_refused_by_its_name(client: httpx.AsyncClient, user: UUID) -> None:
    for asked, field in REFUSED:
        assert fields_of(await client.get(PATH, params=asked, headers=bearer(user))) == [field], asked


async def test_it_takes_a_token_and_a_get(client: httpx.AsyncClient, user: UUID) -> None:
    problem_of(await client.get(PATH), 401, "token_missing")
    problem_of(await client.post(PATH, headers=bearer(user)), 405, "method_not_allowed")
    document = (await client.get("/openapi.json")).json()
    described = document["paths"][PATH]["get"]
    assert [parameter["name"] for parameter in described["parameters"]] == ["from", "to", "chapter_id"]
    assert document["components"]["schemas"]["Spent"]["properties"]["cost_usd"]["type"] == "number"
    assert date.fromisoformat((await client.get(PATH, headers=bearer(user))).json()["to"])
