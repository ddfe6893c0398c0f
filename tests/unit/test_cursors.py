"""Cursors: what is written is read again, what was touched is not."""

from hypothesis import given
from hypothesis import strategies as st

from notifier.cursors import Cursors

OLD, NEW = b"the old secret of this deployment", b"the new secret of this deployment"

positions = st.dictionaries(st.integers(0, 5_000), st.integers(0, 2**62), max_size=60)


@given(positions)
def test_what_is_written_is_read(given_positions: dict[int, int]) -> None:
    cursors = Cursors([NEW])
    assert cursors.read(cursors.write(given_positions)) == given_positions


@given(positions, st.integers(0, 10_000), st.sampled_from("AZaz09-_"))
def test_a_touched_cursor_is_none(given_positions: dict[int, int], where: int, letter: str) -> None:
    cursors = Cursors([NEW])
    written = cursors.write(given_positions)
    at = where % len(written)
    touched = written[:at] + letter + written[at + 1 :]
    read = cursors.read(touched)
    # the last letter of base64 holds bits that mean nothing
    assert read is None or (touched == written or at == len(written) - 1)


@given(st.one_of(st.none(), st.text(max_size=2_000)))
def test_any_other_text_is_none(text: str | None) -> None:
    assert Cursors([NEW]).read(text) is None


def test_secrets_rotate() -> None:
    before = Cursors([OLD]).write({0: 17})
    assert Cursors([NEW, OLD]).read(before) == {0: 17}
    assert Cursors([NEW]).read(before) is None
    assert Cursors([OLD]).read(Cursors([NEW, OLD]).write({0: 17})) is None


def test_a_cursor_of_another_log_is_none() -> None:
    cursors = Cursors([NEW])
    before = cursors.write({0: 17})
    cursors.log = bytes(range(16))
    assert cursors.read(before) is None
    known = cursors.write({0: 17})
    assert cursors.read(known) == {0: 17}
    cursors.log = bytes(range(1, 17))
    assert cursors.read(known) is None


def test_a_cursor_of_a_hundred_partitions_stays_below_a_kilobyte() -> None:
    assert len(Cursors([NEW]).write(dict.fromkeys(range(100), 10**9))) <= 1024
