"""Picture addresses: what they vouch for, and what they do not."""

import re
from uuid import UUID

import pytest

from media.keys import content_type, image_key, parts
from media.links import sign, verify

RECORD = UUID("018f3a1e-0000-7000-8000-0000000000a1")
OTHER = UUID("018f3a1e-0000-7000-8000-0000000000a2")
SHA = "ab" + "0" * 62


def signature(path: str) -> str:
    match = re.fullmatch(rf"/images/{RECORD}/file/([A-Za-z0-9_-]+)\.png", path)
    assert match
    return match[1]


def test_an_address_is_the_same_each_time_and_long_enough() -> None:
    path = sign(RECORD, SHA, "png", ["one"])
    assert path == sign(RECORD, SHA, "png", ["one"])
    assert len(signature(path)) * 6 >= 128


@pytest.mark.parametrize(
    ("record_id", "sha256", "extension", "secrets", "valid"),
    [
        (RECORD, SHA, "png", ["one"], True),
        (RECORD, SHA, "png", ["two", "one"], True),
        (RECORD, SHA, "png", ["two"], False),
        (RECORD, SHA, "png", [], False),
        (OTHER, SHA, "png", ["one"], False),
        (RECORD, "cd" + SHA[2:], "png", ["one"], False),
        (RECORD, SHA, "jpg", ["one"], False),
    ],
)
def test_an_address_vouches_for_one_record_one_content_one_type(
    record_id: UUID, sha256: str, extension: str, secrets: list[str], valid: bool
) -> None:
    given = signature(sign(RECORD, SHA, "png", ["one"]))
    assert verify(record_id, sha256, extension, given, secrets) is valid


def test_the_first_secret_signs() -> None:
    assert sign(RECORD, SHA, "png", ["one", "two"]) == sign(RECORD, SHA, "png", ["one"])


@pytest.mark.parametrize("given", ["", "x", "A" * 24, "ü" * 24, "\ud800"])
def test_a_forged_signature_is_refused(given: str) -> None:
    assert not verify(RECORD, SHA, "png", given, ["one"])


def test_keys_name_record_and_content() -> None:
    key = image_key(RECORD, SHA, "webp")
    assert key == f"images/ab/{RECORD}-{SHA}.webp"
    assert parts(key) == (RECORD, SHA, "webp")
    assert content_type(key) == "image/webp"


@pytest.mark.parametrize("key", ["", "images/x.png", "https://old.example/x.png", "images/ab/../../etc/passwd"])
def test_other_keys_are_none_of_ours(key: str) -> None:
    assert parts(key) is None


def test_an_unknown_extension_is_bytes() -> None:
    assert content_type("images/ab/x.bin") == "application/octet-stream"
