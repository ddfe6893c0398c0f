"""Frames that are written by hand say what their models say."""

import pytest

from notifier.frames import frame_of, payload_of, snapshot_frame, text_frame, welcome_frame
from schemas.frames import Snapshot, Welcome


def test_a_welcome_is_its_model() -> None:
    expires_at = "2026-01-01T00:00:00+00:00"
    assert welcome_frame(15_000, expires_at) == frame_of(Welcome(ping_interval_ms=15_000, expires_at=expires_at))


@pytest.mark.parametrize("resumed", [None, "memory", "log", "snapshot"])
def test_a_snapshot_is_its_model(resumed: str | None) -> None:
    frame = snapshot_frame('"a \\"b\\" ü"', [], "c-_", resumed)
    said = Snapshot.model_validate_json(payload_of(frame))
    assert (said.id, said.cursor, said.resumed) == ('a "b" ü', "c-_", resumed)
    assert frame == frame_of(said)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
def test_pieces_are_one_message(size: int) -> None:
    whole = bytes(number % 251 for number in range(size))
    frame = text_frame(whole[: size // 3], b"", whole[size // 3 :])
    assert frame == text_frame(whole)
    assert payload_of(frame) == whole
    # RFC 6455 section 5.2: the shortest of three ways to say a length
    assert len(frame) - size == (2 if size < 126 else 4 if size < 65_536 else 10)
