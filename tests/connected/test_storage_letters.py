"""Dead letters found again, events sent again as they were, and letters deleted: on real Postgres."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas import topics
from schemas.errors import ErrorClass
from schemas.letters import LetterChoice, LetterFilters, Refusal
from storage import deadletters, letters, originals, replaying
from storage.deadletters import Purge
from storage.originals import Original
from tests.connected.died import HEADERS, ORIGIN, Died, buried, read_event
from tests.connected.steps import Steps

pytestmark = pytest.mark.connected

EVERYTHING = LetterChoice()


async def _waiting(steps: Steps) -> list[Any]:
    return sorted(await steps.sql("DELETE FROM outbox RETURNING *"), key=lambda row: row.id)


async def test_an_event_goes_back_to_where_it_came_from_as_it_was(steps: Steps) -> None:
    bare = read_event(2, body=b"", original=Original(), error_class=ErrorClass.INVALID, topic=topics.retry(5))
    ids = await buried(steps, read_event(1), bare)
    assert (await steps.replay(*ids)).done == ids
    first, second = await _waiting(steps)
    assert (first.topic, bytes(first.body)) == (ORIGIN, b"\xff\x00{")
    assert originals.read(first.original) == Original(b"\xff\xfe\x00", HEADERS)
    assert (second.topic, bytes(second.body)) == (topics.retry(5), b"")
    assert originals.read(second.original) == Original()
    # once: had it died again, it would have a letter of its own
    assert (await steps.replay(*ids)).refused == dict.fromkeys(ids, Refusal.ALREADY_REPLAYED)
    assert await _waiting(steps) == []


async def test_what_an_older_version_buried_goes_without_key_and_headers_and_says_so(steps: Steps) -> None:
    (letter,) = await buried(steps, read_event(1))
    await steps.sql("UPDATE dead_letters SET original = NULL")
    told = await letters.one(steps.database, letter)
    assert told is not None
    assert told.event is not None
    assert (told.event.exact, told.event.key, told.event.headers) == (False, None, [])
    await steps.replay(letter)
    (row,) = await _waiting(steps)
    # none of ours either: nobody knows what these bytes are
    assert (row.topic, row.key, originals.read(row.original)) == (ORIGIN, None, Original())


@pytest.mark.parametrize("original", [None, Original(b"\xff", (("a", None),))], ids=["ours", "sent again before"])
async def test_what_the_relay_could_not_send_goes_back_as_it_was(steps: Steps, original: Original | None) -> None:
    await steps.sql(
        "INSERT INTO outbox (topic, key, headers, body, original) VALUES ('t', 'k', '{\"a\": \"b\"}', 'x', $1)",
        original.as_json() if original else None,
    )
    await steps.sql(_RELAY_BURIES)
    (row,) = await steps.sql("SELECT id FROM dead_letters")
    told = await letters.one(steps.database, row.id)
    assert told is not None
    assert told.event is not None
    assert (told.kind, told.topic, told.event.exact, told.refusal) == ("event", "t", True, None)
    assert told.event.key == ("k" if original is None else "\\xff")
    await steps.replay(row.id)
    (sent,) = await _waiting(steps)
    assert (sent.topic, sent.key, json.loads(sent.headers), bytes(sent.body)) == ("t", "k", {"a": "b"}, b"x")
    assert originals.read(sent.original) == original


_RELAY_BURIES = """
WITH gone AS (DELETE FROM outbox RETURNING *)
INSERT INTO dead_letters (error_class, error_code, error_message, topic, body, original, headers)
SELECT 'unexpected', 'not_sendable', 'too large', topic, body, original, headers || jsonb_build_object('key', key)
FROM gone
"""


@pytest.fixture
async def died(steps: Steps) -> Died:
    return await Died(steps).happen()


async def test_each_filter_finds_its_own(died: Died) -> None:
    ids = died.ids
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({}, ids),
        ({"error_class": ["auth"]}, ids[:2]),
        ({"error_class": ["auth", "poison"]}, [*ids[:2], *ids[4:]]),
        ({"error_code": ["code_quota"]}, [ids[2]]),
        ({"model_id": ["first-model"]}, ids[:4]),
        ({"user_id": died.users[0]}, [ids[0], ids[2], ids[5]]),
        ({"chapter_id": died.chapters[1]}, ids[2:4]),
        ({"record_id": died.records[3]}, [ids[3]]),
        ({"since": timedelta(hours=2, minutes=30)}, ids[3:]),
        ({"until": timedelta(hours=2, minutes=30)}, ids[:3]),
        ({"since": datetime.now(UTC) - timedelta(minutes=90), "until": timedelta(minutes=30)}, [ids[4]]),
        ({"replayed": True}, [ids[0]]),
        ({"replayed": False, "error_class": ["auth"]}, [ids[1]]),
        ({"error_class": ["content"]}, []),
    ]
    for given, wanted in cases:
        filters = LetterFilters(**given)
        page, cursor = await letters.listed(died.steps.database, filters, limit=10)
        assert ([one.id for one in page], cursor) == (wanted[::-1], None), given
        assert await letters.count(died.steps.database, filters) == len(wanted)
        groups = await letters.grouped(died.steps.database, filters)
        assert sum(group.letters for group in groups) == len(wanted)


async def test_pages_follow_each_other_also_among_letters_of_one_moment(died: Died) -> None:
    await died.steps.sql("UPDATE dead_letters SET failed_at = '2026-01-02T03:04:05.678901Z'")
    found: list[int] = []
    cursor: str | None = None
    while True:
        page, cursor = await letters.listed(died.steps.database, LetterFilters(), limit=2, cursor=cursor)
        found += [one.id for one in page]
        if cursor is None:
            break
    assert found == died.ids[::-1]


@pytest.mark.parametrize(
    "cursor", ["", "?", "ä", "MTIz", "MjAyNi0wMS0wMlQwMzowNDowNS82", "MDAwMS0wMS0wMVQwMDowMDowMCsxNDowMC82"]
)
async def test_what_is_no_cursor_is_said_to_be_none(steps: Steps, cursor: str) -> None:
    with pytest.raises(letters.NotACursor):
        await letters.listed(steps.database, LetterFilters(), limit=2, cursor=cursor)


async def test_groups_count_by_class_code_and_model(died: Died) -> None:
    groups = await letters.grouped(died.steps.database, LetterFilters())
    told = {(one.error_class, one.error_code, one.model_id): (one.letters, one.replayed) for one in groups}
    assert told == {
        ("auth", "code_auth", "first-model"): (2, 1),
        ("quota", "code_quota", "first-model"): (1, 0),
        ("exhausted", "code_exhausted", "first-model"): (1, 0),
        ("poison", "unreadable", None): (2, 0),
    }
    assert [group.letters for group in groups] == [2, 2, 1, 1]
    (auth,) = [group for group in groups if group.error_class == "auth"]
    assert auth.last_failed_at - auth.first_failed_at == timedelta(hours=1)


async def test_one_letter_tells_all_that_was_tried_and_no_secret(died: Died) -> None:
    told = await letters.one(died.steps.database, died.ids[3])
    assert told is not None
    assert (told.kind, told.refusal, told.record_id) == ("record", None, died.records[3])
    assert told.record is not None
    assert (told.record.status, told.record.scene_description) == ("failed", "A mad tea party")
    (attempt,) = told.attempts
    assert (attempt.attempt, attempt.model_id, attempt.outcome) == (1, "first-model", "failed")
    assert attempt.error_detail == "api_key=[redacted]"
    replayed = await letters.one(died.steps.database, died.ids[0])
    assert replayed is not None
    assert (replayed.refusal, replayed.record and replayed.record.status) == (Refusal.ALREADY_REPLAYED, "pending")
    event = await letters.one(died.steps.database, died.ids[4])
    assert event is not None
    assert (event.kind, event.record, event.attempts) == ("event", None, [])
    assert event.event is not None
    assert (event.event.key, event.event.body, event.event.bytes) == ("\\xff\\xfe\x00", "\\xff\x00{", 3)
    assert [(one.name, one.value) for one in event.event.headers][1:3] == [("again", "\\xff\x00"), ("nothing", None)]
    assert await letters.one(died.steps.database, died.ids[-1] + 1) is None


async def test_a_secret_in_an_event_is_not_shown_wherever_the_text_is_cut(steps: Steps) -> None:
    secret = b"s" * 40
    body = b'{"token": "' + secret + b'", "x": "' + b"x" * 4_040 + b'", "api_key": "' + secret + b'"}'
    (letter,) = await buried(
        steps, read_event(1, body=body, original=Original(None, (("authorization", b"Bearer abcdefgh"),)))
    )
    told = await letters.one(steps.database, letter)
    assert told is not None
    assert told.event is not None
    assert (len(told.event.body), told.event.bytes) == (4_096, len(body))
    assert "ssss" not in told.event.body
    assert told.event.headers[0].value == "Bearer [redacted]"


async def test_a_plan_says_what_a_replay_then_does(died: Died) -> None:
    await died.steps.sql("DELETE FROM image_generations WHERE id = $1", died.records[1])
    choice = LetterChoice(error_class=["auth", "quota", "poison"])
    plan = await replaying.plan(died.steps.database, choice, limit=2)
    assert (plan.replayable, plan.reasons) == (3, {Refusal.RECORD_GONE: 1})
    assert sum(group.letters for group in plan.groups) == 2
    ids = await replaying.candidates(died.steps.database, choice)
    assert ids == [died.ids[2], *died.ids[4:]]
    assert await replaying.candidates(died.steps.database, choice, limit=1) == ids[:1]
    assert (await died.steps.replay(*ids)).done == ids
    plan = await replaying.plan(died.steps.database, choice)
    assert (plan.groups, plan.replayable, plan.reasons) == ([], 0, {Refusal.RECORD_GONE: 1})


async def test_only_what_was_replayed_is_purged_unless_more_is_meant(died: Died) -> None:
    database, ids = died.steps.database, died.ids
    records = len(await died.steps.sql("SELECT id FROM image_generations"))
    attempts = len(await died.steps.sql("SELECT id FROM generation_attempts"))

    async def left() -> list[int]:
        return [row.id for row in await died.steps.sql("SELECT id FROM dead_letters ORDER BY id")]

    for purge, gone in (
        (Purge(EVERYTHING, ids=ids[1:3]), []),
        (Purge(EVERYTHING), ids[:1]),
        (Purge(EVERYTHING), []),
        (Purge(EVERYTHING, older_than=timedelta(hours=3, minutes=30)), [ids[1]]),
        (Purge(LetterChoice(error_class=["quota"]), older_than=timedelta(hours=4)), []),
        (Purge(LetterChoice(error_class=["quota"]), everything=True), [ids[2]]),
        (Purge(EVERYTHING, ids=[ids[5]], everything=True), [ids[5]]),
    ):
        before = await left()
        groups, may_go = await deadletters.purgeable(database, purge)
        assert (sum(group.letters for group in groups), may_go) == (len(gone), len(gone))
        assert await left() == before
        assert await deadletters.purged(database, purge, limit=100) == len(gone)
        assert await left() == [one for one in before if one not in gone]
    rest = Purge(EVERYTHING, everything=True)
    assert (await deadletters.purgeable(database, rest, limit=1))[1] == 2
    assert [await deadletters.purged(database, rest, limit=1) for _ in range(3)] == [1, 1, 0]
    assert len(await died.steps.sql("SELECT id FROM image_generations")) == records
    assert len(await died.steps.sql("SELECT id FROM generation_attempts")) == attempts
