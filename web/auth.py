"""Bearer tokens: who calls and what they pay for."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import jwt
import structlog

from schemas.words import Tier
from web import jws, keyset, shares
from web.claims import BadClaim, check, expiry_of, scopes_of, tier_of, uuid_of
from web.health import Health
from web.problems import Refused
from web.published import PublishedKeys
from web.settings import WebSettings
from web.shares import Shares

log = structlog.get_logger()

ADMIN = "admin"
"""The scope of operators."""
LEEWAY = 30.0
"""Seconds a token is still taken after its `exp`: the clocks of issuer and server differ."""
_REMEMBERED = 10_000
_LONGEST = 16 * 1024
# RFC 7518 section 3.2: a key of the hash's size or larger
_SHORTEST_SECRET = 32
_INSUFFICIENT = 'Bearer realm="scenewire", error="insufficient_scope"'


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
        detail = f"This needs a token with the scope '{scope}'."
        # RFC 6750 section 3.1
        headers = {"WWW-Authenticate": f'{_INSUFFICIENT}, scope="{scope}"'}
        super().__init__(403, "forbidden", detail, headers=headers)


class NotShared(Refused):
    """403: a share token, where it does not reach."""

    def __init__(self) -> None:
        detail = "This token shows one chapter, and nothing else: use a token of your own here."
        super().__init__(403, "share_token_refused", detail, headers={"WWW-Authenticate": _INSUFFICIENT})


class KeysAway(Refused):
    """503: whether the token is good cannot be told, since its issuer's keys cannot be read now."""

    def __init__(self) -> None:
        detail = "The keys that tokens are checked by cannot be read at the moment; please try again."
        super().__init__(503, "keys_unavailable", detail, headers={"Retry-After": "2"})


class KeyUnknown(KeysAway):
    """The token names a key that may have been published since the last look: `Verifier.verified` takes another."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified token. `expires_at` is its `exp` (seconds since 1970), before any leeway.

    `chapter_id`: of a share token, the one chapter of the user's that it shows; None for a token of the user's own.
    """

    user_id: UUID
    tier: Tier
    expires_at: float
    token_hash: bytes
    scopes: frozenset[str] = frozenset()
    chapter_id: UUID | None = None


