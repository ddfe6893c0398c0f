"""What each sweep, dispatch and admission asks costs by what it finds and not by how much there is."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row

from schemas.letters import LetterChoice, LetterFilters
from storage import (
    abandoned,
    admitting,
    answers,
    deadlines,
    dispatching,
    history,
    kept,
    letters,
    queueing,
    replaying,
    sending,
    stalling,
    takeovers,
)
from storage.reading import Reader
from tests.connected.steps import Steps, asked, request, steps_of

pytestmark = pytest.mark.connected

# thousands of rows are made here in one statement
_PATIENT: dict[str, Any] = {"database_timeout": 60.0}

_RECORDS = """
INSERT INTO image_generations (id, user_id, chapter_id, scene_number, status, stage, version, attempt, lane,
    admitted_at, turn, created_at, updated_at, deadline_at, scene_description, style, aspect_ratio, user_tier)
SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1,
    (ARRAY['pending', 'in_progress', 'completed'])[1 + i % 3], 'queued', 1, 2, 'standard', now(), i, now(), now(),
    now() + interval '1 h', 'a tea party', 'cinematic', '16:9', 'free'
FROM generate_series(1, 20000) i
"""
_ATTEMPTS = """
INSERT INTO generation_attempts (id, record_id, attempt, model_id, prompt, path, payload, outcome, sent_at)
SELECT gen_random_uuid(), id, 1, 'm', 'p', '/', '{}', CASE WHEN turn % 50 = 0 THEN 'uncertain' ELSE 'failed' END, now()
FROM image_generations
"""
# a crowd that waits, one that has lost its events (no turn yet), and calls that are open at the provider
_LINE = """
INSERT INTO image_generations (id, user_id, chapter_id, scene_number, status, stage, version, attempt, lane,
    admitted_at, turn, created_at, updated_at, deadline_at, scene_description, style, aspect_ratio, user_tier,
    claim_token, worker_id)
SELECT gen_random_uuid(), coalesce(CASE WHEN i % 3 = 0 THEN $4::uuid END, gen_random_uuid()), gen_random_uuid(), i,
    CASE WHEN $3 THEN 'in_progress' ELSE 'pending' END, CASE WHEN $3 THEN 'generating' ELSE 'queued' END, 1, 1,
    (ARRAY['interactive', 'standard', 'bulk'])[1 + i % 3], CASE WHEN $2 THEN now() END, CASE WHEN $2 THEN i END,
    now(), now(), now() + interval '1 h', 'a tea party', 'cinematic', '16:9', 'free',
    CASE WHEN $3 THEN gen_random_uuid() END, CASE WHEN $3 THEN gen_random_uuid() END
