"""Reading the loosely typed fields of the provider's JSON: each is seen as several types, some of them wrong.

Every function takes whatever was in the field and never raises; what cannot be read is None or empty.
"""

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from schemas import jobs

_URL_MAX = 4_000
_LINKS_MAX = 16
_RETRY_AFTER_MAX = 3_600.0
"""Seconds; a longer wait is more likely a wrong unit than a wish."""
_WAIT = re.compile(r"wait (?:for )?(\d{1,4}) ?s", re.IGNORECASE)
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")


def request_id(body: Mapping[str, object]) -> str | None:
    """What `schemas.jobs.request_id` finds, else the end of `fetch_result`."""
    if found := jobs.request_id(body):
        return found
    if url := link(body.get("fetch_result")):
        head, _, tail = url.partition("?")[0].rstrip("/").rpartition("/")
        if head.endswith("/fetch") and (text := jobs.plain(tail)):
            return text
    return None


def track_id(body: Mapping[str, object]) -> str | None:
    """`track_id`, our own identifier; the provider promises neither to repeat it nor that it is unique."""
    value = body.get("track_id")
    return (jobs.plain(value) or None) if isinstance(value, str) else None


def link(value: object) -> str | None:
    """An http(s) address, unchecked otherwise."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    if len(text) > _URL_MAX or not text.isprintable() or not text.lower().startswith(("https://", "http://")):
        return None
    return text


def links(value: object) -> list[str]:
    """`output` and `proxy_links`: a list, an object of addresses, one address, or "" for none."""
    values: list[object]
    if isinstance(value, list):
        values = value[:_LINKS_MAX]
    elif isinstance(value, dict):
        values = list(value.values())[:_LINKS_MAX]
    else:
        values = [value]
    found: list[str] = []
    for item in values:
        inner = item.get("url") if isinstance(item, dict) else item
        text = link(inner)
        if text is not None and text not in found:
            found.append(text)
    return found


def flag(value: object) -> bool:
    """`nsfw_content_detected`: a boolean, its name, a number, or one of them for each picture."""
    if isinstance(value, list):
        return any(flag(item) for item in value)
    if isinstance(value, str):
        return value.strip().lower() in ("true", "yes", "1")
    return value is True or value == 1


def seconds(value: object) -> float | None:
    """A finite, non-negative number of seconds, also from text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def retry_after(stated: object, headers: Mapping[str, str], hint: str) -> float | None:
    """Seconds to wait: body's `retry_after`, `Retry-After` (seconds or a date), `X-RateLimit-Reset` (epoch), the hint.

    Only the first is documented (rate-limits page); the reset header is read by the provider's own CLI, and the legacy
    answer says "please wait for 30 seconds" in `tips`.
    """
    wait = seconds(stated)
    if wait is None and (header := headers.get("retry-after")):
        wait = seconds(header)
        if wait is None:
            try:
                wait = max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
            except (ValueError, TypeError, OverflowError):
                wait = None
    if wait is None and (reset := seconds(headers.get("x-ratelimit-reset"))) is not None:
        ahead = reset - time.time()
        wait = ahead if 0 < ahead <= _RETRY_AFTER_MAX else None
    if wait is None and (match := _WAIT.search(hint)):
        wait = float(match.group(1))
    return None if wait is None else min(wait, _RETRY_AFTER_MAX)


def flat(value: object, depth: int = 4) -> str:
    """A message that may be text, a list, or an object of lists (validation) as one line, field names included."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool) or depth == 0:
        return ""
    if isinstance(value, list):
        return "; ".join(text for item in value[:20] if (text := flat(item, depth - 1)))
    if isinstance(value, dict):
        pairs = list(value.items())[:20]
        return "; ".join(f"{name}: {text}" for name, item in pairs if (text := flat(item, depth - 1)))
    return str(value)


def printable(text: str) -> str:
    """One line without control characters and lone surrogates (Postgres holds neither NUL nor the latter)."""
    line = " ".join(text.translate(_CONTROLS).split())
    return line.encode("utf-8", "replace").decode("utf-8")
