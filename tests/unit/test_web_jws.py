"""Our own taking apart of tokens, held against the library's: neither takes what the other refuses."""

import base64
import json
from typing import Any

import jwt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.issuing import SigningKey
from web import jws

SECRET = b"0123456789abcdef0123456789abcdef"
KEYS = {algorithm: SigningKey(algorithm, "k") for algorithm in ("RS256", "ES256", "EdDSA")}
PUBLIC: dict[str, bytes | jwt.PyJWK] = {"HS256": SECRET}
PUBLIC |= {algorithm: jwt.PyJWK(key.jwk, algorithm) for algorithm, key in KEYS.items()}
UNCHECKED: Any = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
claims = st.dictionaries(
    st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.text(max_size=20), max_size=5
)
algorithms = st.sampled_from(sorted(PUBLIC))


def _signed(algorithm: str, said: Any, header: dict[str, Any] | None = None) -> str:
    key = SECRET if algorithm == "HS256" else KEYS[algorithm].private
    if isinstance(said, dict) and header is None:
        return jwt.encode({k: v for k, v in said.items() if k != "iss"}, key, algorithm=algorithm)
    payload = json.dumps(said).encode()
    return jwt.PyJWS().encode(payload, key, algorithm=algorithm, headers=header)  # type: ignore[arg-type]


def _ours(token: str, algorithm: str) -> dict[str, Any] | None:
    try:
        if jws.header_of(token).algorithm != algorithm:
            return None
        return jws.claims_of(token, PUBLIC[algorithm])
    except (jws.NotAToken, jws.NotSigned):
        return None


def _theirs(token: str, algorithm: str) -> dict[str, Any] | None:
    key = PUBLIC[algorithm]
    try:
        said: dict[str, Any] = jwt.decode(token, key, algorithms=[algorithm], options=UNCHECKED)
    except jwt.PyJWTError:
        return None
    return said


@given(algorithm=algorithms, said=claims)
@settings(deadline=None)
def test_what_is_signed_is_read(algorithm: str, said: dict[str, Any]) -> None:
    token = _signed(algorithm, said)
    assert _ours(token, algorithm) == _theirs(token, algorithm) is not None


@given(data=st.data(), algorithm=algorithms, said=claims)
@settings(deadline=None, max_examples=300)
def test_what_is_changed_is_refused_by_both_or_by_none(
    data: st.DataObject, algorithm: str, said: dict[str, Any]
) -> None:
    token = _signed(algorithm, said)
    at = data.draw(st.integers(0, len(token) - 1), "at")
    put = data.draw(st.text(f"{ALPHABET}.=+/ \n\u00e9", max_size=3), "put")
    cut = data.draw(st.integers(0, 3), "cut")
    changed = token[:at] + put + token[at + cut :]
    ours, theirs = _ours(changed, algorithm), _theirs(changed, algorithm)
    if "=" in changed:
        # padding, which the library tolerates
        assert ours is None
    else:
        assert ours == theirs
    if changed != token and ours is not None:
        assert ours == _theirs(token, algorithm)


@pytest.mark.parametrize("algorithm", sorted(PUBLIC))
def test_a_signature_is_written_in_one_way(algorithm: str) -> None:
    token = _signed(algorithm, {"sub": "me"})
    alike = 0
    for last in ALPHABET:
        changed = token[:-1] + last
        raw, other = (base64.urlsafe_b64decode(one.rpartition(".")[2] + "==") for one in (token, changed))
        alike += raw == other
        assert (
            (_ours(changed, algorithm) is not None) == (_theirs(changed, algorithm) is not None) == (changed == token)
        )
    assert alike > 1


@given(data=st.data(), said=claims)
@settings(deadline=None)
def test_the_parts_of_two_tokens_make_no_third(data: st.DataObject, said: dict[str, Any]) -> None:
    tokens = [_signed(algorithm, said | {"of": algorithm}).split(".") for algorithm in sorted(PUBLIC)]
    parts = [data.draw(st.sampled_from(tokens), name)[number] for number, name in enumerate(("head", "body", "end"))]
    token = ".".join(parts)
    for algorithm in sorted(PUBLIC):
        assert _ours(token, algorithm) == _theirs(token, algorithm)
        assert (_ours(token, algorithm) is not None) == (
            parts in tokens and algorithm == sorted(PUBLIC)[tokens.index(parts)]
        )


@given(text=st.text(max_size=60))
@example("a" * 10_000)
@example(".".join(["eyJhbGciOiJIUzI1NiJ9"] * 3))
def test_anything_at_all_is_refused_without_a_crash(text: str) -> None:
    for algorithm in PUBLIC:
        assert _ours(text, algorithm) is None


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"kid": 7},
        {"kid": None, "crit": None},
    ],
)
def test_what_must_be_understood_and_is_not_is_refused(header: dict[str, Any]) -> None:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", **header}).encode()).rstrip(b"=")
    signed = head + b"." + base64.urlsafe_b64encode(b'{"sub":"me"}').rstrip(b"=")
    mac = base64.urlsafe_b64encode(jwt.get_algorithm_by_name("HS256").sign(signed, SECRET)).rstrip(b"=")
    with pytest.raises(jws.NotAToken):
        jws.header_of((signed + b"." + mac).decode())


@pytest.mark.parametrize("said", [[], "text", 7, None, ["exp"]])
@pytest.mark.parametrize("algorithm", sorted(PUBLIC))
def test_claims_are_an_object(algorithm: str, said: Any) -> None:
    with pytest.raises(jws.NotAToken):
        jws.claims_of(_signed(algorithm, said), PUBLIC[algorithm])


@given(said=claims)
def test_the_library_reads_what_we_sign(said: dict[str, Any]) -> None:
    token = jws.sign(said, SECRET, kind="a+jwt")
    assert jws.header_of(token) == jws.Header("HS256", None, "a+jwt")
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "a+jwt"}
    read = jwt.PyJWS().decode(token, SECRET, algorithms=["HS256"])
    assert json.loads(read) == jws.claims_of(token, SECRET) == said