FROM generate_series(1, $1::int) i
"""
_OPEN = """
INSERT INTO generation_attempts (id, record_id, attempt, model_id, prompt, path, payload, claim_token, sent_at)
SELECT gen_random_uuid(), id, 1, 'm', 'p', '/', '{}', claim_token, now() FROM image_generations
WHERE claim_token IS NOT NULL ON CONFLICT DO NOTHING
"""


# pictures that came late, of records that were completed by them or have ended for good
_KEPT = """
UPDATE generation_attempts a SET outcome = 'late_success', image_key = 'aa/late.png' FROM image_generations g
WHERE g.id = a.record_id AND g.status = 'completed' AND g.turn % 4 = 0
"""


@pytest.fixture
async def crowded(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url, **_PATIENT) as steps:
        await steps.sql(_RECORDS)
        await steps.sql(_ATTEMPTS)
        await steps.sql(_KEPT)
        await steps.sql("ANALYZE")
        yield steps


async def test_a_sweep_that_finds_nothing_reads_next_to_nothing(crowded: Steps) -> None:
    worker = await crowded.worker()
    database = crowded.database

    async def sweep() -> None:
        await takeovers.take_over(database, worker, judge=True)
        await takeovers.forgotten(database, worker, [])
        await abandoned.unanswered(database, after=20)
        await abandoned.adopt_orphans(database, worker, keep_trying=3600)
        await kept.complete_replayed(database)
        await deadlines.end_overdue(database, claimed_grace=120)
        await admitting.admit_overdue(database, after=30)

    await sweep()
    before = await _rows_read(crowded)
    await sweep()
    assert await _rows_read(crowded) - before < 500


async def test_a_dispatch_reads_what_it_gives_and_not_who_waits(database_url: str) -> None:
    async with steps_of(database_url, slots=20, **_PATIENT) as steps:
        worker = await steps.worker()
        # a connection plans once: this one while nothing is there
        await _claimed(steps, worker, 1)
        await _line(steps)
        await _claimed(steps, worker, 5)
        before = await _rows_read(steps)
        await _claimed(steps, worker, 5)
        assert await _rows_read(steps) - before < 500


async def test_dispatch_and_admission_look_up_by_index_alone(database_url: str) -> None:
    async with steps_of(database_url, **_PATIENT) as steps:
        await _looks_up_by_index(steps)
        # a young database, of which nothing is known yet: an admission once sorted all that its user had asked for
        users = [uuid4() for _ in range(50)]
        await steps.admit(*(asked(request(users[n % 50], scene=n + 1)) for n in range(500)))
        await _looks_up_by_index(steps)
        await _line(steps)
        await steps.sql("ANALYZE")
        await _looks_up_by_index(steps)


async def _looks_up_by_index(steps: Steps) -> None:
    statements = (dispatching._OFFER, dispatching._CLAIM, sending._LOCK, sending._MARK, stalling._UNDISPATCHED)
    admissions = (admitting._ADMIT_KNOWN, admitting._CREATE, admitting._ADMIT_OVERDUE)
    answered = (answers._LOCK_OURS, answers._ANSWERED, answers._STORED, answers._PROGRESS)
    for statement in (*statements, *admissions, *answered, admitting._STILL_WAITING):
        nodes = list(_nodes(await _plan(steps, statement)))
        if statement in admissions:
            looks = [node["Index Name"] for node in nodes if node.get("Alias") == "w"]
            # the index of a lane's turns would be walked to its end for whoever waits for nothing in that lane
            assert looks == ["idx_image_generations_user_turns"], looks
        for node in nodes:
            # a handful of rows, whatever happens
            if node.get("Relation Name") not in ("breakers", "lanes", "provider_slots"):
                assert node["Node Type"] != "Seq Scan", node
                # each row of one side against each of the other
                assert "Join Filter" not in node, (node["Node Type"], node["Join Filter"])


async def test_an_admission_costs_by_its_events_whoever_waits(database_url: str) -> None:
    async with steps_of(database_url, **_PATIENT) as steps:
        await steps.admit(asked(request()))
        crowd = uuid4()
        await _line(steps, crowd)
        news = [request(crowd, scene=scene + 1) for scene in range(100)]
        await steps.accept(*news)
        before = await _rows_read(steps)
        assert (await steps.admit(*(asked(one) for one in news))).known == 100
        assert await _rows_read(steps) - before < 1_000


async def test_a_page_costs_by_its_chapter_and_not_by_what_else_its_user_has(database_url: str) -> None:
    async with steps_of(database_url, **_PATIENT) as steps:
        reader = Reader(steps.database)
        crowd, chapter = uuid4(), uuid4()
        assert await reader.chapter(crowd, chapter) == []
        await _line(steps, crowd)
        scenes = [request(crowd, chapter=chapter, scene=scene + 1) for scene in range(10)]
        await steps.accept(*scenes)
        # as the older system wrote it
        await steps.sql(_OLD, crowd, str(chapter))
        for planned in _PLANNED:
            await steps.sql(planned)
            before = await _rows_read(steps)
            assert len(await reader.chapter(crowd, chapter)) == 11
            assert await reader.scene(crowd, chapter, 11) is not None
            # each is met twice: by the index of chapters and among its attempts
            assert await _rows_read(steps) - before < 200, planned


_PLANNED = ("SELECT", "ANALYZE")
"""As it was planned while nothing was there, and anew, as when it is known how little others have beside the one."""


_OLD = """
INSERT INTO image_generations (id, user_id, status, metadata)
VALUES (gen_random_uuid(), $1, 'completed', jsonb_build_object('chapter_id', $2::text, 'scene_number', '11'))
"""


async def test_a_look_at_the_queue_reads_its_first_part_and_the_newest_attempts(database_url: str) -> None:
    async with steps_of(database_url, **_PATIENT) as steps:
        await queueing.queue(steps.database, depth=50)
        await steps.sql(_RECORDS)
        await steps.sql(_ATTEMPTS)
        await _line(steps)
        before = await _rows_read(steps)
        line = await queueing.queue(steps.database, depth=50)
        assert sum(len(lane.places) for lane in line.lines.values()) == 150
        assert await _rows_read(steps) - before < 1_000


async def test_polls_that_come_together_cost_by_what_they_ask_for(database_url: str) -> None:
    async with steps_of(database_url, **_PATIENT) as steps:
        reader = Reader(steps.database)
        # planned while nothing is there
        assert await reader.scene(uuid4(), uuid4(), 1) is None
        assert await reader.record(uuid4(), uuid4()) is None
        user, stranger = uuid4(), uuid4()
        await _line(steps, user)
        theirs = await steps.sql("SELECT id, chapter_id, scene_number FROM image_generations WHERE user_id = $1", user)
        some = theirs[::40]
        assert len(some) > 200
        for planned in _PLANNED:
            await steps.sql(planned)
            await _polls_read_what_they_ask_for(steps, reader, user, stranger, some)


async def _polls_read_what_they_ask_for(
    steps: Steps, reader: Reader, user: UUID, stranger: UUID, some: Sequence[Row[Any]]
) -> None:
    before = await _rows_read(steps)
    scenes = await asyncio.gather(
        *(reader.scene(user, row.chapter_id, row.scene_number) for row in some),
        *(reader.scene(stranger, row.chapter_id, row.scene_number) for row in some),
    )
    records = await asyncio.gather(
        *(reader.record(user, row.id) for row in some), *(reader.record(stranger, row.id) for row in some)
    )
    read = await _rows_read(steps) - before
    ids, nothing = [row.id for row in some], [None] * len(some)
    assert [scene and scene.latest.record_id for scene in scenes] == [*ids, *nothing]
    assert [record and record.record_id for record in records] == [*ids, *nothing]
    assert read < 10 * len(some)
    before = await _rows_read(steps)
    for row in some[:20]:
        assert [image.record_id for image in await reader.chapter(user, row.chapter_id)] == [row.id]
        assert await history.pictures(steps.database, user, row.chapter_id, row.scene_number) == []
    assert await _rows_read(steps) - before < 20 * 20


async def _line(steps: Steps, crowd: UUID | None = None) -> None:
    await steps.sql(_LINE, 15_000, True, False, crowd)
    await steps.sql(_LINE, 15_000, False, False, crowd)
    await steps.sql(_LINE, 200, True, True, None)
    await steps.sql(_OPEN)


async def _claimed(steps: Steps, worker: UUID, limit: int) -> None:
    await steps.waiting(*(request() for _ in range(limit)))
    assert len(await steps.dispatcher.claim(worker, limit=limit)) == limit


async def _plan(steps: Steps, statement: str) -> dict[str, Any]:
    """As a connection keeps it, whatever the arguments."""
    count = max(int(number) for number in re.findall(r"\$(\d+)", statement))
    async with steps.database.transaction() as tx:
        await tx.fetch(f"PREPARE planned AS {statement}")
        (row,) = await tx.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE planned({', '.join(['NULL'] * count)})")
        await tx.fetch("DEALLOCATE planned")
    plan: dict[str, Any] = json.loads(row[0])[0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from _nodes(part)


_LETTERS = """
INSERT INTO dead_letters (record_id, user_id, chapter_id, attempt, model_id, error_class, error_code, topic, failed_at,
    replayed_at)
