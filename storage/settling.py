"""How an attempt that failed ends, and what its record does next: one transaction per verdict (PIPELINE S5, F, K2).

Each function is fenced by the claim's token and says whether it still held; without it nothing is written.
"""

from dataclasses import dataclass
from uuid import UUID

from uuid_utils.compat import uuid7

from schemas import events, topics
from schemas.errors import ErrorClass
from storage.database import Database
from storage.deadletters import HEADER_TIME
from storage.dispatching import CLAIMED_COLUMNS, Claimed, Draft, claimed
from storage.fragments import ANSWERED, KEY, PROVIDER_OPEN, READ_WOKEN, STATUS_JSON, WOKEN, cloud_event, tell_status


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: `message` is for people, `detail` (redacted, at most 1 KB) for the operator."""

    error_class: ErrorClass
    code: str
    message: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a write by a worker is fenced with."""

    claim_token: UUID
    attempt_id: UUID


_HELD = """held AS (
    SELECT g.id FROM image_generations g WHERE g.claim_token = $1 AND g.status = 'in_progress'{more} FOR UPDATE
), closed AS (
    UPDATE generation_attempts a SET outcome = {outcome}, counted = {counted}, error_class = $3, error_code = $4,
        error_detail = $5, closed_at = now()
    FROM held WHERE a.id = $2 AND {open}
    RETURNING a.id, a.record_id, a.attempt, a.model_id, a.cost, a.prompt, a.sent_at
)"""

_FREED = """freed AS (
    UPDATE provider_slots s SET attempt_id = NULL, free_at = now() + make_interval(secs => {rest})
    FROM closed WHERE s.attempt_id = closed.id
)"""

_OPEN = "(a.outcome IS NULL OR a.outcome = 'uncertain')"
# whoever learned an id in this very moment is right: the attempt is followed then, and its outcome not unknown
_UNMADE = "a.outcome IS NULL AND a.output_urls IS NULL"
_UNANSWERED = f"{_UNMADE} AND a.provider_request_id IS NULL AND a.webhook_request_id IS NULL"
_OUTCOME = "CASE a.outcome WHEN 'uncertain' THEN 'late_failure' ELSE {otherwise} END"

RETRY_DATA = "json_build_object('record_id', g.id, 'attempt', g.attempt)"


def _later(outcome: str, *, counted: bool, rest: str, unless: str = _OPEN, stage: str = "'retry_wait'") -> str:
    count = "1" if counted else "0"
    return f"""
WITH {_HELD.format(outcome=_OUTCOME.format(otherwise=outcome), counted=str(counted).lower(), more="", open=unless)},
{_FREED.format(rest=rest)},
told_rows AS (
    UPDATE image_generations g SET stage = {stage}, progress = 0, version = g.version + 1,
        attempt = g.attempt + 1, retry_count = g.retry_count + {count},
        retry_at = now() + make_interval(secs => $7), claim_token = NULL, worker_id = NULL,
        error_class = $3, error_code = $4, error_message = $6, updated_at = now()
    FROM closed WHERE g.id = closed.record_id RETURNING g.*
), told AS ({tell_status("consumer", "told_rows")}), waits AS (
    INSERT INTO outbox (topic, key, headers, body)
    SELECT $8, g.id::text, jsonb_build_object('not-before', ceil(extract(epoch FROM g.retry_at) * 1000)::bigint::text,
        'attempt', g.attempt::text), {cloud_event("consumer", events.RETRY_TYPE, RETRY_DATA, key="g.id::text")}
    FROM told_rows g
), {WOKEN}
SELECT g.id, {READ_WOKEN} FROM told_rows g
"""


_RETRY = _later("'failed'", counted=True, rest="0")
_RETRY_UNCERTAIN = _later("'uncertain'", counted=True, rest="0", unless=_UNANSWERED)
_DEFER = _later("'deferred'", counted=False, rest="$7")
# told at once where it will be told anyway; nobody rests, since no slot is the reason
_PAUSED = f"CASE WHEN {PROVIDER_OPEN} THEN 'provider_paused' ELSE 'retry_wait' END"
_PUT_OFF = _later("'deferred'", counted=False, rest="0", stage=_PAUSED)
_PUT_OFF_UNCERTAIN = _later("'uncertain'", counted=False, rest="0", unless=_UNANSWERED, stage=_PAUSED)


async def retry(database: Database, claim: Claim, failure: Failure, *, delay: float, uncertain: bool = False) -> bool:
    """Counted: the next attempt in `delay` seconds.

    `uncertain`: this one may have been charged; when the provider's id has come meanwhile, nothing is written.
    """
    return bool(
        await database.fetch(
            _RETRY_UNCERTAIN if uncertain else _RETRY,
            *_arguments(claim, failure),
            delay,
            topics.retry(topics.retry_tier(delay)),
        )
    )


async def defer(database: Database, claim: Claim, failure: Failure, *, delay: float) -> bool:
    """Not now: costs no retry, and the slot rests as long as the record waits."""
    return bool(
        await database.fetch(_DEFER, *_arguments(claim, failure), delay, topics.retry(topics.retry_tier(delay)))
    )


