"""The provider's webhook at the accepting process: an id is noted where it is waited for, nothing else is believed."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Row

from schemas.errors import ErrorClass
from storage import settling
from storage.dispatching import Claimed
from telemetry import metrics
from tests.connected.steps import BUSY, SILENT, Steps, claim_of, steps_of
from tests.flow.accepting import SECRET, client_of, problem_of, settings_of

pytestmark = [pytest.mark.flow, pytest.mark.connected]

TOKEN = "0123456789abcdefghijklmnopqrst_-"


@pytest.fixture
async def steps(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url) as steps:
        yield steps


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(settings_of(database_url)) as client:
        yield client


@pytest.fixture
async def sent(steps: Steps) -> Claimed:
    """An attempt whose webhook was given to the provider."""
    claimed = await steps.sent()
    await steps.sql("UPDATE generation_attempts SET webhook_token = $1", TOKEN)
    return claimed


async def _attempt(steps: Steps) -> Row[Any]:
    (row,) = await steps.sql("SELECT * FROM generation_attempts")
    return row


async def _call(client: httpx.AsyncClient, content: Any, token: str = TOKEN) -> None:
    """The same answer whatever was sent."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    response = await client.post(f"/hooks/modelslab/{token}", content=raw)
    assert (response.status_code, response.content) == (200, b"{}")


def _counted(outcome: str) -> float:
    return metrics.of_process().value("webhooks", outcome=outcome)


async def test_an_id_is_noted_and_nothing_else(client: httpx.AsyncClient, steps: Steps, sent: Claimed) -> None:
    before = await steps.record(sent.record_id)
    for said, noted in (
        ({"status": "success", "id": 123457, "output": ["https://x.test/1.png"]}, "123457"),
        ({"status": "failed", "id": " 66752945 ", "message": "Processing failed"}, "66752945"),
        ({"status": "processing", "id": "", "request_id": "a-b-c"}, "a-b-c"),
        ({"id": 7.0}, "7"),
    ):
        await _call(client, said)
        attempt = await _attempt(steps)
        assert (attempt.webhook_request_id, attempt.provider_request_id, attempt.output_urls) == (noted, None, None)
        assert attempt.outcome is None
        await steps.sql("UPDATE generation_attempts SET webhook_request_id = NULL")
    assert await steps.record(sent.record_id) == before


async def test_the_first_id_stands_and_duplicates_are_ignored(
    client: httpx.AsyncClient, steps: Steps, sent: Claimed
) -> None:
    noted, ignored = _counted("noted"), _counted("ignored")
    for said in (1, 1, 2):
        await _call(client, {"id": said})
    assert (await _attempt(steps)).webhook_request_id == "1"
    assert (_counted("noted") - noted, _counted("ignored") - ignored) == (1, 2)


async def test_an_uncertain_attempt_still_waits_for_its_id(
    client: httpx.AsyncClient, steps: Steps, sent: Claimed
) -> None:
    await steps.retry(sent, SILENT, uncertain=True)
    await _call(client, {"id": 5})
    attempt = await _attempt(steps)
    assert (attempt.webhook_request_id, attempt.outcome) == ("5", "uncertain")


async def test_what_has_an_id_or_an_end_or_was_never_sent_waits_for_none(
    client: httpx.AsyncClient, steps: Steps, sent: Claimed
) -> None:
    await steps.named(sent, "job-1")
    await _call(client, {"id": 5})
    assert (await _attempt(steps)).webhook_request_id is None
    await settling.die(steps.database, claim_of(sent), BUSY, dead_class=ErrorClass.EXHAUSTED)
    await steps.sql("UPDATE generation_attempts SET provider_request_id = NULL")
    await _call(client, {"id": 5})
    assert (await _attempt(steps)).webhook_request_id is None
    await steps.sql("UPDATE generation_attempts SET outcome = NULL, sent_at = NULL")
    await _call(client, {"id": 5})
    assert (await _attempt(steps)).webhook_request_id is None


