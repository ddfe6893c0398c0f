"""Share tokens: what they say, and that neither kind of token is ever taken for the other."""

import time
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest

from schemas.words import Tier
from web.auth import LEEWAY, NotShared, Unauthorized, Verifier
from web.settings import WebSettings
from web.shares import ISSUER, TYPE, Shares

SECRET = "0123456789abcdef0123456789abcdef"
SIGNING = "a-signing-secret-of-32-bytes-at-least"
USER, CHAPTER = uuid4(), uuid4()


def _verifier(**changes: Any) -> Verifier:
    given = {name: changes.pop(name) for name in ("clock",) if name in changes}
    settings = {"jwt_secret": SECRET, "signing_secret": SIGNING, **changes}
    return Verifier(WebSettings.model_validate(settings), **given)


def _share(secret: str = SIGNING, **given: Any) -> str:
    return Shares([secret.encode()]).issue(USER, CHAPTER, **{"life": 900, **given}).token


def _signed(secret: str, typ: str | None, **claims: Any) -> str:
    content = {
        "iss": ISSUER,
        "sub": str(USER),
        "chapter_id": str(CHAPTER),
        "exp": int(time.time()) + 60,
        **claims,
    }
    given = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(given, secret, algorithm="HS256", headers={"typ": typ})


def _code(verifier: Verifier, token: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        verifier.verify(token)
    return refused.value.code


async def test_it_acts_as_its_issuer_on_one_chapter() -> None:
    now = time.time()
    share = Shares([SIGNING.encode()], clock=lambda: now).issue(USER, CHAPTER, life=900)
    assert share.expires_at.timestamp() == int(now) + 900
    assert share.token not in repr(share)
    verifier = _verifier()
    caller = verifier.verify(share.token)
    assert (caller.user_id, caller.chapter_id) == (USER, CHAPTER)
    assert (caller.tier, caller.scopes) == (Tier.STANDARD, frozenset())
    assert caller.expires_at == share.expires_at.timestamp()
    assert (await verifier.viewer(f"Bearer {share.token}")) == caller
    with pytest.raises(NotShared) as refused:
        await verifier.of_headers(f"Bearer {share.token}")
    assert (refused.value.status, refused.value.code) == (403, "share_token_refused")
    assert 'error="insufficient_scope"' in dict(refused.value.headers or {})["WWW-Authenticate"]
    assert share.token not in str(refused.value.headers)


def test_it_lapses() -> None:
    now = [time.time()]
    verifier = _verifier(clock=lambda: now[0])
    token = Shares([SIGNING.encode()], clock=lambda: now[0]).issue(USER, CHAPTER, life=900).token
    now[0] += 900
    assert verifier.verify(token).chapter_id == CHAPTER
    now[0] += LEEWAY
    assert _code(verifier, token) == "token_expired"


def test_secrets_rotate() -> None:
    old, new = "old-" * 10, "new-" * 10
    both = _verifier(signing_secret=f"{new},{old}")
    assert both.verify(_share(new)).chapter_id == both.verify(_share(old)).chapter_id == CHAPTER
    assert _code(_verifier(signing_secret=new), _share(old)) == "token_invalid"
    # in the same second
    now = time.time()
    first, second = (
        Shares([secret.encode() for secret in secrets], clock=lambda: now).issue(USER, CHAPTER, life=900).token
        for secrets in ([new, old], [new])
    )
    assert first == second


def test_the_audience_of_users_is_not_asked_of_it() -> None:
    assert _verifier(jwt_audience="scenewire").verify(_share()).chapter_id == CHAPTER


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": None},
        {"iss": "somebody"},
        {"chapter_id": None},
        {"chapter_id": "seven"},
        {"chapter_id": 7},
        {"exp": None},
        {"exp": "soon"},
    ],
)
def test_what_it_must_say(claims: dict[str, Any]) -> None:
    assert _verifier().verify(_signed(SIGNING, TYPE)).chapter_id == CHAPTER
    assert _code(_verifier(), _signed(SIGNING, TYPE, **claims)) == "token_invalid"


def test_its_subject_is_a_user() -> None:
    assert _code(_verifier(), _signed(SIGNING, TYPE, sub="me")) == "subject_not_uuid"


@pytest.mark.parametrize("signing_secret", [SIGNING, SECRET])
@pytest.mark.parametrize("secret", [SIGNING, SECRET, "somebody-else-s-secret-of-32-bytes!"])
@pytest.mark.parametrize("typ", [TYPE, "JWT", "at+jwt", None])
def test_neither_kind_is_taken_for_the_other(signing_secret: str, secret: str, typ: str | None) -> None:
    """Also where both secrets are alike: a share token, whoever writes it, never opens all that its user has."""
    verifier = _verifier(signing_secret=signing_secret)
    token = _signed(secret, typ)
    if typ == TYPE and secret == signing_secret:
        assert verifier.verify(token).chapter_id == CHAPTER
    else:
        assert _code(verifier, token) == "token_invalid"
    mine = _signed(secret, typ, iss="my-issuer")
    if typ != TYPE and secret == SECRET:
        # what a token of one's own says of a chapter limits nothing
        assert verifier.verify(mine).chapter_id is None
    else:
        assert _code(verifier, mine) == "token_invalid"


def test_no_other_algorithm_is_taken() -> None:
    claims = jwt.decode(_share(), options={"verify_signature": False})
    for algorithm in ("HS384", "HS512"):
        token = jwt.encode(claims, SIGNING * 2, algorithm=algorithm, headers={"typ": TYPE})
        assert _code(_verifier(signing_secret=SIGNING * 2), token) == "token_invalid"
    head, payload, _ = jwt.encode(claims, SIGNING, algorithm="HS256", headers={"typ": TYPE}).split(".")
    none = jwt.encode(claims, None, algorithm="none", headers={"typ": TYPE})
    assert _code(_verifier(), none) == "token_invalid"
    assert _code(_verifier(), f"{head}.{payload}.") == "token_invalid"


def test_each_user_and_chapter_has_its_own() -> None:
    shares = Shares([SIGNING.encode()])
    tokens = {shares.issue(user, chapter, life=900).token for user in (USER, uuid4()) for chapter in (CHAPTER, uuid4())}
    assert len(tokens) == 4
    assert {_verifier().verify(token).user_id for token in tokens} >= {UUID(str(USER))}
