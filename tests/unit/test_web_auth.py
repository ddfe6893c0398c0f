"""Tokens: which are taken, what they say, and what their refusal looks like."""

import base64
import json
import time
from typing import Any
from uuid import UUID

import jwt
import pytest

from schemas.words import Tier
from web.auth import ADMIN, LEEWAY, Forbidden, Unauthorized, Verifier, must_have
from web.settings import WebSettings

SECRET = "0123456789abcdef0123456789abcdef"
USER = "9b2f4c1e-6d3a-4b58-8e0f-2a7c5d9e1f30"


def _verifier(**changes: Any) -> Verifier:
    given = {name: changes.pop(name) for name in ("clock", "remembered") if name in changes}
    return Verifier(WebSettings.model_validate({"jwt_secret": SECRET, **changes}), **given)


def _token(*, secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    content = {"sub": USER, "exp": int(time.time()) + 60, **claims}
    return jwt.encode({k: v for k, v in content.items() if v is not None}, secret, algorithm=algorithm)


def _code(token: str, **changes: Any) -> str:
    with pytest.raises(Unauthorized) as refused:
        _verifier(**changes).verify(token)
    assert refused.value.status == 401
    challenge = dict(refused.value.headers or {})["WWW-Authenticate"]
    assert challenge.startswith("Bearer ")
    assert token not in challenge
    assert token not in refused.value.detail
    return refused.value.code


def test_a_good_token_names_its_caller() -> None:
    token = _token(user_tier="premium")
    caller = _verifier().verify(token)
    assert caller.user_id == UUID(USER)
    assert caller.tier is Tier.PREMIUM
    assert caller.expires_at > time.time()


@pytest.mark.parametrize(
    ("claims", "tier"),
    [
        ({}, Tier.STANDARD),
        ({"user_tier": "enterprise"}, Tier.ENTERPRISE),
        ({"app_metadata": {"user_tier": "free"}, "user_tier": "enterprise"}, Tier.FREE),
        ({"app_metadata": {}, "user_tier": "basic"}, Tier.BASIC),
        ({"app_metadata": {"user_tier": "platinum"}, "user_tier": "basic"}, Tier.STANDARD),
        ({"app_metadata": "free", "user_tier": "basic"}, Tier.BASIC),
        ({"user_tier": 7}, Tier.STANDARD),
        ({"user_tier": ["premium"]}, Tier.STANDARD),
    ],
)
def test_the_tier_comes_from_the_claims(claims: dict[str, Any], tier: Tier) -> None:
    assert _verifier().verify(_token(**claims)).tier is tier


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        (None, set()),
        ("", set()),
        ("admin", {"admin"}),
        ("openid admin", {"openid", "admin"}),
        ("  admin ", {"admin"}),
        ("administrator", {"administrator"}),
        (["openid", "admin"], {"openid", "admin"}),
        (["admin me", 7], {"admin me"}),
        ({"admin": True}, set()),
        (7, set()),
    ],
)
def test_the_scopes_are_words_in_a_string_or_a_list(scope: Any, scopes: set[str]) -> None:
    caller = _verifier().verify(_token(scope=scope))
    assert caller.scopes == scopes
    if ADMIN in scopes:
        must_have(caller, ADMIN)
        return
    with pytest.raises(Forbidden) as refused:
        must_have(caller, ADMIN)
    assert (refused.value.status, refused.value.code) == (403, "forbidden")
    assert 'error="insufficient_scope", scope="admin"' in dict(refused.value.headers or {})["WWW-Authenticate"]


@pytest.mark.parametrize("sub", [None, "auth0|42", "", 42, USER.replace("-", ""), f"{{{USER}}}", f"{USER}\n"])
def test_a_subject_that_is_no_uuid_has_its_own_code(sub: Any) -> None:
    assert _code(_token(sub=sub)) == "subject_not_uuid"


def test_wrong_tokens_are_refused() -> None:
    assert _code("nonsense") == "token_invalid"
    assert _code("a.b.c") == "token_invalid"
    assert _code("é" * 10) == "token_invalid"
    assert _code("x" * 20_000) == "token_invalid"
    assert _code(_token(secret=SECRET[::-1])) == "token_invalid"
    assert _code(_token(exp=None)) == "token_invalid"
    assert _code(_token(exp="soon")) == "token_invalid"
    assert _code(_token(nbf=int(time.time()) + 3600)) == "token_invalid"


@pytest.mark.parametrize("exp", ["1e999", "NaN", "-Infinity", "[]", '{"a":1}', "true", '"inf"'])
def test_odd_times_of_expiry_are_refused_and_never_crash(exp: str) -> None:
    def part(text: str) -> bytes:
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=")

    signed = part('{"alg":"HS256","typ":"JWT"}') + b"." + part(f'{{"sub":"{USER}","exp":{exp}}}')
    signature = jwt.get_algorithm_by_name("HS256").sign(signed, SECRET.encode())
    token = (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()
    assert _code(token) in ("token_invalid", "token_expired")


def test_only_hs256_is_taken() -> None:
    assert _code(_token(algorithm="HS512", secret=SECRET * 2), jwt_secret=SECRET * 2) == "token_invalid"
    head, claims, _ = _token().split(".")
    assert json.loads(base64.urlsafe_b64decode(head + "=="))["alg"] == "HS256"
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    assert _code(f"{none}.{claims}.") == "token_invalid"


def test_the_audience_counts_where_it_is_set() -> None:
    assert _verifier().verify(_token(aud="authenticated"))
    assert _verifier(jwt_audience="scenewire").verify(_token(aud=["other", "scenewire"]))
    assert _code(_token(aud="other"), jwt_audience="scenewire") == "token_invalid"
    assert _code(_token(), jwt_audience="scenewire") == "token_invalid"


def test_a_token_is_taken_for_half_a_minute_after_its_expiry_also_when_it_is_remembered() -> None:
    expires = int(time.time()) + 60
    now = [float(expires) + LEEWAY - 1]
    verifier = _verifier(clock=lambda: now[0])
    token = _token(exp=expires)
    assert verifier.verify(token).expires_at == expires
    now[0] += 1
    with pytest.raises(Unauthorized) as refused:
        verifier.verify(token)
    assert refused.value.code == "token_expired"
    with pytest.raises(Unauthorized) as refused:
        _verifier(clock=lambda: now[0]).verify(token)
    assert refused.value.code == "token_expired"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "token"])
async def test_a_missing_token_is_told_apart(header: str | None) -> None:
    with pytest.raises(Unauthorized) as refused:
        await _verifier().of_headers(header)
    assert refused.value.code == "token_missing"
    assert dict(refused.value.headers or {})["WWW-Authenticate"] == 'Bearer realm="scenewire"'


async def test_the_scheme_is_read_in_any_case() -> None:
    assert (await _verifier().of_headers(f"bearer   {_token()}")).user_id == UUID(USER)


def test_those_used_last_are_remembered() -> None:
    verifier = _verifier(remembered=3)
    first, second = _token(n=1), _token(n=2)
    kept, dropped = verifier.verify(first), verifier.verify(second)
    for number in range(3, 5):
        verifier.verify(_token(n=number))
        assert verifier.verify(first) is kept
    assert verifier.verify(second) is not dropped