SELECT g.id, g.user_id, g.chapter_id, g.attempt, 'm', (ARRAY['auth', 'quota', 'content', 'exhausted'])[1 + g.turn % 4],
    'c', 't', now() - make_interval(secs => g.turn), CASE WHEN g.turn % 10 > 0 THEN now() END
FROM image_generations g WHERE g.status = 'completed'
"""


async def test_a_page_of_dead_letters_is_found_by_index_whatever_is_asked_for(crowded: Steps) -> None:
    await crowded.sql(_LETTERS)
    await crowded.sql("UPDATE image_generations SET status = 'failed' WHERE status = 'completed'")
    await crowded.sql("ANALYZE dead_letters, image_generations")
    database = crowded.database
    (some,) = await crowded.sql("SELECT * FROM dead_letters ORDER BY failed_at OFFSET 3000 LIMIT 1")
    (total,) = await crowded.sql("SELECT count(*) AS letters FROM dead_letters")
    assert total.letters > 6_000
    every: list[dict[str, Any]] = [
        {},
        {"error_class": ["auth"]},
        {"error_class": ["auth", "quota"], "replayed": False},
        {"user_id": some.user_id},
        {"chapter_id": some.chapter_id},
        {"record_id": some.record_id},
        {"replayed": False},
        {"until": some.failed_at},
        {"since": timedelta(minutes=1)},
    ]
    for given in every:
        filters = LetterFilters(**given)
        first, cursor = await letters.listed(database, filters, limit=20)
        assert first
        before = await _rows_read(crowded, "dead_letters")
        await letters.listed(database, filters, limit=20)
        await letters.listed(database, filters, limit=20, cursor=cursor)
        await letters.one(database, first[0].id)
        assert await _rows_read(crowded, "dead_letters") - before < 500, given
    choice = LetterChoice(error_class=["auth"])
    assert len(await replaying.candidates(database, choice, limit=20)) == 20
    before = await _rows_read(crowded, "dead_letters", "image_generations")
    await replaying.candidates(database, choice, limit=20)
    assert await _rows_read(crowded, "dead_letters", "image_generations") - before < 500


async def _rows_read(steps: Steps, *tables: str) -> int:
    """Rows of these tables (else of the two large ones) that this database's sessions have read so far."""
    # one after the other, all went through the same session, which now tells what it has counted
    await steps.sql("SELECT pg_stat_force_next_flush()")
    (row,) = await steps.sql(
        "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint AS rows FROM pg_stat_user_tables"
        " WHERE relname = ANY($1::text[])",
        list(tables or ("image_generations", "generation_attempts")),
    )
    return int(row.rows)


async def test_a_replay_reads_what_it_replays_even_planned_while_there_was_next_to_nothing(database_url: str) -> None:
    """A process plans its statements once, perhaps in its first minute."""
    async with steps_of(database_url, **_PATIENT) as steps:
        choice = LetterChoice(error_class=["auth"])

        async def once() -> int:
            await replaying.plan(steps.database, LetterChoice(record_id=uuid4()))
            await letters.listed(steps.database, LetterFilters(replayed=False), limit=20)
            ids = await replaying.candidates(steps.database, choice, limit=20)
            return len((await replaying.replay(steps.database, ids or [1], deadline=60)).done)

        assert await once() == 0
        await steps.sql(_RECORDS)
        await steps.sql(_LETTERS)
        await steps.sql("UPDATE image_generations SET status = 'failed' WHERE status = 'completed'")
        before = await _rows_read(steps, "dead_letters", "image_generations")
        assert await once() == 20
        # the letters of the class, but no other, and of the records those that are replayed
        assert await _rows_read(steps, "dead_letters", "image_generations") - before < 3_000