class Verifier:
    """Verifies tokens and remembers good ones by their hash until they expire, those that were used last.

    HS256 by `SCENEWIRE_JWT_SECRET`, RS256, ES256 and EdDSA by the keys that the issuer publishes (`run` keeps them up
    to date; `jwks` takes the place of the network). A token's algorithm chooses among what is configured, and every key
    is for one algorithm alone: a public key is never a secret.
    """

    def __init__(
        self,
        settings: WebSettings,
        *,
        clock: Callable[[], float] = time.time,
        jwks: httpx.AsyncBaseTransport | None = None,
        remembered: int = _REMEMBERED,
    ) -> None:
        self._secret = settings.jwt_secret.get_secret_value().encode() if settings.jwt_secret is not None else None
        self._published = PublishedKeys(settings, transport=jwks) if settings.jwks_url is not None else None
        self._shares = Shares(settings.signing_secrets)
        self._audience = settings.jwt_audience
        self._clock = clock
        self._remembered = remembered
        self._known: OrderedDict[bytes, Caller] = OrderedDict()
        self._withdrawals = 0
        secrets = {"JWT_SECRET": (self._secret,), "SIGNING_SECRET": settings.signing_secrets}
        for name, given in secrets.items():
            if any(secret is not None and len(secret) < _SHORTEST_SECRET for secret in given):
                log.warning("secret_short", advice=f"use 32 random bytes or more for SCENEWIRE_{name}")

    async def run(self) -> None:
        """Keep the published keys up to date until cancelled; ends at once where there are none."""
        if self._published is not None:
            await self._published.run()

    def report(self, health: Health) -> None:
        """Not ready while nobody at all can be verified: no secret, and the keys were never read."""
        if self._published is not None and self._secret is None:
            health.depends_on("jwks", self._published.healthy)

    def verify(self, token: str) -> Caller:
        """The caller a token names, its own or a share token's.

        Raises `Unauthorized`, `KeysAway` and, where `verified` would take another look, `KeyUnknown`.
        """
        if len(token) > _LONGEST or not token.isascii():
            raise Unauthorized("token_invalid", "The token is not a JWT.")
        if self._published is not None and self._published.withdrawals != self._withdrawals:
            self._withdrawals = self._published.withdrawals
            # what a withdrawn key has signed is nobody's any more; the others are quickly verified again
            self._known.clear()
        digest = hashlib.sha256(token.encode()).digest()
        caller = self._known.get(digest)
        if caller is None:
            caller = self._decode(token, digest)
            self._known[digest] = caller
            if len(self._known) > self._remembered:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(digest)
        if self._clock() >= caller.expires_at + LEEWAY:
            self._known.pop(digest, None)
            raise Unauthorized("token_expired", "The token has expired: get a new one.")
        return caller

    async def verified(self, token: str) -> Caller:
        """The same, after another look at the published keys where the token names an unknown one.

        Raises `Unauthorized` and `KeysAway`.
        """
        try:
            return self.verify(token)
        except KeyUnknown:
            assert self._published is not None
            await self._published.look()
        return self.verify(token)

    async def of_headers(self, authorization: str | None) -> Caller:
        """The caller of a request, from its Authorization header, by a token of their own.

        Raises `Unauthorized`, `KeysAway` and `NotShared`.
        """
        caller = await self.viewer(authorization)
        if caller.chapter_id is not None:
            raise NotShared
        return caller

    async def viewer(self, authorization: str | None) -> Caller:
        """The same, who may also hold a share token: show them nothing but of `chapter_id`, where it is set.

        Raises `Unauthorized` and `KeysAway`.
        """
        scheme, _, token = (authorization or "").strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("token_missing", "Send a token: 'Authorization: Bearer <JWT>'.")
        return await self.verified(token)

    def _decode(self, token: str, digest: bytes) -> Caller:
        try:
            header = jws.header_of(token)
            shared = header.type == shares.TYPE
            claims = self._shared(token, header) if shared else self._own(token, header)
            expires_at = expiry_of(claims)
            check(claims, audience=None if shared else self._audience, now=self._clock(), leeway=LEEWAY)
        except jws.NotAToken:
            raise Unauthorized("token_invalid", "The token is not a JWT of the kind that is taken here.") from None
        except jws.NotSigned:
            raise Unauthorized("token_invalid", "The token's signature is not ours.") from None
        except BadClaim as error:
            raise Unauthorized("token_invalid", str(error)) from None
        subject = uuid_of(claims, "sub")
        if subject is None:
            raise Unauthorized("subject_not_uuid", "The token's sub must be the user's UUID.")
        if not shared:
            return Caller(subject, tier_of(claims), expires_at, digest, scopes_of(claims))
        chapter_id = uuid_of(claims, "chapter_id")
        if chapter_id is None:
            raise Unauthorized("token_invalid", "The token names no chapter.")
        return Caller(subject, Tier.STANDARD, expires_at, digest, chapter_id=chapter_id)

    def _shared(self, token: str, header: jws.Header) -> dict[str, Any]:
        if header.algorithm != "HS256":
            raise jws.NotSigned
        return self._shares.read(token)

    def _own(self, token: str, header: jws.Header) -> dict[str, Any]:
        claims = jws.claims_of(token, self._key(header.algorithm, header.kid))
        if claims.get("iss") == shares.ISSUER:
            # a share token's claims under another type: nobody issues that
            raise jws.NotAToken
        return claims

    def _key(self, algorithm: str, kid: str | None) -> bytes | jwt.PyJWK:
        """What tokens of this algorithm are checked by."""
        if algorithm == "HS256" and self._secret is not None:
            return self._secret
        if algorithm not in keyset.ALGORITHMS or self._published is None:
            raise Unauthorized("token_invalid", "The token is signed by an algorithm that is not taken here.")
        keys = self._published.keys
        key = keys.find(algorithm, kid) if keys is not None else None
        if key is not None:
            return key
        if self._published.may_look:
            raise KeyUnknown
        if self._published.trouble is not None:
            raise KeysAway
        raise Unauthorized("token_invalid", "The token names no key that its issuer publishes.")


def must_have(caller: Caller, scope: str) -> None:
    """Raises `Forbidden` unless the caller's token has `scope`."""
    if scope not in caller.scopes:
        raise Forbidden(scope)
