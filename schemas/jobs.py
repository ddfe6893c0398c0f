"""The provider's name of a job, as its loosely typed JSON gives it: what a webhook and an answer have in common."""

from collections.abc import Mapping

ID_MAX = 200
"""Characters; whatever is longer is no id."""


def request_id(body: Mapping[str, object]) -> str | None:
    """`id` (integer in the schema, a string in the docs' prose), else `request_id`."""
    for name in ("id", "request_id"):
        value = body.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        # Python refuses to write down a number of thousands of digits
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**ID_MAX:
            return str(value)
        if isinstance(value, str) and (text := plain(value)):
            return text
    return None


def plain(value: str) -> str:
    """The text without white space around it; empty where it cannot be an id."""
    text = value.strip()
    return text if len(text) <= ID_MAX and text.isascii() and text.isprintable() and " " not in text else ""
