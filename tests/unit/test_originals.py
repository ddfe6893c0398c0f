"""Key and headers of an event survive their column, whatever they are."""

from hypothesis import given
from hypothesis import strategies as st

from storage import originals
from storage.originals import Original

_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(
    key=st.none() | st.binary(max_size=20),
    headers=st.lists(st.tuples(_names, st.none() | st.binary(max_size=20)), max_size=4),
)
def test_every_key_and_every_header_comes_back_as_it_was(
    key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    original = Original(key, tuple(headers))
    written = original.as_json()
    # jsonb refuses NUL, and a lone surrogate could not be stored either
    assert written.isascii()
    assert "\\u" not in written
    assert originals.read(written) == original


def test_nothing_was_kept() -> None:
    assert originals.read(None) is None
