"""What the provider said, and what became of its picture (PIPELINE S3, T1, F4). All fenced by the claim's token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from schemas import events, topics
from storage import breakers
from storage.batching import Batcher
from storage.breakers import TROUBLED
from storage.database import Database, Transaction
from storage.fragments import KEY, READ_WOKEN, STATUS_JSON, WOKEN, cloud_event, tell_status
from telemetry import metrics


@dataclass(frozen=True, slots=True)
class Answer:
    """The provider took the attempt: it gave an id, or (with `output_urls`) the picture itself. `eta` in seconds."""

    claim_token: UUID
    attempt_id: UUID
    provider_request_id: str | None
    fetch_url: str | None = None
    eta: float | None = None
    output_urls: list[str] | None = None
    proxy_urls: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stored:
    """The picture lies in the media store: `facts` are schemas.events.PictureFacts, as json, and its `provider_url`."""

    claim_token: UUID
    attempt_id: UUID
    image_key: str
    image_url: str
    facts: dict[str, Any]


_LOCK_OURS = """
SELECT g.claim_token FROM image_generations g
WHERE g.claim_token = ANY($1::uuid[]) AND g.status = 'in_progress' ORDER BY g.id FOR UPDATE
"""

# the id is written with or without the claim: whoever learned it is the only one who can tell (F4)
_ANSWERED = f"""
WITH said AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::float8[], $6::jsonb[], $7::jsonb[],
        $8::bool[]) AS s(attempt_id, token, request_id, fetch_url, eta, output_urls, proxy_urls, ours)
), a AS (
    UPDATE generation_attempts a SET
        provider_request_id = coalesce(a.provider_request_id, said.request_id),
        fetch_url = coalesce(a.fetch_url, said.fetch_url), eta = coalesce(said.eta, a.eta),
        output_urls = CASE WHEN said.ours THEN coalesce(a.output_urls, said.output_urls) ELSE a.output_urls END,
        proxy_urls = CASE WHEN said.ours THEN coalesce(a.proxy_urls, said.proxy_urls) ELSE a.proxy_urls END,
        generated_at = CASE WHEN said.ours AND said.output_urls IS NOT NULL
            THEN coalesce(a.generated_at, now()) ELSE a.generated_at END
    FROM said WHERE a.id = said.attempt_id
    RETURNING a.*, said.token AS said_token, said.ours, said.output_urls IS NOT NULL AS generated
), freed AS (
    UPDATE provider_slots SET attempt_id = NULL
    WHERE attempt_id = ANY(ARRAY(SELECT id FROM a WHERE ours AND generated)) RETURNING slot
), told_rows AS (
    UPDATE image_generations g SET provider_request_id = a.provider_request_id,
        stage = CASE WHEN a.generated THEN 'storing' ELSE 'generating' END,
        progress = CASE WHEN a.generated THEN 85 ELSE greatest(g.progress, 15) END,
        version = g.version + 1, updated_at = now()
    FROM a WHERE g.id = a.record_id AND a.ours AND g.claim_token = a.said_token AND g.status = 'in_progress'
        -- the claim outlives an attempt that was handed over to the next model: of that one nothing more counts
        AND (a.outcome IS NULL OR a.outcome = 'uncertain')
    RETURNING g.*
), told AS ({tell_status("consumer", "told_rows")}), {WOKEN}
SELECT g.claim_token, {TROUBLED} AS troubled, {READ_WOKEN} FROM told_rows g
"""

# where it came from is nobody's business outside
_PICTURE = "g.attempt_facts - 'provider_url'"
_COST_AND_PROMPT = """'cost', g.attempt_cost::float8, 'prompt', g.attempt_prompt"""


def _fact(topic: str, event_type: str, rows: str, more: str) -> str:
    data = f"({STATUS_JSON}::jsonb || jsonb_build_object({more}))::json"
    return f"""INSERT INTO outbox (topic, key, body)
        SELECT '{topic}', {KEY}, {cloud_event("consumer", event_type, data)} FROM {rows} g ORDER BY g.id"""


COMPLETED = f"""done AS (
    UPDATE image_generations g SET status = 'completed', stage = 'done', progress = 100, version = g.version + 1,
        image_key = a.image_key, image_url = a.image_url, model_id = a.model_id, claim_token = NULL, worker_id = NULL,
        retry_at = NULL, error_class = NULL, error_code = NULL, error_message = NULL,
        metadata = coalesce(g.metadata, '{{}}') || jsonb_build_object('picture', a.facts),
        updated_at = now(), completed_at = now()
    FROM a WHERE g.id = a.record_id
    RETURNING g.*, a.cost AS attempt_cost, a.prompt AS attempt_prompt, a.facts AS attempt_facts
), told AS ({tell_status("consumer", "done")}), fact AS (
    {_fact(topics.COMPLETED, events.COMPLETED_TYPE, "done", f"{_COST_AND_PROMPT}, 'picture', {_PICTURE}")}
), {WOKEN}"""
"""CTEs that complete the records of a CTE `a`: record_id, model_id, cost, prompt, image_key, image_url, facts."""

# Each by its id, whatever a plan made while there was little would rather do: as joins the batch would be held against
# all that is claimed. `coalesce` keeps the index of open attempts out of it for the same reason.
_STORED = f"""
WITH stored AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[])
    AS s(attempt_id, token, image_key, image_url, facts)
), found AS (
    SELECT stored.*, g.id FROM stored CROSS JOIN LATERAL (
        SELECT id FROM image_generations WHERE claim_token = stored.token OFFSET 0) g
), held AS (
    SELECT f.* FROM (SELECT * FROM found ORDER BY id) f CROSS JOIN LATERAL (
        SELECT FROM image_generations
        WHERE id = f.id AND claim_token = f.token AND status = 'in_progress' OFFSET 0 FOR UPDATE) g
), a AS (
    UPDATE generation_attempts a SET
        outcome = CASE a.outcome WHEN 'uncertain' THEN 'late_success' ELSE 'success' END,
        counted = true, image_key = held.image_key, image_url = held.image_url, closed_at = now()
    FROM held WHERE a.id = held.attempt_id AND coalesce(a.outcome, 'uncertain') = 'uncertain'
    RETURNING a.id, a.record_id, a.model_id, a.cost, a.prompt, held.image_key, held.image_url, held.facts
), freed AS (
    UPDATE provider_slots SET attempt_id = NULL WHERE attempt_id = ANY(ARRAY(SELECT id FROM a))
), {COMPLETED}
SELECT stored.token, done.id IS NOT NULL AS done, done.lane,
    extract(epoch FROM done.completed_at - done.created_at)::float8 AS took, {READ_WOKEN}
