"""What a token says of its bearer, once its signature is found good (RFC 7519 section 4.1)."""

import math
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from schemas.words import Tier

_UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class BadClaim(Exception):
    """The message is a sentence for whoever sent the token."""


def expiry_of(claims: Mapping[str, Any]) -> float:
    """`exp`, in seconds since 1970; required. Raises `BadClaim`."""
    if "exp" not in claims:
        raise BadClaim("The token lacks the claim 'exp'.")
    return _time(claims["exp"], "exp")


def check(claims: Mapping[str, Any], *, audience: str | None, now: float, leeway: float) -> None:
    """Whether it is meant for us (where there is an `audience`), and from now on. Raises `BadClaim`."""
    for name in ("nbf", "iat"):
        if name in claims and _time(claims[name], name) > now + leeway:
            raise BadClaim("The token is not valid yet.")
    if audience is None:
        return
    if "aud" not in claims:
        raise BadClaim("The token lacks the claim 'aud'.")
    named = claims["aud"]
    if audience not in (named if isinstance(named, list) else [named]):
        raise BadClaim("The token is meant for another audience.")


def uuid_of(claims: Mapping[str, Any], name: str) -> UUID | None:
    """The UUID that a claim is; None for anything else."""
    claim = claims.get(name)
    return UUID(claim) if isinstance(claim, str) and _UUID_TEXT.fullmatch(claim) is not None else None


def scopes_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """The claim `scope`: words with spaces between them (RFC 8693 section 4.2, RFC 9068), or a list of them."""
    claim = claims.get("scope")
    if isinstance(claim, str):
        return frozenset(claim.split(" ")) - {""}
    return frozenset(one for one in claim if isinstance(one, str)) if isinstance(claim, list) else frozenset()


def tier_of(claims: Mapping[str, Any]) -> Tier:
    """`app_metadata.user_tier`, else `user_tier`, else `standard`; an unknown tier is `standard`."""
    metadata = claims.get("app_metadata")
    if isinstance(metadata, Mapping) and metadata.get("user_tier") is not None:
        return Tier.of(metadata["user_tier"])
    return Tier.of(claims.get("user_tier", Tier.STANDARD))


def _time(claim: Any, name: str) -> float:
    # a number, with or without fractions; true and false are numbers to Python alone
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        raise BadClaim(f"The token's {name} is not a time.")
    try:
        seconds = float(claim)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise BadClaim(f"The token's {name} is not a time.")
    return seconds
