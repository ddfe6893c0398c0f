"""`/admin/dead-letters` of the accepting process, through its own `build`, on a real database."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from schemas.letters import DeadLetterDetail, DeadLetters, PurgeOutcome, ReplayOutcome
from tests.connected.died import Died, buried, read_event
from tests.connected.steps import Steps, steps_of
from tests.flow.accepting import bearer, client_of, fields_of, problem_of, settings_of

pytestmark = pytest.mark.flow

PATH = "/admin/dead-letters"
CALLS = [("GET", PATH), ("GET", f"{PATH}/1"), ("POST", f"{PATH}/replay"), ("POST", f"{PATH}/purge")]


@pytest.fixture
async def nowhere() -> AsyncIterator[httpx.AsyncClient]:
    # nothing here may get as far as Postgres: where it did, the answer would be 503
    async with client_of(settings_of("postgresql://x@/x?host=/nowhere")) as client:
        client.headers.update(bearer(uuid4(), scope="openid admin"))
        yield client


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(settings_of(database_url)) as client:
        client.headers.update(bearer(uuid4(), scope=["admin"]))
        yield client


@pytest.fixture
async def steps(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url) as steps:
        yield steps


@pytest.fixture
async def died(steps: Steps) -> Died:
    return await Died(steps).happen()


async def _listed(client: httpx.AsyncClient, **query: Any) -> DeadLetters:
    response = await client.get(PATH, params=query)
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    return DeadLetters.model_validate_json(response.content)


async def _replayed(client: httpx.AsyncClient, **body: Any) -> ReplayOutcome:
    response = await client.post(f"{PATH}/replay", json=body)
    assert response.status_code == 200, response.text
    return ReplayOutcome.model_validate_json(response.content)


async def _purged(client: httpx.AsyncClient, **body: Any) -> PurgeOutcome:
    response = await client.post(f"{PATH}/purge", json=body)
    assert response.status_code == 200, response.text
    return PurgeOutcome.model_validate_json(response.content)


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_it_is_for_admins_alone(nowhere: httpx.AsyncClient, method: str, path: str) -> None:
    body: Any = {"json": {"all": True}} if method == "POST" else {}
    del nowhere.headers["authorization"]
    problem_of(await nowhere.request(method, path, **body), 401, "token_missing")
    for claims in ({}, {"scope": "administrator openid"}, {"scope": {"admin": True}}, {"scp": "admin"}):
        refused = await nowhere.request(method, path, headers=bearer(uuid4(), **claims), **body)
        assert "scope 'admin'" in problem_of(refused, 403, "forbidden")["detail"]
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("error_class=network", "error_class.0"),
        ("error_class=auth&error_class=nope", "error_class.1"),
        ("error_code=", "error_code.0"),
        ("error_code=%00", "error_code.0"),
        ("user_id=7", "user_id"),
        ("user_id=7&user_id=8", "user_id"),
        ("since=yesterday", "since"),
        ("until=0001-01-01", "until"),
        ("replayed=maybe", "replayed"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=" + "x" * 201, "cursor"),
        ("class=auth", "class"),
        ("ids=1", "ids"),
    ],
)
async def test_a_query_is_checked_by_field(nowhere: httpx.AsyncClient, query: str, field: str) -> None:
    assert fields_of(await nowhere.get(f"{PATH}?{query}")) == [field]


@pytest.mark.parametrize("letter", ["x", "0", "-1", "1.0", "9" * 30, "9223372036854775808", "%D9%A1", "replay"])
async def test_a_letters_number_is_checked(nowhere: httpx.AsyncClient, letter: str) -> None:
    assert fields_of(await nowhere.get(f"{PATH}/{letter}")) == ["letter_id"]


@pytest.mark.parametrize("call", ["replay", "purge"])
@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b"\xff", "body"),
        (b'{"ids": [1], "user_id": "9b2f4c1e-6d3a-4b58-8e0f-2a7c5d9e1f30"}', "body"),
        (b'{"ids": ["1"]}', "ids.0"),
        (b'{"all": true, "limit": 100000}', "limit"),
        (b'{"all": true, "rate": 5}', "rate"),
        (b'{"all": true, "since": 5}', "since"),
    ],
)
async def test_a_body_is_checked_by_field(nowhere: httpx.AsyncClient, call: str, content: bytes, field: str) -> None:
    assert fields_of(await nowhere.post(f"{PATH}/{call}", content=content)) == [field]


async def test_a_replay_of_everything_must_be_said(nowhere: httpx.AsyncClient) -> None:
    refused = problem_of(await nowhere.post(f"{PATH}/replay", json={"dry_run": True}), 422, "invalid")
    assert "name ids, a filter, or all" in refused["detail"]
    problem_of(await nowhere.post(f"{PATH}/replay", content=b"x" * 70_000), 413, "body_too_large")
    problem_of(
        await nowhere.post(f"{PATH}/replay", content=b"a: 1", headers={"content-type": "text/yaml"}), 415, "not_json"
    )


async def test_postgres_away_is_503(nowhere: httpx.AsyncClient) -> None:
    for method, path in CALLS:
        body: Any = {"json": {"all": True}} if method == "POST" else {}
        away = await nowhere.request(method, path, **body)
        problem_of(away, 503, "unavailable")
        assert int(away.headers["retry-after"]) >= 1


@pytest.mark.connected
async def test_pages_groups_and_one_letter(died: Died, client: httpx.AsyncClient) -> None:
    first = await _listed(client, limit=4)
    assert [one.id for one in first.letters] == died.ids[:1:-1]
    rest = await _listed(client, limit=4, cursor=first.cursor)
    assert ([one.id for one in rest.letters], rest.cursor) == (died.ids[1::-1], None)
    some = await _listed(client, error_class=["auth", "poison"], replayed="false", since="5h")
    assert [one.id for one in some.letters] == [died.ids[5], died.ids[4], died.ids[1]]
    groups = (await _listed(client, group="true", user_id=str(died.users[0]))).groups
    assert groups is not None
    assert {(one.error_class, one.letters, one.replayed) for one in groups} == {
        ("auth", 1, 1),
        ("quota", 1, 0),
        ("poison", 1, 0),
    }
    shown = await client.get(f"{PATH}/{died.ids[3]}")
    letter = DeadLetterDetail.model_validate_json(shown.content)
    assert (letter.record_id, letter.attempts[0].outcome, letter.refusal) == (died.records[3], "failed", None)
    assert "secret-of-somebody" not in shown.text
    problem_of(await client.get(f"{PATH}/999"), 404, "not_found")


@pytest.mark.connected
async def test_a_dry_run_changes_nothing_and_says_what_a_replay_then_does(
    died: Died, client: httpx.AsyncClient
) -> None:
    await died.steps.sql("DELETE FROM image_generations WHERE id = $1", died.records[1])
    choice = {"error_class": ["auth", "quota", "poison"], "until": "0s"}
    would = await _replayed(client, **choice, limit=2, dry_run=True)
    assert (would.replayed, would.skipped, would.left) == (2, 1, 1)
    assert sum(group.letters for group in would.groups) == 2
    assert (await died.steps.record(died.records[2])).status == "failed"
    done = await _replayed(client, **choice, limit=2)
    assert (done.replayed, done.skipped, done.left, done.reasons) == (2, 1, 1, {"record_gone": 1})
    assert (await died.steps.record(died.records[2])).status == "pending"
    # what cannot be replayed is never in the way of what can
    assert (await _replayed(client, **choice, limit=2)).replayed == 1
    over = await _replayed(client, **choice, limit=2)
    assert (over.replayed, over.skipped, over.left) == (0, 1, 0)


@pytest.mark.connected
async def test_letters_named_by_id_are_told_one_by_one(died: Died, client: httpx.AsyncClient) -> None:
    ids = [died.ids[3], 999, died.ids[0], died.ids[3]]
    would = await _replayed(client, ids=ids, dry_run=True)
    assert (would.replayed, would.skipped) == (1, 2)
    done = await _replayed(client, ids=ids)
    assert (done.replayed, done.skipped, done.left) == (1, 2, 0)
    assert {one.id: one.code for one in done.refused} == {999: "unknown", died.ids[0]: "already_replayed"}
    assert done.refused[0].message.endswith(".")


@pytest.mark.connected
async def test_a_purge_deletes_what_was_replayed_unless_more_is_said(died: Died, client: httpx.AsyncClient) -> None:
    assert (await _purged(client, dry_run=True)).purged == 1
    assert (await _purged(client)).purged == 1
    assert (await _purged(client)).purged == 0
    assert (await _purged(client, error_class=["auth"], older_than="3h")).purged == 1
    some = await _purged(client, all=True, limit=1)
    assert (some.purged, some.left) == (1, 3)
    assert (await _purged(client, ids=[died.ids[5]], all=True)).purged == 1
    assert [one.id for one in (await _listed(client)).letters] == [died.ids[4], died.ids[3]]
    assert len(await died.steps.sql("SELECT id FROM image_generations")) == 4


@pytest.mark.connected
async def test_one_call_replays_a_thousand_and_says_what_is_left(steps: Steps, client: httpx.AsyncClient) -> None:
    await buried(steps, *(read_event(offset) for offset in range(1_005)))
    assert (await _replayed(client, all=True)).left == 905
    most = await _replayed(client, all=True, limit=1_000)
    # within its seconds, however busy the machine is
    assert most.replayed + most.left == 905
    assert most.replayed >= 100
    rows = await steps.sql("SELECT id FROM outbox")
    assert len(rows) == 100 + most.replayed


@pytest.mark.connected
async def test_it_describes_itself(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    for method, path in CALLS:
        described = document["paths"][path.replace("/1", "/{letter_id}")][method.lower()]
        assert {"200", "401", "403", "422", "503"} <= set(described["responses"])
        assert "scope `admin`" in described["description"]
        assert described["security"] == [{"bearer": []}]
    named = {one["name"]: one for one in document["paths"][PATH]["get"]["parameters"]}
    assert {"error_class", "since", "replayed", "group", "cursor"} <= set(named)
    assert all(one["description"] and "anyOf" not in one["schema"] for one in named.values())
    replay = document["components"]["schemas"]["ReplayRequest"]
    assert {"ids", "all", "dry_run", "limit", "error_class"} <= set(replay["properties"])
