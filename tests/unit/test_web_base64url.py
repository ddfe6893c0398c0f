"""Base64 for URLs: what the standard library says, and nothing else that it lets pass."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web import base64url


@given(st.binary(max_size=200))
def test_there_and_back_as_the_standard_library_has_it(raw: bytes) -> None:
    text = base64url.encoded(raw)
    assert text == base64.urlsafe_b64encode(raw).rstrip(b"=")
    assert base64url.decoded(text.decode()) == raw


@pytest.mark.parametrize(
    "text", ["a", "abcde", "ab=", "ab==", "abc=", "a+bc", "a/bc", "ab c", "abc\n", "\xe9bcd", "a\0bc"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        base64url.decoded(text)


@given(st.text(max_size=40))
def test_no_text_is_more_than_a_value_error(text: str) -> None:
    try:
        raw = base64url.decoded(text)
    except ValueError:
        return
    assert len(raw) == len(text) * 3 // 4
