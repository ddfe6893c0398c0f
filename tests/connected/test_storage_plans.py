"""What each sweep asks, every second, costs by what it finds and not by how much there is."""

from collections.abc import AsyncIterator

import pytest

from storage import abandoned, admitting, deadlines, takeovers
from tests.connected.steps import Steps, steps_of

pytestmark = pytest.mark.connected

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


@pytest.fixture
async def crowded(database_url: str) -> AsyncIterator[Steps]:
    async with steps_of(database_url) as steps:
        await steps.sql(_RECORDS)
        await steps.sql(_ATTEMPTS)
        await steps.sql("ANALYZE")
        yield steps


async def test_a_sweep_that_finds_nothing_reads_next_to_nothing(crowded: Steps) -> None:
    worker = await crowded.worker()
    database = crowded.database

    async def sweep() -> None:
        await takeovers.take_over(database, worker, judge=True)
        await takeovers.forgotten(database, worker, [])
        await abandoned.unanswered(database, after=20)
        await abandoned.adopt_orphans(database, worker)
        await deadlines.end_overdue(database, claimed_grace=120)
        await admitting.admit_overdue(database, after=30)

    await sweep()
    before = await _rows_read(crowded)
    await sweep()
    assert await _rows_read(crowded) - before < 500


async def _rows_read(steps: Steps) -> int:
    """Rows of the two large tables that this database's sessions have read so far."""
    # one after the other, all went through the same session, which now tells what it has counted
    await steps.sql("SELECT pg_stat_force_next_flush()")
    (row,) = await steps.sql(
        "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint AS rows FROM pg_stat_user_tables"
        " WHERE relname IN ('image_generations', 'generation_attempts')"
    )
    return int(row.rows)
