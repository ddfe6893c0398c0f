"""A published set of keys (RFC 7517) as far as it verifies tokens: each key for the one algorithm that it is made for.

The algorithm is read from the key, never from a token, so no token can have a key used for another one; symmetric keys
are passed over, since what is published is no secret.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
_OF_KIND = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
# RFC 7518 section 3.3
_SHORTEST_RSA = 2048
_LONGEST_RSA = 8192
"""Bits: a check takes longer with each, and anybody may send a token to be checked."""
_MOST_KEYS = 100
_LONGEST_NAME = 256


class NotAKeySet(Exception):
    """The document holds no key that could verify a token; the message says why."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys by algorithm and `kid`; `sole`: the key of an algorithm that has one alone. `materials` tells sets apart."""

    named: Mapping[tuple[str, str], PyJWK]
    sole: Mapping[str, PyJWK]
    materials: frozenset[str] = field(repr=False)

    def find(self, algorithm: str, kid: str | None) -> PyJWK | None:
        """The key of a token. Without a `kid` only where there is no choice: with several keys in the set a token must
        name its own (OpenID Connect Core 1.0, section 10.1)."""
        return self.sole.get(algorithm) if kid is None else self.named.get((algorithm, kid))

    def __len__(self) -> int:
        return len(self.materials)


def read(document: bytes) -> KeySet:
    """The set in a JWKS document. Keys of other kinds, for other uses and too weak ones are passed over.

    Raises `NotAKeySet`.
    """
    try:
        told = json.loads(document)
    except (ValueError, RecursionError):
        raise NotAKeySet("it is not JSON") from None
    listed = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        raise NotAKeySet("it has no list `keys`")
    if len(listed) > _MOST_KEYS:
        raise NotAKeySet(f"it has more than {_MOST_KEYS} keys")
    named: dict[tuple[str, str], PyJWK] = {}
    of_algorithm: dict[str, list[PyJWK]] = {}
    materials: set[str] = set()
    for jwk in listed:
        key = _key(jwk)
        if key is None:
            continue
        kid = jwk.get("kid")
        if isinstance(kid, str) and len(kid) <= _LONGEST_NAME:
            named.setdefault((key.algorithm_name, kid), key)
        of_algorithm.setdefault(key.algorithm_name, []).append(key)
        materials.add(json.dumps(jwk, sort_keys=True))
    if not materials:
        raise NotAKeySet("it holds no public key for RS256, ES256 or EdDSA")
    sole = {algorithm: keys[0] for algorithm, keys in of_algorithm.items() if len(keys) == 1}
    return KeySet(named, sole, frozenset(materials))


def _key(jwk: Any) -> PyJWK | None:
    if not isinstance(jwk, dict):
        return None
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if not isinstance(kind, str) or not (curve is None or isinstance(curve, str)):
        return None
    algorithm = _OF_KIND.get((kind, curve))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        return None
    uses = jwk.get("key_ops", ["verify"])
    # a private key that lies open is nobody's proof of anything
    if not isinstance(uses, list) or "verify" not in uses or "d" in jwk:
        return None
    try:
        key = PyJWK(jwk, algorithm)
    except (PyJWTError, ValueError, TypeError, KeyError, OverflowError):
        return None
    if isinstance(key.key, RSAPublicKey) and not _SHORTEST_RSA <= key.key.key_size <= _LONGEST_RSA:
        return None
    return key
