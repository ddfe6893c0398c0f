"""Addresses, tokens and origins: what the HTTP processes (and who signs picture addresses) must agree on."""

import hmac
import re
from functools import cached_property
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_DEFAULT_PORTS = {"http": 80, "https": 443}
# PEM, OpenSSH's, and a JWK or a set of them
_KEY_PAIRS = re.compile(r"\s*(?:-----BEGIN|ssh-|ecdsa-|\{[^}]*\"(?:kty|keys)\")")


class HealthSettings(BaseSettings):
    """When a process counts as alive."""

    model_config = SettingsConfigDict(
        env_prefix="SCENEWIRE_", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    health_look: float = Field(
        default=5.0, gt=0, description="seconds between two looks at whether dependencies answer and work goes on"
    )
    health_patience: float = Field(
        default=2.0, gt=0, description="seconds that a dependency, or the question what waits, gets to be answered"
    )
    health_stall: float = Field(
        default=60.0,
        gt=0,
        description="seconds without progress, although there is work and what it needs answers, until "
        "`/healthz` is 503; above the sum of the two before",
    )

    @model_validator(mode="after")
    def _seen_in_time(self) -> Self:
        if self.health_stall <= self.health_look + self.health_patience:
            raise ValueError(
                "SCENEWIRE_HEALTH_STALL must be above SCENEWIRE_HEALTH_LOOK + SCENEWIRE_HEALTH_PATIENCE: a process has "
                "to see that a dependency is away before it counts as stalled"
            )
        return self


class WebSettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="SCENEWIRE_", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    api_url: str = Field(default="http://127.0.0.1:8700", description="how browsers reach the producer")
    push_url: str = Field(default="http://127.0.0.1:8701", description="how browsers reach the notifier")
    jwt_secret: SecretStr | None = Field(
        default=None, description="the HS256 secret that bearer tokens are signed with; 32 bytes or more"
    )
    jwks_url: str | None = Field(
        default=None,
        description="where the keys of RS256, ES256 and EdDSA tokens are published (JWKS); https, or http on loopback",
    )
    jwks_refresh: float = Field(default=300.0, gt=0, description="seconds after which the published keys are read anew")
    jwks_floor: float = Field(
        default=10.0,
        gt=0,
        description="seconds between two readings of the published keys because of tokens that name an unknown one",
    )
    jwks_timeout: float = Field(default=5.0, gt=0, description="seconds that the published keys may take to be read")
    jwt_audience: str | None = Field(default=None, description="the `aud` that tokens must name; unset: any")
    signing_secret: SecretStr | None = Field(
        default=None,
        description="signs picture addresses, cursors and share tokens; a comma-separated list rotates: the first "
        "signs, all are accepted; unset: derived from the JWT secret",
    )
    allowed_origins: str | None = Field(
        default=None,
        description="origins whose pages may call and open sockets, separated by commas, or `*`; "
        "unset: those of the API and push URLs",
    )

    @field_validator("api_url", "push_url")
    @classmethod
    def _absolute(cls, url: str) -> str:
        origin_of(url)
        return url.rstrip("/")

    @field_validator("jwks_url")
    @classmethod
    def _protected(cls, url: str | None) -> str | None:
        if url is None:
            return None
        origin_of(url)
        if not url.startswith("https://") and not is_loopback(url):
            # whoever sits on the line could hand us keys of their own
            raise ValueError("must be an https URL; plain http is for this machine (127.0.0.1, localhost) alone")
        return url

    @field_validator("jwt_secret")
    @classmethod
    def _secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is None:
            return None
        if not secret.get_secret_value():
            raise ValueError("is empty: leave it unset, or give 32 random bytes or more")
        if _KEY_PAIRS.match(secret.get_secret_value()) is not None:
            # a public key as the secret of HS256 would let everybody sign
            raise ValueError(
                "is a key of a pair, not a secret: publish its public half, and name it in SCENEWIRE_JWKS_URL"
            )
        return secret

    @model_validator(mode="after")
    def _can_verify(self) -> Self:
        if self.jwt_secret is None and self.jwks_url is None:
            raise ValueError(
                "SCENEWIRE_JWT_SECRET is required, the HS256 secret that bearer tokens are signed with; "
                "or SCENEWIRE_JWKS_URL, where the keys of RS256, ES256 and EdDSA tokens are published"
            )
        if self.jwt_secret is None and self.signing_secret is None:
            raise ValueError(
                "SCENEWIRE_SIGNING_SECRET is required where SCENEWIRE_JWT_SECRET is not set: it signs picture "
                "addresses, cursors and share tokens; 32 random bytes or more"
            )
        if not self.signing_secrets:
            raise ValueError("SCENEWIRE_SIGNING_SECRET is set but names no secret")
        return self

    @cached_property
    def signing_secrets(self) -> tuple[bytes, ...]:
        """The first one signs, all of them verify."""
        if self.signing_secret is not None:
            listed = self.signing_secret.get_secret_value().split(",")
            return tuple(one.strip().encode() for one in listed if one.strip())
        assert self.jwt_secret is not None
        return (hmac.digest(self.jwt_secret.get_secret_value().encode(), b"scenewire signing v1", "sha256"),)

    @cached_property
    def picture_secrets(self) -> tuple[str, ...]:
        """The same, as picture addresses are signed with them."""
        return tuple(secret.hex() for secret in self.signing_secrets)

    @cached_property
    def origins(self) -> frozenset[str]:
        """Allowed origins as browsers write them; `*` allows all."""
        if self.allowed_origins is None:
            return frozenset({origin_of(self.api_url), origin_of(self.push_url)})
        listed = (one.strip() for one in self.allowed_origins.split(","))
        return frozenset(one if one == "*" else origin_of(one) for one in listed if one)

    def allows(self, origin: str | None) -> bool:
        """Whether a request or socket with this `Origin` header is welcome; none sent is."""
        return origin is None or "*" in self.origins or origin in self.origins


def origin_of(url: str) -> str:
    """`scheme://host[:port]` in the form of an `Origin` header. Raises ValueError for anything not http or https."""
    parts = urlsplit(url.strip())
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("must be an absolute http or https URL, such as https://api.example.com")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if parts.port is None or parts.port == _DEFAULT_PORTS[parts.scheme]:
        return f"{parts.scheme}://{host}"
    return f"{parts.scheme}://{host}:{parts.port}"


def is_loopback(url: str) -> bool:
    """Whether the address cannot lead off this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
