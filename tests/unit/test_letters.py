"""Which dead letters are meant, as words, and how they look on a terminal."""

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from consumer import letter_pages as pages
from consumer.letter_pages import plain, table
from schemas.errors import DEAD_CLASSES
from schemas.letters import DeadClass, LetterFilters, LetterGroup, PurgeRequest, Refusal, ReplayRequest, age, moment

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_the_classes_are_those_that_have_a_topic() -> None:
    assert get_args(DeadClass) == tuple(one.value for one in DEAD_CLASSES)


def test_every_refusal_has_its_sentence() -> None:
    assert all(one.sentence.endswith(".") for one in Refusal)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("1w", timedelta(weeks=1)),
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31T13:00:00+01:00", NOON),
        ("2026-01-31 12:00", NOON),
        ("2026-01-31", NOON.replace(hour=0)),
    ],
)
def test_a_time_is_a_date_or_an_age(text: str, meant: datetime | timedelta) -> None:
    assert moment(text) == meant


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2", "h", "-2h", "2 h", "2y", "١h", "999999w", "0001-01-01", "9999-12-31", 7, True]
)
def test_what_is_neither_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        moment(text)
    with pytest.raises(ValueError, match="must be an age such as"):
        age(text)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{}", ()),
        ('{"ids": [1], "error_class": ["auth"]}', ()),
        ('{"ids": []}', ("ids",)),
        ('{"ids": [0]}', ("ids", 0)),
        ('{"ids": [9223372036854775808]}', ("ids", 0)),
        ('{"all": "yes"}', ("all",)),
        ('{"all": true, "limit": 1001}', ("limit",)),
        ('{"all": true, "replayed": true}', ("replayed",)),
        ('{"error_class": "auth"}', ("error_class",)),
        ('{"error_class": ["network"]}', ("error_class", 0)),
        ('{"error_code": ["a\\u0000b"]}', ("error_code", 0)),
        ('{"user_id": "7"}', ("user_id",)),
        ('{"since": 7}', ("since",)),
    ],
)
def test_a_replay_must_say_which_and_nothing_unknown(body: str, field: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        ReplayRequest.model_validate_json(body)
    assert refused.value.errors()[0]["loc"] == field


def test_a_purge_without_a_word_is_of_what_was_replayed() -> None:
    asked = PurgeRequest.model_validate_json("{}")
    assert (asked.ids, asked.older_than, asked.all, asked.narrows()) == (None, None, False, False)
    assert PurgeRequest.model_validate_json('{"older_than": "30d"}').older_than == timedelta(days=30)


def test_a_filter_narrows() -> None:
    assert not LetterFilters().narrows()
    assert LetterFilters(error_code=["x"]).narrows()


@given(st.text())
def test_whatever_a_stranger_wrote_is_one_harmless_line(text: str) -> None:
    told = plain(text)
    assert told.isprintable()
    assert len(told.splitlines()) <= 1


@given(st.lists(st.tuples(st.text(max_size=90), st.text(max_size=90), st.text(max_size=90)), max_size=5))
def test_a_table_is_never_wider_than_it_may_be(rows: list[tuple[str, str, str]]) -> None:
    lines = table(("ID", "CODE", "MODEL"), rows, width=40, right={0})
    assert len(lines) == len(rows) + 1
    assert all(len(line) <= 40 for line in lines)


def test_groups_of_the_longest_codes_fit_eighty_columns() -> None:
    one = LetterGroup(
        error_class="unexpected",
        error_code="reference_unreachable",
        model_id="seedream-4.5",
        letters=123_456,
        replayed=0,
        first_failed_at=NOON,
        last_failed_at=NOON,
    )
    head, line = pages.grouping([one], width=80)
    assert head.split() == ["LETTERS", "CLASS", "CODE", "MODEL", "FIRST", "(UTC)", "LAST", "(UTC)"]
    assert line.split() == [
        *("123,456", "unexpected", "reference_unreacha…", "seedream-4.5"),
        *("01-31", "12:00", "01-31", "12:00"),
    ]
