"""What people see: image generations of one owner, as the very JSON that status events carry.

Every statement names the owner, so a stranger's record reads as absent and a stranger's chapter as empty. *Latest* is
the newest request of a scene by (created_at, id), *current* its newest completed one in the same order; a newer request
never hides the picture there is. Rows of the old system keep chapter and scene only in `metadata`: look-ups fall back
to it, and their version is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy import Row

from storage.batching import Batcher
from storage.database import Database
from storage.fragments import CHAPTER, IMAGE_TYPE, SCENE, THUMBNAIL, status_json
from storage.ledger import COST
from storage.queueing import READY, Place

Asked = TypeVar("Asked", bound=tuple[object, ...])


def rows_of_chapter(user: str, chapter: str, scene: str | None = None) -> str:
    """SQL for the scene images of a chapter, or of one of its scenes, by these pieces of SQL: a table `g` for FROM.

    Each part is read by an index of its own, whatever was known of the tables when it was planned: put together by OR
    they were found among all that the user ever asked for.
    """
    # An array of unknown size may hold ten users for all the planner knows, who have ten times as much as one: then the
    # index that names user and chapter is cheaper than those of all that a user ever asked for, which else may cost the
    # same. Not an array of chapters as well: to look up a hundred pairs costs more than all that ten users have on
    # average, as the planner knows once it has counted, and then one who has very much pays for it at every poll.
    theirs = f"g.user_id = ANY (array_append('{{}}'::uuid[], {user})) AND g.chapter_id = {chapter}"
    numbered = "" if scene is None else f"AND g.scene_number = {scene}"
    by_metadata = "" if scene is None else f"AND {SCENE} = {scene}"
    # by their chapter alone, whatever else is known of them (the fence is OFFSET): nobody makes such rows any more
    old = f"""(SELECT * FROM image_generations
        WHERE metadata ->> 'chapter_id' IN ({chapter}::text, upper({chapter}::text)) OFFSET 0)"""
    return f"""(
    SELECT g.* FROM image_generations g
    WHERE {theirs} AND g.scene_number IS NOT NULL {numbered} AND {IMAGE_TYPE} = 'scene'
    UNION ALL
    SELECT g.* FROM image_generations g
    WHERE {theirs} AND g.scene_number IS NULL {by_metadata} AND {IMAGE_TYPE} = 'scene'
    UNION ALL
    SELECT g.* FROM {old} g
    WHERE g.user_id = {user} AND g.chapter_id IS NULL {by_metadata} AND {IMAGE_TYPE} = 'scene'
) g"""


NEWEST = "g.created_at DESC NULLS LAST, g.id DESC"
SHOWN = "(g.status = 'completed' AND g.image_url IS NOT NULL)"
"""What can be a current image: completed, and with an address to show it from."""
_PLACE = f"CASE WHEN {IMAGE_TYPE} = 'scene' THEN {CHAPTER} || '/' || {SCENE} END"

# only of what is on its way: a chapter is mostly pictures that are there
_STANDING = f"""CASE WHEN g.lane IS NOT NULL AND g.status IN ('pending', 'in_progress') THEN json_build_array(
        g.lane, g.turn, {READY}, g.stage = 'provider_paused' OR coalesce(g.error_code = 'models_unavailable', false),
        g.model_id, extract(epoch FROM g.retry_at - now()),
        (SELECT json_build_array(extract(epoch FROM now() - least(a.claimed_at, a.sent_at)), a.eta,
                extract(epoch FROM now() - a.generated_at))
            FROM generation_attempts a WHERE a.record_id = g.id AND a.attempt = g.attempt))::text END"""

_COLUMNS = f"""g.id, g.version, {_PLACE} AS place, g.status, g.stage, g.created_at::timestamptz AS created_at,
    {_STANDING} AS standing, ({status_json(cost_usd=COST)})::text AS body"""
_NOT_COMPUTED = '"queue_position" : null, "eta_seconds" : null'
"""As Postgres writes it. No text of a user's can hold it: a quote within a string has a backslash before it."""

# many polls share one statement: what each of them costs is mostly the way to Postgres and back
_SCENES = f"""
SELECT w.number, s.*
FROM unnest($1::uuid[], $2::uuid[], $3::int[]) WITH ORDINALITY AS w (user_id, chapter_id, scene_number, number)
CROSS JOIN LATERAL (
    WITH scene AS (
        SELECT * FROM {rows_of_chapter("w.user_id", "w.chapter_id", "w.scene_number")}
    ), latest AS (
        SELECT * FROM scene g ORDER BY {NEWEST} LIMIT 1
    ), current AS (
        SELECT g.id AS current_id, g.image_url AS current_url, {THUMBNAIL} AS current_thumbnail
        FROM scene g WHERE {SHOWN} ORDER BY {NEWEST} LIMIT 1
    )
    SELECT {_COLUMNS}, current_id, current_url, current_thumbnail FROM latest g LEFT JOIN current ON true
) s"""

