"""Share tokens: whoever holds one sees one chapter as its owner does, for a while, and can change nothing.

They are HS256 JWTs under the signing secret with an issuer and a type of their own (RFC 8725 section 3.11), so that
neither kind of token is ever taken for the other, whatever secrets are alike.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from schemas.shares import Share
from web import jws

TYPE = "scenewire-share+jwt"
ISSUER = "scenewire-share"


class Shares:
    """Issues and reads them. The first secret signs, all of them verify."""

    def __init__(self, secrets: Sequence[bytes], *, clock: Callable[[], float] = time.time) -> None:
        self._secrets = tuple(secrets)
        self._clock = clock

    def issue(self, user_id: UUID, chapter_id: UUID, *, life: float) -> Share:
        """A token that shows this user's images of the chapter for `life` seconds."""
        now = int(self._clock())
        expires = now + int(life)
        claims = {"iss": ISSUER, "sub": str(user_id), "chapter_id": str(chapter_id), "iat": now, "exp": expires}
        token = jws.sign(claims, self._secrets[0], kind=TYPE)
        return Share(token=token, expires_at=datetime.fromtimestamp(expires, UTC))

    def read(self, token: str) -> dict[str, Any]:
        """The claims of a token whose header says HS256 and this type. Raises `jws.NotAToken` and `jws.NotSigned`."""
        for secret in self._secrets:
            try:
                claims = jws.claims_of(token, secret)
            except jws.NotSigned:
                continue
            if claims.get("iss") != ISSUER:
                raise jws.NotAToken
            return claims
        raise jws.NotSigned