JUNK: list[Any] = [
    b"",
    b"{",
    b"null",
    b"[1]",
    b'"1"',
    b"1",
    b"\xff\xfe",
    b"[" * 10_000,
    b"id=5&status=success",
    b'{"id": ' + b"9" * 5_000 + b"}",
    {},
    {"id": None},
    {"id": True},
    {"id": 0},
    {"id": -4},
    {"id": 1.5},
    {"id": ["5"]},
    {"id": {"id": 5}},
    {"id": "a b"},
    {"id": "\x00"},
    {"id": "5\x00"},
    {"id": "\u0665"},
    {"id": "x" * 201},
    {"id": 10**201},
    {"output": "https://x.test/5.png", "fetch_result": "https://modelslab.com/api/v7/images/fetch/5"},
]


async def test_junk_is_answered_and_forgotten(client: httpx.AsyncClient, steps: Steps, sent: Claimed) -> None:
    for content in JUNK:
        before = _counted("unreadable")
        await _call(client, content)
        assert _counted("unreadable") - before == 1, content
    assert (await _attempt(steps)).webhook_request_id is None


async def test_who_does_not_know_the_token_changes_nothing(
    client: httpx.AsyncClient, steps: Steps, sent: Claimed
) -> None:
    tokens = ("x", "A" * 32, TOKEN + "x", TOKEN[:-1], "%00", TOKEN + "%00", "%F0%9F%8E%A9" * 16)
    before = _counted("ignored")
    for token in tokens:
        await _call(client, {"id": 5}, token)
    assert _counted("ignored") - before == len(tokens)
    assert (await _attempt(steps)).webhook_request_id is None


async def test_a_body_without_an_end_is_refused(client: httpx.AsyncClient, steps: Steps, sent: Claimed) -> None:
    huge = json.dumps({"id": 5, "meta": "x" * 70_000}).encode()
    problem_of(await client.post(f"/hooks/modelslab/{TOKEN}", content=huge), 413, "body_too_large")
    assert (await _attempt(steps)).webhook_request_id is None
    problem_of(await client.get(f"/hooks/modelslab/{TOKEN}"), 405, "method_not_allowed")
    problem_of(await client.post("/hooks/modelslab/", content=b"{}"), 404, "not_found")


async def test_with_postgres_away_the_provider_may_come_again(tmp_path: Any) -> None:
    settings = settings_of(f"postgresql://x@/x?host={tmp_path}", accept_timeout=2, retry_after=3)
    async with client_of(settings) as client:
        before = _counted("unavailable")
        response = await client.post(f"/hooks/modelslab/{TOKEN}", json={"id": 5})
        problem_of(response, 503, "unavailable")
        assert response.headers["retry-after"] == "3"
        assert _counted("unavailable") - before == 1
        # what is junk needs no Postgres
        await _call(client, b"junk")
        await _call(client, {"id": 5}, "short")


async def test_it_is_described(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    post = document["paths"]["/hooks/modelslab/{token}"]["post"]
    assert "security" not in post
    assert {"200", "413", "503"} <= set(post["responses"])


async def test_the_token_is_shown_nowhere(database_url: str) -> None:
    """As a process, with everything logged, on good calls and bad ones, with Postgres there and refusing."""
    environment = {
        "PATH": os.environ["PATH"],
        "SCENEWIRE_JWT_SECRET": SECRET,
        "SCENEWIRE_LOG_LEVEL": "debug",
        "SCENEWIRE_ACCEPT_TIMEOUT": "1",
    }
    for url in (database_url, "postgresql://nobody@127.0.0.1:1/x"):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "producer", "--port", "0"),
            env={**environment, "SCENEWIRE_DATABASE_URL": url},
            stdout=PIPE,
            stderr=PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(20):
            event: dict[str, Any] = {}
            while event.get("event") != "listening":
                event = json.loads(await process.stdout.readline())
        async with httpx.AsyncClient(base_url=f"http://{event['host']}:{event['port']}", timeout=20) as client:
            for content in (b'{"id": 5}', b"{", b" " * 70_000):
                await client.post(f"/hooks/modelslab/{TOKEN}", content=content)
            await client.get(f"/hooks/modelslab/{TOKEN}")
            await client.post(f"/hooks/modelslab/{TOKEN}/more", content=b"{}")
            shown = (await client.get("/metrics")).text
        process.terminate()
        out, err = await asyncio.wait_for(process.communicate(), 20)
        assert TOKEN not in out.decode() + err.decode() + shown
        assert 'route="/hooks/modelslab/{token}",status="' in shown