# not by an index of the user: that would be all they ever asked for
_RECORDS = f"""
SELECT w.number, {_COLUMNS}
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS w (user_id, record_id, number)
JOIN image_generations g ON g.id = w.record_id AND g.user_id IS NOT DISTINCT FROM w.user_id"""


def _latest_and_current(rows: str) -> str:
    return f"""
WITH found AS (
    SELECT g.*, coalesce({_PLACE}, g.id::text) AS spot FROM {rows}
), ranked AS (
    SELECT g.*, row_number() OVER (PARTITION BY g.spot ORDER BY {NEWEST}) AS age,
        row_number() OVER (PARTITION BY g.spot, {SHOWN} ORDER BY {NEWEST}) AS age_among_alike
    FROM found g
)
SELECT {_COLUMNS} FROM ranked g WHERE g.age = 1 OR ({SHOWN} AND g.age_among_alike = 1)
ORDER BY {CHAPTER}, {SCENE}, g.created_at NULLS FIRST, g.id"""


_CHAPTER_IMAGES = _latest_and_current(f"{rows_of_chapter('$1::uuid', '$2::uuid')} WHERE {SCENE} IS NOT NULL")
_MINE = _latest_and_current("image_generations g WHERE g.user_id = $1::uuid")

_LARGEST = 100
"""Polls that one statement answers."""

_PICTURE = "SELECT user_id, image_key, image_url FROM image_generations WHERE id = $1::uuid"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one stands that is on its way, as far as estimates need it; times in seconds, by the database's clock.

    `place`: of those who stand in line. `halted`: it waits for a breaker. `made_for`: since its attempt was sent, or
    claimed; `provider_eta`: what the provider said then. `stored_for`: since the provider's picture is there.
    """

    lane: str
    stage: str | None
    place: Place | None
    halted: bool
    model_id: str | None
    retry_in: float | None
    made_for: float | None
    provider_eta: float | None
    stored_for: float | None


@dataclass(frozen=True, slots=True)
class Image:
    """One image generation at one version; `text` is its ImageStatus as JSON.

    `place` is "<chapter_id>/<scene_number>", or null for what belongs to no scene. `estimated`: `text` says something
    that was computed when it was read, and may say something else under the same version.
    """

    record_id: UUID
    version: int
    place: str | None
    status: str | None
    stage: str | None
    created_at: datetime | None
    text: str
    standing: Standing | None = None
    estimated: bool = False

    def with_estimates(self, queue_position: int | None, eta_seconds: int | None) -> "Image":
        """The same with these in its text."""
        if queue_position is None and eta_seconds is None:
            return self
        told = f'"queue_position" : {_json(queue_position)}, "eta_seconds" : {_json(eta_seconds)}'
        return replace(self, text=self.text.replace(_NOT_COMPUTED, told, 1), estimated=True)


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
        self._scenes = Batcher(self._fetch_scenes, largest=_LARGEST)
        self._records = Batcher(self._fetch_records, largest=_LARGEST)

    async def scene(self, user_id: UUID, chapter_id: UUID, scene_number: int) -> Scene | None:
        """`latest` and `current` of one scene; None when the owner asked for none there."""
        return await self._scenes((user_id, chapter_id, scene_number))

    async def record(self, user_id: UUID, record_id: UUID) -> Image | None:
        return await self._records((user_id, record_id))

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

    async def _fetch_scenes(self, asked: Sequence[tuple[UUID, UUID, int]]) -> list[Scene | None]:
        rows, each = await self._fetch(_SCENES, asked)
        found = {each[row.number - 1]: Scene(_image(row), _current(row)) for row in rows}
        return [found.get(one) for one in asked]

    async def _fetch_records(self, asked: Sequence[tuple[UUID, UUID]]) -> list[Image | None]:
        rows, each = await self._fetch(_RECORDS, asked)
        found = {each[row.number - 1]: _image(row) for row in rows}
        return [found.get(one) for one in asked]

    async def _fetch(self, sql: str, asked: Sequence[Asked]) -> tuple[Sequence[Row[Any]], list[Asked]]:
        """Rows, whose `number` counts what was asked for, and that: each once, though a thousand may ask for it."""
        each = list(dict.fromkeys(asked))
        return await self._database.fetch(sql, *(list(column) for column in zip(*each, strict=True))), each


def _images(rows: Sequence[Row[Any]]) -> list[Image]:
    return [_image(row) for row in rows]


def _image(row: Row[Any]) -> Image:
    standing = _standing(row) if row.standing is not None else None
    return Image(row.id, row.version, row.place, row.status, row.stage, row.created_at, row.body, standing)


def _current(row: Row[Any]) -> Current | None:
    return Current(row.current_id, row.current_url, row.current_thumbnail) if row.current_id is not None else None


def _standing(row: Row[Any]) -> Standing:
    lane, turn, in_line, halted, model_id, retry_in, attempt = from_json(row.standing)
    made_for, provider_eta, stored_for = attempt or (None, None, None)
    place = (turn, row.created_at, row.id) if in_line else None
    return Standing(lane, row.stage, place, halted, model_id, retry_in, made_for, provider_eta, stored_for)


def _json(number: int | None) -> str:
    return "null" if number is None else str(number)
