"""Key and headers of an event exactly as it had them, kept as jsonb: `dead_letters.original`, `outbox.original`.

Everything is base64, names too: a key is any bytes, and text in Postgres holds no NUL.
"""

import base64
from dataclasses import dataclass

from pydantic_core import from_json, to_json


@dataclass(frozen=True, slots=True)
class Original:
    """`headers` in their order, one name as often as it stood there; a key or value may be null."""

    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    def as_json(self) -> str:
        """The column's text."""
        headers = [[_written(name.encode()), _written(value)] for name, value in self.headers]
        return to_json({"key": _written(self.key), "headers": headers}).decode()


def read(column: str | None) -> Original | None:
    """What the column's text holds; None for null."""
    if column is None:
        return None
    kept = from_json(column)
    headers = (((_bytes(name) or b"").decode(), _bytes(value)) for name, value in kept["headers"])
    return Original(_bytes(kept["key"]), tuple(headers))


def of_ours(headers: str | None) -> Original:
    """Of an event of ours that the relay could not send: its key stands among its headers (storage/outbox.py)."""
    kept: dict[str, object] = from_json(headers) if headers else {}
    key = kept.pop("key", None)
    return Original(
        None if key is None else str(key).encode(),
        tuple(
            (name, (value if isinstance(value, str) else to_json(value).decode()).encode())
            for name, value in kept.items()
        ),
    )


def _written(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
