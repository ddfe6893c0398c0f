"""Bearer tokens: who calls and what they pay for."""

import hashlib
import math
import re
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import jwt
import structlog
from jwt.warnings import InsecureKeyLengthWarning

from schemas.words import Tier
from web.problems import Refused
from web.settings import WebSettings

log = structlog.get_logger()

ADMIN = "admin"
"""The scope of operators."""
LEEWAY = 30.0
"""Seconds a token is still taken after its `exp`: the clocks of issuer and server differ."""
_REMEMBERED = 10_000
_LONGEST = 16 * 1024
# RFC 7518 section 3.2: a key of the hash's size or larger
_SHORTEST_SECRET = 32
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class Unauthorized(Refused):
    """401. `code` is one of token_missing, token_invalid, token_expired, subject_not_uuid."""

    def __init__(self, code: str, message: str) -> None:
        challenge = 'Bearer realm="scenewire"'
        if code != "token_missing":
            # RFC 6750 section 3.1; a quoted string must stay one
            challenge += f', error="invalid_token", error_description="{message}"'
        super().__init__(401, code, message, headers={"WWW-Authenticate": challenge})


class Forbidden(Refused):
    """403: the token is good and does not reach so far."""

    def __init__(self, scope: str) -> None:
        # RFC 6750 section 3.1
        challenge = f'Bearer realm="scenewire", error="insufficient_scope", scope="{scope}"'
        detail = f"This needs a token with the scope '{scope}'."
        super().__init__(403, "forbidden", detail, headers={"WWW-Authenticate": challenge})


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified token. `expires_at` is its `exp` (seconds since 1970), before any leeway."""

    user_id: UUID
    tier: Tier
    expires_at: float
    token_hash: bytes
    scopes: frozenset[str] = frozenset()


class Verifier:
    """Verifies tokens and remembers good ones by their hash until they expire."""

    def __init__(self, settings: WebSettings, *, clock: Callable[[], float] = time.time) -> None:
        assert settings.jwt_secret is not None
        self._secret = settings.jwt_secret.get_secret_value()
        self._audience = settings.jwt_audience
        self._clock = clock
        self._known: OrderedDict[bytes, Caller] = OrderedDict()
        if len(self._secret.encode()) < _SHORTEST_SECRET:
            log.warning("jwt_secret_short", advice="use 32 random bytes or more for SCENEWIRE_JWT_SECRET")
            # said once, not at every token
            warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)

    def verify(self, token: str) -> Caller:
        """The caller a token names. Raises `Unauthorized`."""
        if len(token) > _LONGEST or not token.isascii():
            raise Unauthorized("token_invalid", "The token is not a JWT.")
        digest = hashlib.sha256(token.encode()).digest()
        caller = self._known.get(digest)
        if caller is None:
            caller = self._decode(token, digest)
            self._known[digest] = caller
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if self._clock() >= caller.expires_at + LEEWAY:
            self._known.pop(digest, None)
            raise Unauthorized("token_expired", "The token has expired: get a new one.")
        return caller

    def of_headers(self, authorization: str | None) -> Caller:
        """The caller of a request, from its Authorization header. Raises `Unauthorized`."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("token_missing", "Send a token: 'Authorization: Bearer <JWT>'.")
        return self.verify(token)

    def _decode(self, token: str, digest: bytes) -> Caller:
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                audience=self._audience,
                leeway=LEEWAY,
                # exp is checked by us at each use; a wrong sub has a code of its own
                options={
                    "require": ["exp"],
                    "verify_exp": False,
                    "verify_sub": False,
                    "verify_aud": self._audience is not None,
                },
            )
            expires_at = float(claims["exp"])
        except jwt.MissingRequiredClaimError as error:
            raise Unauthorized("token_invalid", f"The token lacks the claim '{error.claim}'.") from None
        except jwt.InvalidAudienceError:
            raise Unauthorized("token_invalid", "The token is meant for another audience.") from None
        except jwt.ImmatureSignatureError:
            raise Unauthorized("token_invalid", "The token is not valid yet.") from None
        except jwt.InvalidSignatureError:
            raise Unauthorized("token_invalid", "The token's signature is not ours.") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # odd claims (an infinite exp, say) fail in the library's own arithmetic
            raise Unauthorized("token_invalid", "The token is not a valid HS256 JWT.") from None
        if not math.isfinite(expires_at):
            raise Unauthorized("token_invalid", "The token's exp is not a time.")
        subject = claims.get("sub")
        if not isinstance(subject, str) or _UUID.fullmatch(subject) is None:
            raise Unauthorized("subject_not_uuid", "The token's sub must be the user's UUID.")
        return Caller(UUID(subject), tier_of(claims), expires_at, digest, scopes_of(claims))


def must_have(caller: Caller, scope: str) -> None:
    """Raises `Forbidden` unless the caller's token has `scope`."""
    if scope not in caller.scopes:
        raise Forbidden(scope)


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
