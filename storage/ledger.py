"""What attempts have cost: each one's price, frozen in its row, and whether it was spent. Sums are Postgres's decimals.

settled     the provider took it: it gave an id or a picture. Whether it charges for jobs that fail is not documented,
            so they count as charged
uncertain   sent and not answered: it may have been charged; counted apart
open        under way
released    not sent, or refused without an id (rate limit, model, key, prompt, no connection): nothing was spent
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from schemas.usage import ChapterSpent, DaySpent, ModelSpent, Spent, Usage
from storage.database import Database

_CHAPTERS = 1_000

# nsfw_flagged and empty_output are what we made of an answer that said success; its id may have stood nowhere else
STATE = """CASE
    WHEN a.provider_request_id IS NOT NULL OR a.output_urls IS NOT NULL OR a.outcome IN ('success', 'late_success')
        OR a.error_code IN ('nsfw_flagged', 'empty_output') THEN 'settled'
    WHEN a.outcome = 'uncertain' THEN 'uncertain'
    WHEN a.outcome IS NULL AND a.sent_at IS NOT NULL THEN 'open'
    ELSE 'released' END"""
"""Of a row `a` of generation_attempts."""

COST = f"""CASE WHEN g.lane IS NOT NULL THEN (
    SELECT coalesce(sum(a.cost), 0) FROM generation_attempts a
    WHERE a.record_id = g.id AND {STATE} = 'settled') END"""
"""US dollars of an image generation `g`; null for rows of the old system."""

_USAGE = f"""
WITH period AS (
    SELECT coalesce($2::date, coalesce($3::date, today) - 29) AS first, coalesce($3::date, today) AS last
    FROM (SELECT (now() AT TIME ZONE 'UTC')::date AS today) clock
), asked AS (
    SELECT g.id AS record_id, (g.created_at::timestamptz AT TIME ZONE 'UTC')::date AS day, g.chapter_id
    FROM image_generations g
    WHERE g.user_id = $1::uuid AND g.lane IS NOT NULL AND ($4::uuid IS NULL OR g.chapter_id = $4::uuid)
        AND g.created_at >= (SELECT first FROM period)::timestamp AT TIME ZONE 'UTC'
        AND g.created_at < ((SELECT last FROM period) + 1)::timestamp AT TIME ZONE 'UTC'
), tried AS (
    SELECT asked.*, a.model_id, a.cost, a.outcome IN ('success', 'late_success') AS made, {STATE} AS state
    FROM asked LEFT JOIN generation_attempts a USING (record_id)
), sums AS (
    SELECT day, chapter_id, model_id, grouping(day, chapter_id, model_id) AS level,
        count(DISTINCT record_id) AS images, count(*) FILTER (WHERE made) AS pictures,
        count(*) FILTER (WHERE state <> 'released') AS attempts,
        coalesce(sum(cost) FILTER (WHERE state = 'settled'), 0) AS cost_usd,
        count(*) FILTER (WHERE state = 'uncertain') AS uncertain_attempts,
        coalesce(sum(cost) FILTER (WHERE state = 'uncertain'), 0) AS uncertain_usd,
        coalesce(sum(cost) FILTER (WHERE state = 'open'), 0) AS open_usd
    FROM tried GROUP BY GROUPING SETS ((), (day), (chapter_id), (model_id))
), ranked AS (
    SELECT sums.*, row_number() OVER (PARTITION BY level ORDER BY cost_usd DESC, images DESC, chapter_id) AS rank
    FROM sums
)
SELECT period.first, period.last, ranked.* FROM period CROSS JOIN ranked
WHERE level <> {{chapter}} OR rank <= $5::int
ORDER BY level, CASE WHEN level = {{day}} THEN day END, cost_usd DESC, images DESC, chapter_id, model_id
"""

# what grouping() gives: a bit for each column that is not grouped by
_BY_DAY, _BY_CHAPTER, _BY_MODEL, _ALL = 0b011, 0b101, 0b110, 0b111
_USAGE = _USAGE.format(chapter=_BY_CHAPTER, day=_BY_DAY)


@dataclass(frozen=True, slots=True)
class Period:
    """Days of UTC, both included. Without `last` it ends today, by the database's clock; without `first` it has 30."""

    first: date | None = None
    last: date | None = None


async def usage(database: Database, user_id: UUID, period: Period, *, chapter_id: UUID | None = None) -> Usage:
    """What a user's image generations of the period have cost. Raises `storage.database.Unavailable`."""
    rows = await database.fetch(_USAGE, user_id, period.first, period.last, chapter_id, _CHAPTERS)
    levels: dict[int, list[Row[Any]]] = {_BY_DAY: [], _BY_CHAPTER: [], _BY_MODEL: [], _ALL: []}
    for row in rows:
        levels[row.level].append(row)
    (total,) = levels[_ALL]
    return Usage.model_validate(
        {
            "from": total.first,
            "to": total.last,
            "total": Spent(**_spent(total)),
            "by_day": [DaySpent(day=row.day, **_spent(row)) for row in levels[_BY_DAY]],
            "by_chapter": [ChapterSpent(chapter_id=row.chapter_id, **_spent(row)) for row in levels[_BY_CHAPTER]],
            "by_model": [ModelSpent(model_id=row.model_id, **_spent(row)) for row in _named(levels[_BY_MODEL])],
        }
    )


def _spent(row: Row[Any]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Spent.model_fields}


def _named(rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Without those that no model was tried for yet."""
    return [row for row in rows if row.model_id is not None]
