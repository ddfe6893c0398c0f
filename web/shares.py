"""Share tokens: whoever holds one sees one chapter as its owner does, for a while, and can change nothing.

They are HS256 JWTs under the signing secret with an issuer and a type of their own (RFC 8725 section 3.11), so that
neither kind of token is ever taken for the other, whatever secrets are alike.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import jwt

from schemas.shares import Share

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
        token = jwt.encode(claims, self._secrets[0], algorithm="HS256", headers={"typ": TYPE})
        return Share(token=token, expires_at=datetime.fromtimestamp(expires, UTC))

    def read(self, token: str) -> dict[str, Any]:
        """The claims of a token of this type, `exp` not judged. Raises `jwt.PyJWTError`."""
        for number, secret in enumerate(self._secrets, start=1):
            try:
                return jwt.decode(
                    token,
                    secret,
                    algorithms=["HS256"],
                    issuer=ISSUER,
                    options={
                        "require": ["exp", "iss", "sub", "chapter_id"],
                        "verify_exp": False,
                        "verify_iat": False,
                        "verify_sub": False,
                        "verify_aud": False,
                    },
                )
            except jwt.InvalidSignatureError:
                if number == len(self._secrets):
                    raise
        raise AssertionError("there is always a secret")
