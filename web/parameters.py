"""Values from paths and headers, checked before anything else sees them."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from schemas.words import SCENE_NUMBER_MAX
from web.problems import Refused, invalid

# uuid.UUID itself also takes braces, urn: and misplaced hyphens
_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_NUMBER = re.compile(r"[0-9]{1,10}")
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,200}")


def uuid_of(path_params: Mapping[str, Any], name: str) -> UUID:
    """A UUID in the path. Raises `Refused` (422) that names the field."""
    text = str(path_params[name])
    if _UUID.fullmatch(text) is None:
        raise invalid(name, "must be a UUID")
    return UUID(text)


def scene_number_of(path_params: Mapping[str, Any]) -> int:
    """`scene_number` in the path, 1 to 2,147,483,647. Raises `Refused` (422)."""
    text = str(path_params["scene_number"])
    number = int(text) if _NUMBER.fullmatch(text) is not None else 0
    if not 1 <= number <= SCENE_NUMBER_MAX:
        raise invalid("scene_number", f"must be a whole number from 1 to {SCENE_NUMBER_MAX}")
    return number


def idempotency_key_of(header: str | None) -> str | None:
    """The Idempotency-Key, 1 to 200 printable ASCII characters. Raises `Refused` (422)."""
    if header is None:
        return None
    if _PRINTABLE.fullmatch(header) is None:
        raise invalid("Idempotency-Key", "must be 1 to 200 printable ASCII characters")
    return header


def must_be_json(content_type: str | None) -> None:
    """Refuse (415) what is clearly something else; an absent type, or one of a plain `curl -d`, is tolerated."""
    if content_type is None:
        return
    media = content_type.partition(";")[0].strip().lower()
    if media in ("", "application/json", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"):
        return
    if media.startswith("application/") and media.endswith("+json"):
        return
    raise Refused(415, "not_json", "Send the body as application/json.")
