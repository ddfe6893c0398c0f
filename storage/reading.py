"""What people see: image generations of one owner, as the very JSON that status events carry.

Every statement names the owner, so a stranger's record reads as absent and a stranger's chapter as empty. *Latest* is
the newest request of a scene by (created_at, id), *current* its newest completed one in the same order; a newer request
never hides the picture there is. Rows of the old system keep chapter and scene only in `metadata`: look-ups fall back
to it, and their version is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from storage.database import Database
from storage.fragments import CHAPTER, IMAGE_TYPE, SCENE, STATUS_JSON, THUMBNAIL

# the columns stand alone here, so that an index on them can be used
_IN_CHAPTER = f"""{IMAGE_TYPE} = 'scene' AND (g.chapter_id = $2::uuid
    OR (g.chapter_id IS NULL AND g.metadata ->> 'chapter_id' IN ($2::uuid::text, upper($2::uuid::text))))"""
_OF_SCENE = f"{SCENE} = $3::int"
_NEWEST = "g.created_at DESC NULLS LAST, g.id DESC"
_SHOWN = "(g.status = 'completed' AND g.image_url IS NOT NULL)"
"""What can be a current image: completed, and with an address to show it from."""
_PLACE = f"CASE WHEN {IMAGE_TYPE} = 'scene' THEN {CHAPTER} || '/' || {SCENE} END"

_COLUMNS = f"""g.id, g.version, {_PLACE} AS place, g.status, g.stage, g.created_at::timestamptz AS created_at,
    ({STATUS_JSON})::text AS body"""

_SCENE_STATUS = f"""
WITH scene AS (
    SELECT * FROM image_generations g WHERE g.user_id = $1::uuid AND {_IN_CHAPTER} AND {_OF_SCENE}
), latest AS (
    SELECT * FROM scene g ORDER BY {_NEWEST} LIMIT 1
), current AS (
    SELECT g.id AS current_id, g.image_url AS current_url, {THUMBNAIL} AS current_thumbnail
    FROM scene g WHERE {_SHOWN} ORDER BY {_NEWEST} LIMIT 1
)
SELECT {_COLUMNS}, current_id, current_url, current_thumbnail FROM latest g LEFT JOIN current ON true"""

_RECORD = f"SELECT {_COLUMNS} FROM image_generations g WHERE g.id = $2::uuid AND g.user_id = $1::uuid"


def _latest_and_current(condition: str) -> str:
    return f"""
WITH found AS (
    SELECT g.*, coalesce({_PLACE}, g.id::text) AS spot FROM image_generations g WHERE {condition}
), ranked AS (
    SELECT g.*, row_number() OVER (PARTITION BY g.spot ORDER BY {_NEWEST}) AS age,
        row_number() OVER (PARTITION BY g.spot, {_SHOWN} ORDER BY {_NEWEST}) AS age_among_alike
    FROM found g
)
SELECT {_COLUMNS} FROM ranked g WHERE g.age = 1 OR ({_SHOWN} AND g.age_among_alike = 1)
ORDER BY {CHAPTER}, {SCENE}, g.created_at NULLS FIRST, g.id"""


_CHAPTER_IMAGES = _latest_and_current(f"g.user_id = $1::uuid AND {_IN_CHAPTER} AND {SCENE} IS NOT NULL")
_MINE = _latest_and_current("g.user_id = $1::uuid")

_PICTURE = "SELECT user_id, image_key, image_url FROM image_generations WHERE id = $1::uuid"


@dataclass(frozen=True, slots=True)
class Image:
    """One image generation at one version; `text` is its ImageStatus as JSON.

    `place` is "<chapter_id>/<scene_number>", or null for what belongs to no scene.
    """

    record_id: UUID
    version: int
    place: str | None
    status: str | None
    stage: str | None
    created_at: datetime | None
    text: str


@dataclass(frozen=True, slots=True)
class Current:
    """The picture to show of a scene."""

    record_id: UUID
    image_url: str
    thumbnail_url: str | None


@dataclass(frozen=True, slots=True)
class Scene:
    latest: Image
    current: Current | None


@dataclass(frozen=True, slots=True)
class Picture:
    """Where a record's picture lies: `image_key` in the media store, or only the address that the old system wrote."""

    user_id: UUID | None
    image_key: str | None
    image_url: str | None


class Reader:
    """Reads for one owner. Every method raises `storage.database.Unavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def scene(self, user_id: UUID, chapter_id: UUID, scene_number: int) -> Scene | None:
        """`latest` and `current` of one scene; None when the owner asked for none there."""
        rows = await self._database.fetch(_SCENE_STATUS, user_id, chapter_id, scene_number)
        if not rows:
            return None
        row = rows[0]
        current = (
            Current(row.current_id, row.current_url, row.current_thumbnail) if row.current_id is not None else None
        )
        return Scene(_image(row), current)

    async def record(self, user_id: UUID, record_id: UUID) -> Image | None:
        rows = await self._database.fetch(_RECORD, user_id, record_id)
        return _image(rows[0]) if rows else None

    async def chapter(self, user_id: UUID, chapter_id: UUID) -> list[Image]:
        """`latest` and `current` of each scene, each record once, in order of scene and request."""
        return _images(await self._database.fetch(_CHAPTER_IMAGES, user_id, chapter_id))

    async def mine(self, user_id: UUID) -> list[Image]:
        """The same over all chapters, and what belongs to no scene."""
        return _images(await self._database.fetch(_MINE, user_id))

    async def picture(self, record_id: UUID) -> Picture | None:
        """For whoever holds the picture's signed link, or after the caller compared `user_id`."""
        rows = await self._database.fetch(_PICTURE, record_id)
        return Picture(rows[0].user_id, rows[0].image_key, rows[0].image_url) if rows else None


def _images(rows: Sequence[Row[Any]]) -> list[Image]:
    return [_image(row) for row in rows]


def _image(row: Row[Any]) -> Image:
    return Image(row.id, row.version, row.place, row.status, row.stage, row.created_at, row.body)
