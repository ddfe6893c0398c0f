"""Names of stored pictures: the record and its content, so that the same key always means the same bytes."""

import re
from uuid import UUID, uuid4

_KEY = re.compile(r"images/[0-9a-f]{2}/([0-9a-f-]{36})-([0-9a-f]{64})\.([a-z0-9]{1,8})")
INCOMING = "incoming"
"""The folder of what is on its way; nobody reads there."""
THUMBNAIL_WIDTH = 480
"""Pixels. It is part of the key: another width makes new ones, and the folder of the old can go."""
CONTENT_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "avif": "image/avif"}


def image_key(record_id: UUID, sha256: str, extension: str) -> str:
    """`images/<first two of the hash>/<record_id>-<sha256>.<extension>`: 256 folders in all."""
    return f"images/{sha256[:2]}/{record_id}-{sha256}.{extension}"


def thumbnail_key(record_id: UUID, sha256: str) -> str:
    """`thumbnails/480/<first two of the hash>/<record_id>-<sha256>.webp`; the hash is the picture's."""
    return f"thumbnails/{THUMBNAIL_WIDTH}/{sha256[:2]}/{record_id}-{sha256}.webp"


def parts(key: str) -> tuple[UUID, str, str] | None:
    """(record_id, sha256, extension) of an image key; None for a key of another form."""
    match = _KEY.fullmatch(key)
    return (UUID(match[1]), match[2], match[3]) if match else None


def content_type(key: str) -> str:
    """By the extension, which the first bytes decided when the picture was stored."""
    return CONTENT_TYPES.get(key.rpartition(".")[2], "application/octet-stream")


def incoming_key() -> str:
    """A name nobody reads, for bytes on their way."""
    return f"{INCOMING}/{uuid4().hex}"
