"""Real pictures of every kind, drawn when they are asked for."""

import io

from PIL import Image


def drawn(kind: str, size: tuple[int, int] = (160, 90), **options: object) -> bytes:
    """A file of Pillow's format `kind` with a gradient on it."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(out, kind, **options)
    return out.getvalue()


KINDS: list[tuple[str, dict[str, object], str, str]] = [
    ("PNG", {}, "image/png", "png"),
    ("JPEG", {}, "image/jpeg", "jpg"),
    ("JPEG", {"progressive": True}, "image/jpeg", "jpg"),
    ("JPEG", {"exif": b"Exif\x00\x00" + b"\xff\xc0\xff\xd9" * 1_000}, "image/jpeg", "jpg"),
    ("WEBP", {}, "image/webp", "webp"),
    ("WEBP", {"lossless": True}, "image/webp", "webp"),
    ("WEBP", {"exif": b"Exif\x00\x00" + b"\x00" * 20}, "image/webp", "webp"),
    ("AVIF", {}, "image/avif", "avif"),
]
"""Pillow's format, its options, our content type and extension."""
