"""Pieces of SQL that several statements share, so that one status is the same JSON wherever it is read or sent.

They speak of `image_generations` under the alias `g`.
"""

from schemas import events, topics

# rows of the old system keep chapter and scene in metadata alone, and may leave the type out
CHAPTER = "coalesce(g.chapter_id::text, lower(g.metadata ->> 'chapter_id'))"
SCENE = (
    "coalesce(g.scene_number, CASE WHEN g.metadata ->> 'scene_number' ~ '^[0-9]{1,9}$'"
    " THEN (g.metadata ->> 'scene_number')::int END)"
)
IMAGE_TYPE = "coalesce(g.image_type, 'scene')"
# it is served under the very signature of its picture (media.links); there is none of pictures that are not ours
THUMBNAIL = (
    "CASE WHEN g.image_key IS NOT NULL"
    r" THEN regexp_replace(g.image_url, '/file/([^/.]+)[.][a-z0-9]+$', '/thumb/\1.webp') END"
)


def status_json(*, cost_usd: str = "NULL") -> str:
    """SQL for an ImageStatus; `cost_usd` is SQL for what is computed when a status is read.

    The session's time zone is UTC, so times end in +00:00.
    """
    # coalesce: old code may go on writing nulls into columns that were there before ours
    return f"""json_build_object(
    'record_id', g.id, 'task_id', g.id, 'user_id', g.user_id,
    'chapter_id', {CHAPTER}, 'script_id', g.script_id, 'scene_number', {SCENE},
    'image_type', {IMAGE_TYPE}, 'status', g.status, 'stage', g.stage,
    'progress', coalesce(g.progress, 0), 'version', coalesce(g.version, 0), 'attempt', coalesce(g.attempt, 0),
    'retry_count', coalesce(g.retry_count, 0),
    'retry_at', g.retry_at, 'queue_position', NULL, 'eta_seconds', NULL,
    'image_url', g.image_url, 'thumbnail_url', {THUMBNAIL}, 'model_id', g.model_id, 'cost_usd', {cost_usd},
    'error_class', g.error_class, 'error_code', g.error_code, 'error_message', g.error_message,
    'created_at', g.created_at::timestamptz, 'updated_at', g.updated_at::timestamptz,
    'completed_at', g.completed_at::timestamptz)"""


STATUS_JSON = status_json()
"""An ImageStatus as events carry it."""

ANSWERED = "(o.provider_request_id IS NOT NULL OR o.webhook_request_id IS NOT NULL OR o.output_urls IS NOT NULL)"
"""Of a generation_attempts row `o`: the provider has taken it, so nothing may be submitted beside it (PIPELINE S1)."""

KEPT = "k.image_key IS NOT NULL AND k.outcome = 'late_success'"
"""Of a generation_attempts row `k`: its picture was stored after its record's end, and a replay completes from it."""

ENDED = "g.status IN ('completed', 'failed', 'cancelled')"

KEY = "coalesce(g.chapter_id, g.id)::text"
"""The Kafka key of everything that is told of a record: its chapter, so that a chapter's changes stay in order."""


def cloud_event(source: str, event_type: str, data: str, *, key: str = KEY) -> str:
    """SQL for the bytes of one CloudEvent about `g`; `data` is SQL for its json. The id is fixed here (PIPELINE R2)."""
    return f"""convert_to(json_build_object(
        'specversion', '1.0', 'id', gen_random_uuid(), 'source', '/scenewire/{source}', 'type', '{event_type}',
        'subject', g.id, 'time', now(), 'datacontenttype', 'application/json',
        'sequence', g.version::text, 'partitionkey', {key}, 'traceparent', g.traceparent,
        'data', {data})::text, 'UTF8')"""


def tell_status(source: str, rows: str) -> str:
    """SQL that puts one status event per row of `rows` (a CTE of whole image_generations rows) into the outbox."""
    return f"""INSERT INTO outbox (topic, key, body)
        SELECT '{topics.STATUS}', {KEY}, {cloud_event(source, events.STATUS_TYPE, STATUS_JSON)}
        FROM {rows} g ORDER BY g.id"""


WOKEN = "woken AS MATERIALIZED (SELECT pg_notify('scenewire_outbox', ''))"
"""A CTE that wakes the relay at commit: a wake-up, not a promise (the relay polls too). Read it, or it is not run."""

READ_WOKEN = "(SELECT count(*) FROM woken) AS woken"
"""The column that reads `WOKEN`; once a statement, whatever the number of rows."""

PROVIDER_OPEN = "EXISTS (SELECT FROM breakers WHERE scope = 'provider' AND opened_at IS NOT NULL)"
OPEN_SECONDS = "(SELECT open_seconds FROM breakers WHERE scope = 'provider')"
"""Seconds that the provider's breaker was open in all, up to its last close."""
OPEN_SECONDS_NOW = (
    "(SELECT open_seconds + coalesce(extract(epoch FROM now() - opened_at), 0) FROM breakers WHERE scope = 'provider')"
)
"""The same, with the time since it opened if it is open: what a deadline set now allows for (PIPELINE K2)."""
DEADLINE = f"(g.deadline_at + make_interval(secs => greatest(0, {OPEN_SECONDS_NOW} - g.paused_seconds)))"
"""When `g` must have ended: `deadline_at` is moved in batches after the breaker closed, this is true at once."""