FROM stored LEFT JOIN held USING (attempt_id) LEFT JOIN done ON done.id = held.id
"""

_PROGRESS = f"""
WITH told_rows AS (
    UPDATE image_generations g SET progress = $2, version = g.version + 1, updated_at = now()
    WHERE g.claim_token = $1 AND g.status = 'in_progress' AND g.stage = 'generating' AND g.progress < $2
    RETURNING g.*
), told AS ({tell_status("consumer", "told_rows")}), {WOKEN}
SELECT g.id, {READ_WOKEN} FROM told_rows g
"""


class Answers:
    """Writes down what the provider said, many answers in one statement. Each method says whether the claim held."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._answered: Batcher[Answer, bool] = Batcher(self._flush_answered)
        self._stored: Batcher[Stored, bool] = Batcher(self._flush_stored)

    async def answered(self, answer: Answer) -> bool:
        """The id, or the output URLs with the slot freed; False: the claim is gone, only the id was kept."""
        return await self._answered(answer)

    async def stored(self, stored: Stored) -> bool:
        """Complete the record; False: the claim is gone and nothing was written."""
        return await self._stored(stored)

    async def progress(self, claim_token: UUID, percent: int) -> bool:
        """Tell a rise in progress while the provider works."""
        return bool(await self._database.fetch(_PROGRESS, claim_token, percent))

    async def _flush_answered(self, answers: Sequence[Answer]) -> Sequence[bool | Exception]:
        async def work(tx: Transaction) -> Sequence[bool | Exception]:
            ours = {row.claim_token for row in await tx.fetch(_LOCK_OURS, [a.claim_token for a in answers])}
            rows = await tx.fetch(
                _ANSWERED,
                [a.attempt_id for a in answers],
                [a.claim_token for a in answers],
                [a.provider_request_id for a in answers],
                [a.fetch_url for a in answers],
                [a.eta for a in answers],
                [to_json(a.output_urls).decode() if a.output_urls else None for a in answers],
                [to_json(a.proxy_urls).decode() if a.proxy_urls else None for a in answers],
                [a.claim_token in ours for a in answers],
            )
            if rows and rows[0].troubled:
                # an id is an answer: what failed before it is over (K3)
                await breakers.well(tx, [a.attempt_id for a in answers])
            written = {row.claim_token for row in rows}
            return [a.claim_token in written for a in answers]

        return await self._database.run(work)

    async def _flush_stored(self, stored: Sequence[Stored]) -> Sequence[bool | Exception]:
        rows = await self._database.fetch(
            _STORED,
            [s.attempt_id for s in stored],
            [s.claim_token for s in stored],
            [s.image_key for s in stored],
            [s.image_url for s in stored],
            [to_json(s.facts).decode() for s in stored],
        )
        done = {row.token for row in rows if row.done}
        for row in rows:
            if row.done:
                metrics.observe("generation_seconds", row.took, lane=row.lane)
        return [s.claim_token in done for s in stored]


_LEARN = """
UPDATE generation_attempts a SET provider_request_id = l.request_id, fetch_url = coalesce(a.fetch_url, l.fetch_url)
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS l(attempt_id, request_id, fetch_url)
WHERE a.id = l.attempt_id AND a.provider_request_id IS NULL
"""


async def learn(database: Database, answers: Sequence[Answer]) -> None:
    """Write the ids a worker holds in memory, claim or not: first thing after a lost connection (W3, F4)."""
    known = [a for a in answers if a.provider_request_id is not None]
    if known:
        await database.fetch(
            _LEARN,
            [a.attempt_id for a in known],
            [a.provider_request_id for a in known],
            [a.fetch_url for a in known],
        )
