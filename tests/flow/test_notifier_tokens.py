"""Sockets and calls with tokens whose keys are published: taken at once, looked for, or sent away to come back."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from producer.app import build
from tests.flow.accepting import BODY, path_of, problem_of, settings_of
from tests.flow.asking import problem
from tests.flow.pushing import PATIENCE, SECRET, Builder, House, token_for
from tests.issuing import URL, Issuer, SigningKey

pytestmark = [pytest.mark.flow, pytest.mark.connected]

OLD, NEW = SigningKey("ES256", "old"), SigningKey("EdDSA", "new")


def by_keys(built: Builder, issuer: Issuer, **changes: Any) -> AbstractAsyncContextManager[House]:
    """A notifier that knows tokens by the issuer's keys alone."""
    return built({"jwks": issuer}, jwt_secret=None, signing_secret=SECRET, jwks_url=URL, **changes)


async def test_published_keys_open_sockets_and_answer_calls(built: Builder, user: UUID) -> None:
    chapter = uuid4()
    async with by_keys(built, Issuer(OLD)) as here:
        record = await here.accept(user, chapter)
        async with here.socket(OLD.token(str(user))) as client:
            assert (await client.next())["type"] == "welcome"
            snapshot = await client.watch(chapter_id=chapter)
            assert [image["record_id"] for image in snapshot["images"]] == [str(record)]
        bearer = {"Authorization": f"Bearer {OLD.token(str(user))}"}
        assert (await here.http.get(f"/images/{record}", headers=bearer)).status_code == 200
        # the secret of cursors and pictures is nobody's to sign tokens with
        problem(await here.http.get(f"/images/{record}", headers=here.bearer(user)), 401, "token_invalid")
        async with here.socket(token_for(user)) as client:
            assert await client.closed() == (4401, [])


async def test_what_follows_a_token_with_a_new_key_waits_for_it_in_order(built: Builder, user: UUID) -> None:
    issuer = Issuer(OLD)
    async with by_keys(built, issuer, jwks_floor=0.001) as here:
        await _ready(here, OLD.token(str(user)))
        issuer.keys.append(NEW)
        issuer.open.clear()
        async with here.socket(None) as client:
            await client.send(type="auth", token=NEW.token(str(user)))
            await client.send(type="subscribe", id="a", mine=True)
            await client.send(type="unsubscribe", id="a")
            await client.send(type="subscribe", id="b", mine=True)
            await client.send(type="ping")
            await issuer.until_asked(2)
            issuer.open.set()
            assert (await client.next())["type"] == "welcome"
            frames = [await client.next(), await client.next()]
            assert {frame["type"]: frame.get("id") for frame in frames} == {"pong": None, "snapshot": "b"}
        # in the handshake too, and then `subscribe` is the first frame
        issuer.keys.append(later := SigningKey("RS256", "later"))
        async with here.socket(later.token(str(user))) as client:
            assert (await client.watch(mine=True))["images"] == []


async def test_a_new_key_in_a_refreshed_token_keeps_the_socket(built: Builder, user: UUID) -> None:
    issuer = Issuer(OLD)
    async with by_keys(built, issuer, jwks_floor=0.001) as here, here.socket(OLD.token(str(user))) as client:
        first = await client.next()
        assert first["type"] == "welcome"
        issuer.keys = [NEW]
        await client.send(type="auth", token=NEW.token(str(user), exp=2_000_000_000))
        assert (await client.next("welcome"))["expires_at"].startswith("2033-05-18")
        assert await client.pong() == []


async def test_4401_for_a_key_that_nobody_publishes_and_4429_for_who_does_not_wait(built: Builder, user: UUID) -> None:
    issuer = Issuer(OLD)
    async with by_keys(built, issuer, jwks_floor=0.001) as here:
        await _ready(here, OLD.token(str(user)))
        async with here.socket(NEW.token(str(user))) as client:
            assert await client.closed() == (4401, [])
        issuer.open.clear()
        async with here.socket(None) as client:
            await client.send(type="auth", token=NEW.token(str(user)))
            for _ in range(40):
                await client.send(type="ping")
            assert await client.closed() == (4429, [])
        issuer.open.set()


async def test_4503_and_503_while_the_keys_are_away(built: Builder, user: UUID) -> None:
    issuer = Issuer(OLD)
    issuer.answer = httpx.ConnectError("away")
    async with by_keys(built, issuer, jwks_refresh=0.2) as here:
        async with here.socket(OLD.token(str(user))) as client:
            code, frames = await client.closed()
            assert code == 4503
            assert [(frame["type"], frame["code"]) for frame in frames] == [("bye", 4503)]
            assert frames[0]["retry_after_ms"] > 0
        answer = await here.http.get("/images/1", headers={"Authorization": f"Bearer {OLD.token(str(user))}"})
        problem(answer, 503, "keys_unavailable")
        assert answer.headers["retry-after"] == "2"
        ready = await here.http.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["dependencies"]["jwks"]["status"] == "down"
        issuer.answer = None
        await _ready(here, OLD.token(str(user)))
        assert (await here.http.get("/readyz")).json()["dependencies"]["jwks"]["status"] == "up"


async def test_the_producer_takes_them_too(database_url: str, user: UUID) -> None:
    issuer = Issuer(OLD)
    app = build(settings_of(database_url, jwt_secret=None, signing_secret=SECRET, jwks_url=URL), jwks=issuer)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api.test") as client,
    ):
        bearer = {"Authorization": f"Bearer {OLD.token(str(user))}"}
        assert (await client.post(path_of(), json=BODY, headers=bearer)).status_code == 202
        assert (await client.get("/readyz")).json()["dependencies"]["jwks"]["status"] == "up"
        bearer = {"Authorization": f"Bearer {NEW.token(str(user))}"}
        problem_of(await client.post(path_of(), json=BODY, headers=bearer), 401, "token_invalid")


async def _ready(here: House, token: str) -> None:
    """Once the token is taken."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with here.socket(token) as client:
                if (await client.next())["type"] == "welcome":
                    return