async def put_off(database: Database, claim: Claim, failure: Failure, *, delay: float, uncertain: bool = False) -> bool:
    """A breaker is open: costs no retry, and the record goes on when it is closed or probed (K2, K4).

    `uncertain` as in `retry`: it may have been charged all the same.
    """
    return bool(
        await database.fetch(
            _PUT_OFF_UNCERTAIN if uncertain else _PUT_OFF,
            *_arguments(claim, failure),
            delay,
            topics.retry(topics.retry_tier(delay)),
        )
    )


# It was counted when it became uncertain, and the next attempt decided then: the record only waits for that again. A
# number whose own row is closed (superseded by this attempt) cannot be sent any more.
_BACK_TO_RETRY = f"""
WITH {_HELD.format(outcome="'late_failure'", counted="a.counted", more="", open="a.outcome = 'uncertain'")},
told_rows AS (
    UPDATE image_generations g SET stage = 'retry_wait', progress = 0, version = g.version + 1,
        attempt = g.attempt + (EXISTS (SELECT FROM generation_attempts a
            WHERE a.record_id = g.id AND a.attempt = g.attempt AND a.outcome IS NOT NULL))::int,
        retry_at = coalesce(g.retry_at, now()), claim_token = NULL, worker_id = NULL,
        error_class = $3, error_code = $4, error_message = $6, updated_at = now()
    FROM closed WHERE g.id = closed.record_id RETURNING g.*
), told AS ({tell_status("consumer", "told_rows")}), {WOKEN}
SELECT g.id, {READ_WOKEN} FROM told_rows g
"""


async def back_to_retry(database: Database, claim: Claim, failure: Failure) -> bool:
    """An uncertain attempt was followed to its failure: the record returns to the retry it was waiting for (W6)."""
    return bool(await database.fetch(_BACK_TO_RETRY, *_arguments(claim, failure)))


_NEXT_MODEL = f"""
WITH {_HELD.format(outcome="'handed_over'", counted="false", more="", open=_UNMADE)},
told_rows AS (
    UPDATE image_generations g SET stage = 'submitting', version = g.version + 1, attempt = g.attempt + 1,
        model_id = $8, error_class = $3, error_code = $4, error_message = $6, updated_at = now()
    FROM closed WHERE g.id = closed.record_id RETURNING g.*
), a AS (
    INSERT INTO generation_attempts (id, record_id, attempt, pass, worker_id, claim_token, model_id, prompt, path,
        payload, cost, webhook_token, claimed_at)
    SELECT $7, g.id, g.attempt, g.retry_count, g.worker_id, $1, $8, $9, $10, $11::jsonb, $12::float8, $13, now()
    FROM told_rows g RETURNING *
), bound AS (
    UPDATE provider_slots s SET attempt_id = a.id FROM closed, a WHERE s.attempt_id = closed.id
), told AS ({tell_status("consumer", "told_rows")}), {WOKEN}
SELECT {CLAIMED_COLUMNS}, {READ_WOKEN} FROM told_rows g JOIN a ON a.record_id = g.id
"""


async def next_model(database: Database, claim: Claim, failure: Failure, draft: Draft) -> Claimed | None:
    """Close this attempt uncounted and open the next, with the same worker, claim and slot (S5). None: claim gone."""
    rows = await database.fetch(_NEXT_MODEL, *_arguments(claim, failure), uuid7(), *draft.columns())
    return claimed(rows[0]) if rows else None


_TRIED_MODELS = """
SELECT a.model_id FROM generation_attempts a JOIN image_generations g ON g.id = a.record_id
WHERE g.claim_token = $1 AND a.pass = g.retry_count AND a.attempt >= coalesce(g.replay_attempt, 0)
"""


async def tried_models(database: Database, claim_token: UUID) -> set[str]:
    """The models this retry has already been through: at most one pass of the chain per retry (S5).

    What was tried before a replay is history.
    """
    return {row.model_id for row in await database.fetch(_TRIED_MODELS, claim_token)}


DEAD_DATA = """json_build_object('record_id', g.id, 'request', json_strip_nulls(json_build_object(
        'user_id', g.user_id, 'chapter_id', g.chapter_id, 'script_id', g.script_id, 'scene_number', g.scene_number,
        'image_type', g.image_type, 'scene_description', g.scene_description, 'style', g.style,
        'aspect_ratio', g.aspect_ratio, 'custom_prompt', g.custom_prompt, 'user_tier', g.user_tier, 'lane', g.lane,
        'character_ids', g.metadata -> 'character_ids',
        'character_image_urls', g.metadata -> 'character_image_urls')),
    'attempt', g.attempt, 'error_class', g.error_class, 'error_code', g.error_code,
    'error_message', g.error_message)"""


