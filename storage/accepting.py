"""Accept a request: record, idempotency key and outbox in one statement for all that arrived together (PIPELINE A)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from schemas import events, topics
from schemas.requests import SceneImageRequest
from schemas.words import Lane, Tier
from storage.batching import Batcher
from storage.database import Database, Unavailable, sqlstate
from storage.fragments import OPEN_SECONDS_NOW, READ_WOKEN, WOKEN, cloud_event, tell_status
from telemetry import metrics

_FOREIGN_KEY_VIOLATION = "23503"


@dataclass(frozen=True, slots=True)
class NewRequest:
    """One call of POST. `fingerprint` is of path and body, and goes with `idempotency_key`."""

    record_id: UUID
    user_id: UUID
    chapter_id: UUID
    scene_number: int
    body: SceneImageRequest
    tier: Tier
    idempotency_key: str | None = None
    fingerprint: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The record that answers the request; `replayed` when an earlier call with this key made it."""

    record_id: UUID
    replayed: bool


class KeyReused(Exception):
    """This Idempotency-Key was used before with another path or body."""


class UnknownReference(Exception):
    """The request names a row of another table that does not exist (an adopted table that kept its foreign keys)."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        #: `chapter_id`, `script_id` or `user_id`; empty where the constraint does not tell
        self.field = field


REQUESTED_DATA = """json_strip_nulls(json_build_object(
        'record_id', g.id, 'user_id', g.user_id, 'chapter_id', g.chapter_id, 'scene_number', g.scene_number,
        'scene_description', g.scene_description, 'style', g.style, 'aspect_ratio', g.aspect_ratio,
        'custom_prompt', g.custom_prompt, 'script_id', g.script_id, 'user_tier', g.user_tier,
        'character_ids', g.metadata -> 'character_ids',
        'character_image_urls', g.metadata -> 'character_image_urls'))"""

# `keyed` decides a race: only one statement gets to insert the key, and only its record is made. DO NOTHING on the
# record's id lets the same flush run again after a lost connection (A3).
_ACCEPT = f"""
WITH asked AS (
    SELECT * FROM unnest(
        $1::int[], $2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::uuid[], $11::jsonb[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[]
    ) AS a(ordinal, id, user_id, chapter_id, scene_number, scene_description, style, aspect_ratio, custom_prompt,
           script_id, metadata, user_tier, lane, key, fingerprint, traceparent)
), keyed AS (
    INSERT INTO idempotency_keys (user_id, key, fingerprint, record_id)
    SELECT user_id, key, fingerprint, id FROM asked WHERE key IS NOT NULL ORDER BY user_id, key
    ON CONFLICT (user_id, key) DO NOTHING
    RETURNING record_id
), made AS (
    INSERT INTO image_generations (
        id, user_id, chapter_id, script_id, scene_number, image_type, scene_description, style, aspect_ratio,
        custom_prompt, user_tier, status, stage, progress, version, attempt, lane, metadata, traceparent,
        created_at, updated_at, deadline_at, paused_seconds)
    SELECT id, user_id, chapter_id, script_id, scene_number, 'scene', scene_description, style, aspect_ratio,
        custom_prompt, user_tier, 'pending', 'queued', 0, 1, 1, lane, metadata, traceparent,
        now(), now(), now() + make_interval(secs => $17), {OPEN_SECONDS_NOW}
    FROM asked WHERE key IS NULL OR id IN (SELECT record_id FROM keyed)
    ON CONFLICT (id) DO NOTHING
    RETURNING *
), requested AS (
    INSERT INTO outbox (topic, key, body)
    SELECT 'scene-images.requested.' || g.lane || '.v1', g.id::text,
        {cloud_event("producer", events.REQUESTED_TYPE, REQUESTED_DATA, key="g.id::text")}
    FROM made g ORDER BY g.id
), told AS ({tell_status("producer", "made")}), {WOKEN}
SELECT a.ordinal, made.id IS NOT NULL AS made, {READ_WOKEN} FROM asked a LEFT JOIN made USING (id)
"""

# who lost against a concurrent key, or repeats a flush whose answer was lost, is read afterwards (A2)
_EARLIER = """
SELECT a.ordinal, k.record_id, k.fingerprint = a.fingerprint AS same, g.id IS NOT NULL AS on_record
FROM unnest($1::int[], $2::uuid[], $3::uuid[], $4::text[], $5::text[]) AS a(ordinal, id, user_id, key, fingerprint)
LEFT JOIN idempotency_keys k ON k.user_id = a.user_id AND k.key = a.key
LEFT JOIN image_generations g ON g.id = a.id
"""

assert all(topics.requested(lane) == f"scene-images.requested.{lane.value}.v1" for lane in Lane)


class Acceptor:
    """Group commit for POST. `deadline` is how many seconds a request may take in all before it is ended."""

    def __init__(self, database: Database, *, deadline: float) -> None:
        self._database = database
        self._deadline = deadline
        self._batch: Batcher[NewRequest, Accepted] = Batcher(self._flush)

    async def accept(self, request: NewRequest) -> Accepted:
        """Put one request on record. Raises `KeyReused`, `UnknownReference`, `Unavailable`."""
        return await self._batch(request)

    async def _flush(self, requests: Sequence[NewRequest]) -> Sequence[Accepted | Exception]:
        # two of one key in one statement would both lose: the second waits for its own statement
        order = sorted(range(len(requests)), key=lambda i: (requests[i].user_id, requests[i].idempotency_key or ""))
        twins = {
            later
            for earlier, later in pairwise(order)
            if requests[later].idempotency_key is not None
            and (requests[earlier].user_id, requests[earlier].idempotency_key)
            == (requests[later].user_id, requests[later].idempotency_key)
        }
        results: dict[int, Accepted | Exception] = {}
        metrics.observe("accept_batch", len(requests))
        await self._flush_some([(i, requests[i]) for i in order if i not in twins], results)
        for i in order:
            if i in twins:
                await self._flush_some([(i, requests[i])], results)
        return [results[i] for i in range(len(requests))]

    async def _flush_some(
        self, numbered: Sequence[tuple[int, NewRequest]], results: dict[int, Accepted | Exception]
    ) -> None:
        try:
            results.update(await self._accept(numbered, repeats=1))
        except Exception as error:
            if isinstance(error, Unavailable) or len(numbered) == 1:
                meaning = _meaning(error)
                results.update((i, meaning) for i, _ in numbered)
                return
            # one bad row fails one request (A3)
            for one in numbered:
                await self._flush_some([one], results)

    async def _accept(
        self, numbered: Sequence[tuple[int, NewRequest]], *, repeats: int
    ) -> dict[int, Accepted | Exception]:
        try:
            rows = await self._database.fetch(_ACCEPT, *_columns(numbered), self._deadline)
        except Unavailable:
            if repeats == 0:
                raise
            # the ids are ours, so the flush that may have committed can be repeated without harm
            return await self._accept(numbered, repeats=repeats - 1)
        made = {row.ordinal for row in rows if row.made}
        results: dict[int, Accepted | Exception] = {
            i: Accepted(request.record_id, replayed=False) for i, request in numbered if i in made
        }
        others = [(i, request) for i, request in numbered if i not in made]
        if others:
            results.update(await self._earlier(others))
        return results

    async def _earlier(self, others: Sequence[tuple[int, NewRequest]]) -> dict[int, Accepted | Exception]:
        rows = await self._database.fetch(
            _EARLIER,
            [i for i, _ in others],
            [r.record_id for _, r in others],
            [r.user_id for _, r in others],
            [r.idempotency_key for _, r in others],
            [r.fingerprint for _, r in others],
        )
        results: dict[int, Accepted | Exception] = {}
        by_ordinal = dict(others)
        for row in rows:
            request = by_ordinal[row.ordinal]
            if row.on_record:
                results[row.ordinal] = Accepted(request.record_id, replayed=False)
            elif row.record_id is None:
                results[row.ordinal] = Unavailable("the key's owner was rolled back; ask again")
            elif not row.same:
                results[row.ordinal] = KeyReused(request.idempotency_key)
            else:
                results[row.ordinal] = Accepted(row.record_id, replayed=True)
        return results


def _meaning(error: Exception) -> Exception:
    if sqlstate(error) != _FOREIGN_KEY_VIOLATION:
        return error
    named = re.search(r"Key \((\w+)\)", str(getattr(error, "orig", "")))
    return UnknownReference(named[1] if named else "")


def _columns(numbered: Sequence[tuple[int, NewRequest]]) -> tuple[list[Any], ...]:
    rows = [
        (
            i,
            r.record_id,
            r.user_id,
            r.chapter_id,
            r.scene_number,
            r.body.scene_description,
            r.body.style.value,
            r.body.aspect_ratio,
            r.body.custom_prompt,
            r.body.script_id,
            to_json(r.body.extras()).decode(),
            r.tier.value,
            r.tier.lane.value,
            r.idempotency_key,
            r.fingerprint,
            r.traceparent,
        )
        for i, r in numbered
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))
