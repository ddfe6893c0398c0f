"""What its owner may look back at: the attempts of an image generation, the pictures that a scene has had.

As in `storage.reading` every statement names the owner: of a stranger's record there is nothing to read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from schemas.history import ATTEMPTS_SHOWN, PICTURES_SHOWN
from storage.database import Database
from storage.fragments import status_json
from storage.ledger import COST, STATE
from storage.reading import NEWEST, SHOWN, rows_of_chapter

# the record is there even where nothing was tried yet
_ATTEMPTS = f"""
SELECT g.version, a.id IS NOT NULL AS tried, a.attempt, a.model_id, a.prompt, a.claimed_at, a.sent_at, a.closed_at,
    a.outcome, a.counted, a.error_class, a.error_code, a.cost AS cost_usd, {STATE} AS charge
FROM image_generations g LEFT JOIN generation_attempts a ON a.record_id = g.id
WHERE g.id = $2::uuid AND g.user_id = $1::uuid
ORDER BY a.attempt DESC LIMIT {ATTEMPTS_SHOWN}"""

_PICTURES = f"""
SELECT ({status_json(cost_usd=COST)})::text AS body
FROM {rows_of_chapter("$1::uuid", "$2::uuid", "$3::int")} WHERE {SHOWN}
ORDER BY {NEWEST} LIMIT {PICTURES_SHOWN}"""


@dataclass(frozen=True, slots=True)
class Tried:
    """An image generation's version, and the rows of its attempts in their order: fields of `ImageAttempt`."""

    version: int
    attempts: list[dict[str, Any]]


async def attempts(database: Database, user_id: UUID, record_id: UUID) -> Tried | None:
    """None: there is no such image generation of this user's. Raises `storage.database.Unavailable`."""
    rows = await database.fetch(_ATTEMPTS, user_id, record_id)
    if not rows:
        return None
    return Tried(rows[0].version, [_tried(row) for row in reversed(rows) if row.tried])


async def pictures(database: Database, user_id: UUID, chapter_id: UUID, scene_number: int) -> Sequence[str]:
    """Each an ImageStatus as JSON, the newest first. Raises `storage.database.Unavailable`."""
    return [row.body for row in await database.fetch(_PICTURES, user_id, chapter_id, scene_number)]


def _tried(row: Row[Any]) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in ("version", "tried")}