def fail_rows(rows: str, *, closed: str) -> str:
    """CTEs that tell of the failed records in `rows`: status, fact, dead letter and its row.

    `closed` is the CTE of the attempts that ended with them: record_id, cost, prompt.
    """
    facts = f"""({STATUS_JSON}::jsonb || coalesce(
        (SELECT jsonb_build_object('cost', c.cost::float8, 'prompt', c.prompt) FROM {closed} c
         WHERE c.record_id = g.id LIMIT 1), '{{"cost": null, "prompt": null}}'))::json"""
    return f"""told AS ({tell_status("consumer", rows)}), fact AS (
    INSERT INTO outbox (topic, key, body)
    SELECT '{topics.FAILED}', {KEY}, {cloud_event("consumer", events.FAILED_TYPE, facts)} FROM {rows} g
), letter AS (
    INSERT INTO dead_letters (record_id, user_id, chapter_id, attempt, model_id, error_class, error_code, error_message,
        topic, first_failed_at)
    SELECT g.id, g.user_id, g.chapter_id, g.attempt, g.model_id, g.error_class, g.error_code, g.error_message,
        'scene-images.dead-' || g.error_class || '.v1',
        coalesce((SELECT min(a.closed_at) FROM generation_attempts a WHERE a.record_id = g.id), now())
    FROM {rows} g RETURNING *
), dead AS (
    INSERT INTO outbox (topic, key, headers, body)
    SELECT l.topic, g.id::text, jsonb_strip_nulls(jsonb_build_object(
            'origin-topic', 'scene-images.requested.' || g.lane || '.v1', 'attempt', g.attempt::text,
            'error-class', g.error_class, 'error-code', g.error_code, 'error-message', left(g.error_message, 1024),
            'first-failed-at', {HEADER_TIME.format(time="l.first_failed_at")},
            'failed-at', {HEADER_TIME.format(time="now()")})),
        {cloud_event("consumer", events.DEAD_TYPE, DEAD_DATA, key="g.id::text")}
    FROM {rows} g JOIN letter l ON l.record_id = g.id
), {WOKEN}"""


_DIE = f"""
WITH {
    _HELD.format(
        outcome=_OUTCOME.format(otherwise="$8::text"),
        counted="a.sent_at IS NOT NULL",
        more="",
        open=f"CASE WHEN $8::text = 'uncertain' THEN {_UNANSWERED} ELSE {_OPEN} END",
    )
},
{_FREED.format(rest="0")},
ended AS (
    UPDATE image_generations g SET status = 'failed', stage = 'done', version = g.version + 1, claim_token = NULL,
        worker_id = NULL, retry_at = NULL, error_class = $7, error_code = $4, error_message = $6,
        updated_at = now(), completed_at = now()
    FROM held WHERE g.id = held.id AND ($8::text <> 'uncertain' OR EXISTS (SELECT FROM closed)) RETURNING g.*
), {fail_rows("ended", closed="closed")}
SELECT g.id, {READ_WOKEN} FROM ended g
"""


async def die(
    database: Database,
    claim: Claim,
    failure: Failure,
    *,
    dead_class: ErrorClass,
    uncertain: bool = False,
) -> bool:
    """End the record as failed, with its dead letter; `dead_class` names the topic. The slot goes with the attempt.

    `uncertain` as in `retry`.
    """
    return bool(
        await database.fetch(
            _DIE,
            *_arguments(claim, failure),
            dead_class.value,
            "uncertain" if uncertain else "failed",
        )
    )


_RIVAL = f"""(
        SELECT o.id FROM generation_attempts o
        WHERE o.record_id = {{record}} AND o.id <> $2 AND (o.outcome IS NULL OR o.outcome = 'uncertain')
            AND {ANSWERED}
        ORDER BY o.attempt DESC LIMIT 1)"""

_SUPERSEDE = f"""
WITH {
    _HELD.format(
        outcome="'superseded'",
        counted="false",
        more=f" AND {_RIVAL.format(record='g.id')} IS NOT NULL",
        open=_OPEN,
    )
},
{_FREED.format(rest="0")},
a AS (
    UPDATE generation_attempts a SET worker_id = g.worker_id, claim_token = $1, claimed_at = now()
    FROM held JOIN image_generations g USING (id) WHERE a.id = {_RIVAL.format(record="held.id")}
    RETURNING a.*
)
SELECT {CLAIMED_COLUMNS} FROM held JOIN image_generations g USING (id) JOIN a ON a.record_id = g.id
WHERE $6::text IS NOT NULL
"""


async def supersede(database: Database, claim: Claim, failure: Failure) -> Claimed | None:
    """Another attempt of the record has an id: close ours uncounted and follow that one (S2).

    None: the claim is gone, or that other attempt has ended meanwhile, and nothing was written.
    """
    rows = await database.fetch(_SUPERSEDE, *_arguments(claim, failure))
    return claimed(rows[0]) if rows else None


def _arguments(claim: Claim, failure: Failure) -> tuple[object, ...]:
    return (
        claim.claim_token,
        claim.attempt_id,
        failure.error_class.value,
        failure.code,
        failure.detail,
        failure.message,
    )
