"""What of a published set verifies tokens, and for which algorithm."""

import json
from typing import Any

import jwt
import pytest

from tests.issuing import SigningKey
from web import keyset
from web.keyset import NotAKeySet

RSA, EC, ED = SigningKey("RS256", "r"), SigningKey("ES256", "e"), SigningKey("EdDSA", "d")


def _read(*jwks: Any) -> keyset.KeySet:
    return keyset.read(json.dumps({"keys": jwks}).encode())


def test_each_key_is_found_by_its_own_algorithm_alone() -> None:
    keys = _read(RSA.jwk, EC.jwk, ED.jwk)
    assert len(keys) == 3
    for key in (RSA, EC, ED):
        for algorithm in ("RS256", "ES256", "EdDSA", "HS256", "RS512", "none"):
            found = keys.find(algorithm, key.kid)
            assert (found is not None) == (algorithm == key.algorithm), (algorithm, key.algorithm)
            assert found is None or found.algorithm_name == algorithm


def test_without_a_kid_there_must_be_no_choice() -> None:
    other = SigningKey("ES256", "e2")
    keys = _read(RSA.jwk, EC.jwk, other.jwk)
    assert keys.find("RS256", None) is keys.find("RS256", "r")
    assert keys.find("ES256", None) is None
    assert keys.find("EdDSA", None) is None
    nameless = SigningKey("EdDSA", None)
    assert _read(nameless.jwk).find("EdDSA", None) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"alg": "RS512"},
        {"alg": "PS256"},
        {"alg": "HS256"},
        {"alg": None},
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "EC"},
        {"kty": ["RSA"]},
        {"crv": {"P": 256}},
        {"n": "AQAB"},
        {"n": None},
        {"n": 7},
        {"e": "%"},
        {"d": "c2VjcmV0"},
    ],
)
def test_what_is_not_for_this_is_passed_over(changed: dict[str, Any]) -> None:
    assert len(_read({**RSA.jwk, **changed}, EC.jwk)) == 1
    with pytest.raises(NotAKeySet, match="no public key"):
        _read({**RSA.jwk, **changed})


def test_weak_and_monstrous_keys_are_passed_over() -> None:
    weak = SigningKey("RS256", "weak", bits=1024)
    monster = {**RSA.jwk, "kid": "monster", "n": "_" * 2800}
    keys = _read(weak.jwk, monster, RSA.jwk)
    assert len(keys) == 1
    assert keys.find("RS256", "weak") is None
    assert keys.find("RS256", "monster") is None


def test_other_curves_are_passed_over() -> None:
    p384 = {"kty": "EC", "crv": "P-384", "kid": "x", "x": "A" * 64, "y": "A" * 64}
    off_the_curve = {**EC.jwk, "kid": "off", "y": EC.jwk["x"]}
    ed448 = {"kty": "OKP", "crv": "Ed448", "kid": "y", "x": "A" * 76}
    assert len(_read(p384, off_the_curve, ed448, "a key", None, ED.jwk)) == 1


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[]", "no list"),
        (b'{"keys": {}}', "no list"),
        (b'{"keys": []}', "no public key"),
        (json.dumps({"keys": [{}] * 101}).encode(), "more than 100"),
    ],
)
def test_what_is_no_set_says_why(document: bytes, why: str) -> None:
    with pytest.raises(NotAKeySet, match=why):
        keyset.read(document)


def test_a_found_key_checks_what_it_signed() -> None:
    keys = _read(RSA.jwk, EC.jwk, ED.jwk)
    for key in (RSA, EC, ED):
        found = keys.find(key.algorithm, key.kid)
        assert found is not None
        assert jwt.decode(key.token(), found, algorithms=[key.algorithm])["sub"]
