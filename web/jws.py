"""Compact JWS (RFC 7515): what its header says, what it says, and whether a key signed it.

Keys and algorithms are the library's; taking a token apart is our own, because the library's way costs 70 us of CPU a
token, most of it in loops over its characters, and this 10 (`bench/push.py` connects thousands). A test holds both
against each other. Stricter in one thing: base64url has no padding here (RFC 7515 section 2).
"""

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jwt import PyJWK, PyJWTError

from web import base64url

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HEADERS = 64


class NotAToken(Exception):
    """It is no JWS of the one form that is taken here."""


class NotSigned(Exception):
    """The key did not sign it."""


@dataclass(frozen=True, slots=True)
class Header:
    """What chooses a key. Nothing of it is proven before the signature is."""

    algorithm: str
    kid: str | None
    type: str | None


def header_of(token: str) -> Header:
    """Raises `NotAToken`, also for what must be understood and is not (`crit`, RFC 7515 section 4.1.11)."""
    return _header(token.partition(".")[0])


@lru_cache(maxsize=_HEADERS)
def _header(segment: str) -> Header:
    # the same in all tokens of one key
    header = _object(segment)
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)) or "crit" in header:
        raise NotAToken
    if header.get("b64", True) is not True:
        # RFC 7797: the payload would not be what it seems
        raise NotAToken
    return Header(algorithm, kid, kind if isinstance(kind, str) else None)


def claims_of(token: str, key: bytes | PyJWK) -> dict[str, Any]:
    """What it says, once the signature is found good: HS256 by `bytes`, else by the key's one algorithm.

    Whoever calls has made sure that the header names that algorithm. Raises `NotAToken` and `NotSigned`.
    """
    if _COMPACT.fullmatch(token) is None:
        raise NotAToken
    signed, _, signature = token.rpartition(".")
    if isinstance(key, bytes):
        good = hmac.compare_digest(_mac(key, signed.encode()), signature.encode())
    else:
        try:
            raw = base64url.decoded(signature)
        except ValueError:
            raise NotAToken from None
        try:
            # one way to write it: another text would be another token with the same signature
            good = base64url.encoded(raw) == signature.encode() and key.Algorithm.verify(signed.encode(), key.key, raw)
        except (PyJWTError, ValueError, TypeError):
            good = False
    if not good:
        raise NotSigned
    return _object(signed.partition(".")[2])


def sign(claims: Mapping[str, Any], secret: bytes, *, kind: str) -> str:
    """An HS256 token of this type."""
    header = {"alg": "HS256", "typ": kind}
    signed = b".".join(base64url.encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return (signed + b"." + _mac(secret, signed)).decode()


def _mac(secret: bytes, signed: bytes) -> bytes:
    return base64url.encoded(hmac.digest(secret, signed, "sha256"))


def _object(segment: str) -> dict[str, Any]:
    try:
        told = json.loads(base64url.decoded(segment).decode())
    except (ValueError, RecursionError):
        raise NotAToken from None
    if not isinstance(told, dict):
        raise NotAToken
    return told
