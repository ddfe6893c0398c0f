"""Tokens by published keys: rotation, unknown keys, outages; no way to hammer the issuer or to confuse algorithms."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.issuing import URL, USER, Issuer, Reply, SigningKey
from web.auth import LEEWAY, KeysAway, KeyUnknown, Unauthorized, Verifier
from web.health import Health
from web.published import PublishedKeys
from web.settings import WebSettings

SECRET = "0123456789abcdef0123456789abcdef"
OLD, NEW = SigningKey("ES256", "old"), SigningKey("ES256", "new")


def _settings(**changes: Any) -> WebSettings:
    return WebSettings.model_validate({"signing_secret": SECRET, "jwks_url": URL, **changes})


@asynccontextmanager
async def _running(issuer: Issuer, **changes: Any) -> AsyncIterator[Verifier]:
    verifier = Verifier(_settings(**changes), jwks=issuer)
    running = asyncio.create_task(verifier.run())
    try:
        yield verifier
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _refused(verifier: Verifier, token: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        await verifier.verified(token)
    return refused.value.code


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if holds():
                return
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_tokens_of_each_algorithm_are_taken(algorithm: str) -> None:
    key = SigningKey(algorithm, "k")
    async with _running(Issuer(key)) as verifier:
        # before the first look is over
        caller = await verifier.verified(key.token(user_tier="premium", scope="admin"))
        assert (caller.user_id, caller.tier, caller.scopes) == (UUID(USER), "premium", {"admin"})
        assert verifier.verify(key.token()).user_id == UUID(USER)


async def test_claims_are_held_to_the_same_rules() -> None:
    async with _running(Issuer(OLD), jwt_audience="scenewire") as verifier:
        assert await verifier.verified(OLD.token(aud="scenewire"))
        assert await _refused(verifier, OLD.token()) == "token_invalid"
        assert await _refused(verifier, OLD.token(aud="other")) == "token_invalid"
        assert await _refused(verifier, OLD.token(aud="scenewire", sub="me")) == "subject_not_uuid"
        late = int(time.time() - LEEWAY - 1)
        assert await _refused(verifier, OLD.token(aud="scenewire", exp=late)) == "token_expired"


async def test_both_kinds_may_be_configured_at_once() -> None:
    hs256 = jwt.encode({"sub": USER, "exp": time.time() + 60}, SECRET, algorithm="HS256")
    async with _running(Issuer(OLD), jwt_secret=SECRET) as verifier:
        assert (await verifier.verified(hs256)).user_id == UUID(USER)
        assert (await verifier.verified(OLD.token())).user_id == UUID(USER)
    async with _running(Issuer(OLD)) as verifier:
        assert await _refused(verifier, hs256) == "token_invalid"


async def test_a_public_key_is_never_a_secret() -> None:
    """HS256 over the published key's own bytes, in every form that it is known by."""
    public = OLD.private.public_key()
    forms = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(OLD.jwk).encode(),
        base64.urlsafe_b64decode(OLD.jwk["x"] + "=="),
    ]
    async with _running(Issuer(OLD), jwt_secret=SECRET) as verifier:
        assert await verifier.verified(OLD.token())
        for form in forms:
            signed = _part({"alg": "HS256", "kid": "old"}) + b"." + _part({"sub": USER, "exp": int(time.time()) + 60})
            signature = jwt.get_algorithm_by_name("HS256").sign(signed, form)
            token = (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()
            assert await _refused(verifier, token) == "token_invalid"


async def test_a_key_is_for_one_algorithm() -> None:
    rsa, named_alike = SigningKey("RS256", "k"), SigningKey("ES256", "k")
    claims = {"sub": USER, "exp": time.time() + 60}
    async with _running(Issuer(rsa)) as verifier:
        assert await verifier.verified(rsa.token())
        for algorithm in ("RS384", "RS512", "PS256"):
            token = jwt.encode(claims, rsa.private, algorithm=algorithm, headers={"kid": "k"})  # type: ignore[arg-type]
            assert await _refused(verifier, token) == "token_invalid"
        # a good signature by a key that nobody published, under a name that somebody did
        assert await _refused(verifier, named_alike.token()) == "token_invalid"
        assert await _refused(verifier, SigningKey("RS256", "k").token()) == "token_invalid"
        unsigned = (
            _part({"alg": "none", "kid": "k"}) + b"." + _part({"sub": USER, "exp": int(time.time()) + 60})
        ).decode()
        assert await _refused(verifier, f"{unsigned}.") == "token_invalid"


@pytest.mark.parametrize(
    "header", [{}, {"alg": 7}, {"alg": "ES256", "kid": 7}, {"alg": "ES256", "kid": ["old"]}, [], "x"]
)
async def test_odd_headers_are_refused_without_asking(header: Any) -> None:
    issuer = Issuer(OLD)
    verifier = Verifier(_settings(), jwks=issuer)
    token = b".".join([_part(header), _part({"sub": USER}), b"AAAA"]).decode()
    assert await _refused(verifier, token) == "token_invalid"
    assert issuer.asked == 0


async def test_an_unknown_key_is_looked_for_once_by_however_many_ask() -> None:
    issuer = Issuer(OLD)
    async with _running(issuer, jwks_floor=0.001) as verifier:
        assert await verifier.verified(OLD.token())
        issuer.keys.append(NEW)
        issuer.open.clear()
        await _until(lambda: _unknown(verifier, NEW.token()))
        asking = [asyncio.create_task(verifier.verified(NEW.token(n=n))) for n in range(50)]
        await issuer.until_asked(2)
        asking[0].cancel()
        issuer.open.set()
        callers = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(callers[0], asyncio.CancelledError)
        assert {caller.user_id for caller in callers[1:] if not isinstance(caller, BaseException)} == {UUID(USER)}
        assert issuer.asked == 2


async def test_nobody_can_make_us_hammer_the_issuer() -> None:
    issuer = Issuer(OLD)
    now = [0.0]
    published = PublishedKeys(_settings(jwks_floor=10), transport=issuer, clock=lambda: now[0])
    await published.look()
    for _ in range(1000):
        assert not published.may_look
        await published.look()
    assert issuer.asked == 1
    now[0] = 10.0
    assert published.may_look
    await asyncio.gather(*(published.look() for _ in range(100)))
    assert issuer.asked == 2
    assert not published.may_look

    async with _running(issuer) as verifier:
        assert await verifier.verified(OLD.token())
        asked = issuer.asked
        for number in range(300):
            assert await _refused(verifier, SigningKey("EdDSA", f"guess-{number}").token()) == "token_invalid"
        assert issuer.asked == asked


async def test_rotated_in_the_background_and_what_a_withdrawn_key_signed_is_forgotten() -> None:
    issuer = Issuer(OLD)
    async with _running(issuer, jwks_refresh=0.005, jwks_floor=3600) as verifier:
        token = OLD.token()
        known = await verifier.verified(token)
        assert verifier.verify(token) is known
        issuer.keys = [OLD, NEW]
        await _until(lambda: _taken(verifier, NEW.token()))
        # a key more withdraws nothing
        assert verifier.verify(token) is known
        issuer.keys = [NEW]
        await _until(lambda: not _taken(verifier, token))
        assert await _refused(verifier, token) == "token_invalid"
        assert _taken(verifier, NEW.token())


AWAY: list[Reply | Exception] = [
    httpx.ConnectError("no line to password=swordfish"),
    httpx.ReadTimeout("silent"),
    (500, {}, b""),
    (302, {"Location": "http://elsewhere.test/"}, b""),
    (200, {}, b"<html>Come back later</html>"),
    (200, {}, b'{"keys": []}'),
    (200, {}, b" " * (256 * 1024 + 1)),
    (200, {"Content-Encoding": "br"}, b"{}"),
]


@pytest.mark.parametrize("answer", AWAY, ids=lambda answer: str(answer)[:40])
async def test_an_outage_is_survived_by_the_last_good_set(answer: Reply | Exception) -> None:
    issuer = Issuer(OLD)
    async with _running(issuer, jwks_refresh=0.005, jwks_floor=3600) as verifier:
        assert await verifier.verified(OLD.token())
        issuer.answer = answer
        await issuer.until_asked(issuer.asked + 3)
        assert (await verifier.verified(OLD.token(n=1))).user_id == UUID(USER)
        # not known to be wrong: come again
        with pytest.raises(KeysAway) as away:
            await verifier.verified(NEW.token())
        assert (away.value.status, away.value.code) == (503, "keys_unavailable")
        assert dict(away.value.headers or {})["Retry-After"] == "2"
        issuer.answer, issuer.keys = None, [OLD, NEW]
        await _until(lambda: _taken(verifier, NEW.token()))


async def test_an_issuer_that_does_not_answer_is_given_up() -> None:
    issuer = Issuer(OLD)
    issuer.open.clear()
    verifier = Verifier(_settings(jwks_timeout=0.01), jwks=issuer)
    with pytest.raises(KeysAway):
        await verifier.verified(OLD.token())
    assert issuer.asked == 1


@asynccontextmanager
async def _server(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A real server on loopback; its address."""

    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        gone.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
        async with asyncio.timeout(10):
            await gone.wait()


async def test_over_a_real_line() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        body = json.dumps(Issuer(OLD).document).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()

    async with _server(answer) as url:
        verifier = Verifier(_settings(jwks_url=url))
        running = asyncio.create_task(verifier.run())
        assert (await verifier.verified(OLD.token())).user_id == UUID(USER)
        running.cancel()
        await asyncio.wait({running})
    assert running.cancelled()


@pytest.mark.parametrize("pause", [None, 0.005])
async def test_an_answer_without_end_is_cut_off(pause: float | None) -> None:
    """By its size when it comes fast, by the time when it drips and each byte is in time."""
    sent = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            part = b" " * (65_536 if pause is None else 1)
            writer.write(part)
            await writer.drain()
            sent += len(part)
            if pause is not None:
                await asyncio.sleep(pause)

    async with _server(answer) as url:
        published = PublishedKeys(_settings(jwks_url=url, jwks_timeout=30 if pause is None else 0.1))
        await published.look()
        assert published.trouble == ("it is larger than 256 KB" if pause is None else "no answer within 0.1 s")
        assert published.keys is None
        running = asyncio.create_task(published.run())
        running.cancel()
        await asyncio.wait({running})


async def test_ready_names_the_keys_only_where_nobody_can_be_verified_without_them() -> None:
    issuer = Issuer(OLD)
    issuer.answer = httpx.ConnectError("away")
    health, both = Health(), Health()
    async with _running(issuer, jwks_refresh=0.005) as verifier:
        verifier.report(health)
        Verifier(_settings(jwt_secret=SECRET), jwks=issuer).report(both)
        assert await _dependencies(both) == (200, {})
        await issuer.until_asked(2)
        status, dependencies = await _dependencies(health)
        assert status == 503
        assert "ConnectError: away" in dependencies["jwks"]["detail"]
        issuer.answer = None
        await _until(lambda: _taken(verifier, OLD.token()))
        assert (await _dependencies(health))[0] == 200
        # the last good set serves on
        issuer.answer = httpx.ConnectError("away")
        await issuer.until_asked(issuer.asked + 2)
        assert (await _dependencies(health))[0] == 200


async def test_the_log_tells_an_outage_once_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    issuer = Issuer(OLD)
    issuer.answer = httpx.ConnectError("no line to password=swordfish")
    async with _running(issuer, jwks_refresh=0.005) as verifier:
        await issuer.until_asked(4)
        issuer.answer = None
        await _until(lambda: _taken(verifier, OLD.token()))
        issuer.answer = (500, {}, b"")
        await issuer.until_asked(issuer.asked + 4)
    said = capsys.readouterr().out
    # without any key at each try, with keys once
    assert said.count("it answered 500") == 1
    assert "swordfish" not in said


def _unknown(verifier: Verifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except KeyUnknown:
        return True
    except Unauthorized:
        pass
    return False


def _taken(verifier: Verifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except (Unauthorized, KeysAway):
        return False
    return True


async def _dependencies(health: Health) -> tuple[int, dict[str, Any]]:
    transport = httpx.ASGITransport(health.application())
    async with httpx.AsyncClient(transport=transport, base_url="http://process.test") as client:
        answer = await client.get("/readyz")
    return answer.status_code, answer.json()["dependencies"]


def _part(content: Any) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")
