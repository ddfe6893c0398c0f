"""Secrets out of whatever is about to leave the process: log events, error messages, headers of dead letters.

By name: a mapping's `key`, `token`, `authorization`, `secret`, `password` and what ends in them. By look: bearer
values, JWTs, passwords in URLs, secrets in JSON or query text, and the signature of a picture's address, which is a
lasting capability. By value: the process's own secrets, once `remember` was told them.
"""

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(
    r"(?:^|[_\-. ])(?:api_?key|key|token|jwt|authorization|cookie|secrets?|password|passwd|credentials?)$",
    re.IGNORECASE,
)
_HARMLESS_NAMES = frozenset({"image_key", "partition_key", "partitionkey", "kafka_key", "primary_key", "claim_token"})

_WORD = r"[A-Za-z0-9_\-]*(?:api_?key|key|token|authorization|secret|password|passwd)"
_LOOKS: tuple[tuple[re.Pattern[str], str], ...] = (
    # RFC 6750 and RFC 7617
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=\-]{6,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"base64url\.bearer\.[A-Za-z0-9._\-]+"), f"base64url.bearer.{REDACTED}"),
    # a JWT anywhere: base64url of '{"' is eyJ
    (re.compile(r"eyJ[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?"), REDACTED),
    (re.compile(r"(\w+://[^\s:/@]*):[^\s@]+@"), rf"\1:{REDACTED}@"),
    # "key": "..." in JSON or a Python repr, escaped or not
    (re.compile(rf"""(\\?["']{_WORD}\\?["']\s*:\s*\\?["'])[^"'\\]+""", re.IGNORECASE), rf"\1{REDACTED}"),
    # key=... in a query, a form or a libpq string
    (re.compile(rf"\b({_WORD})=(?!\s)[^\s&\"',;)\]}}]+", re.IGNORECASE), rf"\1={REDACTED}"),
    (re.compile(r"(/(?:file|thumb)/)[^\s/.\"']+(\.\w+)"), rf"\1{REDACTED}\2"),
    # the token of a webhook's address, slashes escaped or not
    (re.compile(r"(\\?/hooks\\?/modelslab\\?/)[A-Za-z0-9_\-]+"), rf"\1{REDACTED}"),
)
_SHORTEST_SECRET = 6
_MAX_DEPTH = 8

_remembered: set[str] = set()


def remember(*secrets: str | None) -> None:
    """Replace these values from now on wherever they appear. Shorter ones than 6 characters would blot out words."""
    _remembered.update(secret for secret in secrets if secret is not None and len(secret) >= _SHORTEST_SECRET)


def redact(text: str) -> str:
    """The text without what looks like a secret. Never raises; text without one comes back unchanged."""
    for secret in _remembered:
        if secret in text:
            text = text.replace(secret, REDACTED)
    for look, replacement in _LOOKS:
        text = look.sub(replacement, text)
    return text


def redact_value(value: Any, name: str = "", depth: int = 0) -> Any:
    """The same for what a log event may hold: mappings and sequences are copied, other objects become their text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_NAME.search(name) and name not in _HARMLESS_NAMES:
        return REDACTED
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bytes | bytearray):
        return redact(bytes(value).decode("utf-8", "backslashreplace"))
    if depth >= _MAX_DEPTH:
        return redact(str(value))
    if isinstance(value, Mapping):
        return {str(key): redact_value(item, str(key), depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_value(item, "", depth + 1) for item in value]
    return redact(str(value))
