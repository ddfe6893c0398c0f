"""All tables, as SQLAlchemy metadata. The migrations make them; a test holds the two against each other."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

metadata = MetaData()

_now = text("now()")


def _time(name: str, *, nullable: bool = True, default: bool = False) -> Column[object]:
    return Column(name, TIMESTAMP(timezone=True), nullable=nullable, server_default=_now if default else None)


image_generations = Table(
    "image_generations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid),
    Column("chapter_id", Uuid),
    Column("script_id", Uuid),
    Column("scene_number", Integer),
    Column("image_type", Text, nullable=False, server_default="scene"),
    Column("scene_description", Text),
    Column("style", Text),
    Column("aspect_ratio", Text),
    Column("custom_prompt", Text),
    Column("user_tier", Text),
    Column("status", Text),
    Column("stage", Text),
    Column("progress", SmallInteger, nullable=False, server_default="0"),
    # 0: a row of the old system; ours start at 1
    Column("version", BigInteger, nullable=False, server_default="0"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("retry_count", Integer, nullable=False, server_default="0"),
    _time("retry_at"),
    Column("model_id", Text),
    Column("provider_request_id", Text),
    Column("image_url", Text),
    Column("image_key", Text),
    Column("error_class", Text),
    Column("error_code", Text),
    Column("error_message", Text),
    # null: not accepted by Scenewire, so shown but never claimed, swept, retried or dead-lettered
    Column("lane", Text),
    Column("turn", BigInteger),
    Column("batch_id", Uuid),
    _time("admitted_at"),
    Column("worker_id", Uuid),
    Column("claim_token", Uuid),
    Column("takeovers", Integer, nullable=False, server_default="0"),
    _time("first_dispatched_at"),
    _time("deadline_at"),
    # seconds that the provider's breaker was ever open, as far as `deadline_at` allows for them; null: nothing to move
    Column("paused_seconds", Double),
    # the number that the last replay began with: attempts below it are history
    Column("replay_attempt", Integer),
    Column("traceparent", Text),
    Column("metadata", JSONB),
    _time("created_at", default=True),
    _time("updated_at", default=True),
    _time("completed_at"),
)

WAITING = "lane IS NOT NULL AND claim_token IS NULL AND status IN ('pending', 'in_progress')"
CLAIMED = "claim_token IS NOT NULL"

# adopted names: where the old system made these three they hold its rows and ours, and stay so
Index("idx_image_generations_chapter_id", image_generations.c.chapter_id, postgresql_where=text("lane IS NULL"))
Index(
    "idx_image_generations_scene_number_meta",
    image_generations.c.metadata["scene_number"].astext,
    postgresql_where=text("lane IS NULL"),
)
Index("idx_image_generations_image_type", image_generations.c.image_type, postgresql_where=text("lane IS NULL"))
# ours
Index(
    "idx_image_generations_scene",
    image_generations.c.user_id,
    image_generations.c.chapter_id,
    image_generations.c.scene_number,
    image_generations.c.created_at,
    image_generations.c.id,
)
Index(
    "idx_image_generations_turns",
    image_generations.c.lane,
    image_generations.c.turn,
    image_generations.c.created_at,
    image_generations.c.id,
    postgresql_where=text(WAITING),
)
Index(
    "idx_image_generations_user_turns",
    image_generations.c.user_id,
    image_generations.c.lane,
    image_generations.c.turn,
    postgresql_where=text(WAITING),
)
Index("idx_image_generations_claims", image_generations.c.claim_token, postgresql_where=text(CLAIMED))
Index(
    "idx_image_generations_deadlines",
    image_generations.c.deadline_at,
    postgresql_where=text("lane IS NOT NULL AND status IN ('pending', 'in_progress')"),
)
# few or none but while the breaker is open and for a moment after
Index("idx_image_generations_paused", image_generations.c.id, postgresql_where=text("stage = 'provider_paused'"))
# replayed and waiting: few, and each sweep asks whether a picture was kept for one
Index(
    "idx_image_generations_replayed",
    image_generations.c.id,
    postgresql_where=text(
        "replay_attempt IS NOT NULL AND claim_token IS NULL AND status IN ('pending', 'in_progress')"
    ),
)
# what one user's images of some days have cost
Index("idx_image_generations_user_created", image_generations.c.user_id, image_generations.c.created_at)
# rows of the old system: nothing that we write has a chapter there
Index(
    "idx_image_generations_old_chapter",
    image_generations.c.metadata["chapter_id"].astext,
    postgresql_where=text("(metadata ->> 'chapter_id') IS NOT NULL"),
)

generation_attempts = Table(
    "generation_attempts",
    metadata,
    # our own id of the call, given to the provider as track_id
    Column("id", Uuid, primary_key=True),
    Column("record_id", Uuid, ForeignKey("image_generations.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    # the retry_count it was made under: one pass of the model chain
    Column("pass", Integer, nullable=False, server_default="0"),
    Column("worker_id", Uuid),
    Column("claim_token", Uuid),
    Column("model_id", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("path", Text, nullable=False),
    # the request body without the key
    Column("payload", JSONB, nullable=False),
    Column("webhook_token", Text),
    Column("breaker_epoch", BigInteger),
    _time("claimed_at"),
    _time("sent_at"),
    Column("provider_request_id", Text),
    Column("webhook_request_id", Text),
    Column("fetch_url", Text),
    Column("eta", Numeric),
    Column("output_urls", JSONB),
    Column("proxy_urls", JSONB),
    _time("generated_at"),
    # success, failed, deferred, handed_over, superseded, not_sent, uncertain, cancelled, late_success, late_failure
    Column("outcome", Text),
    Column("counted", Boolean),
    Column("error_class", Text),
    Column("error_code", Text),
    Column("error_detail", Text),
    # US dollars, from the model's price: what it may have cost
    Column("cost", Numeric),
    Column("image_key", Text),
    Column("image_url", Text),
    # schemas.events.PictureFacts of a picture that is kept for a replay
    Column("picture", JSONB),
    _time("created_at", nullable=False, default=True),
    _time("closed_at"),
    UniqueConstraint("record_id", "attempt", name="generation_attempts_record_attempt"),
)
Index(
    "idx_generation_attempts_open",
    generation_attempts.c.record_id,
    postgresql_where=text("outcome IS NULL OR outcome = 'uncertain'"),
)
# few at any time, and each sweep asks for all of them
Index(
    "idx_generation_attempts_answered",
    generation_attempts.c.record_id,
    postgresql_where=text(
        "(outcome IS NULL OR outcome = 'uncertain')"
        " AND (provider_request_id IS NOT NULL OR webhook_request_id IS NOT NULL OR output_urls IS NOT NULL)"
    ),
)
Index(
    "idx_generation_attempts_webhook",
    generation_attempts.c.webhook_token,
    unique=True,
    postgresql_where=text("webhook_token IS NOT NULL"),
)

# pictures that came after their record's end: a replay completes from them
Index(
    "idx_generation_attempts_kept",
    generation_attempts.c.record_id,
    postgresql_where=text("image_key IS NOT NULL AND outcome = 'late_success'"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("record_id", Uuid, nullable=False),
    _time("created_at", nullable=False, default=True),
)
Index("idx_idempotency_keys_created", idempotency_keys.c.created_at)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # logical: the relay puts the deployment's namespace in front
    Column("topic", Text, nullable=False),
    Column("key", Text),
    Column("headers", JSONB),
    Column("body", LargeBinary, nullable=False),
    _time("created_at", nullable=False, default=True),
    # an event that is sent again has its own key and headers here (storage/originals.py): they go before ours
    Column("original", JSONB),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # null: an event that names no record
    Column("record_id", Uuid),
    Column("user_id", Uuid),
    Column("chapter_id", Uuid),
    Column("attempt", Integer),
    Column("model_id", Text),
    Column("error_class", Text, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("topic", Text, nullable=False),
    Column("origin_topic", Text),
    Column("origin_partition", Integer),
    Column("origin_offset", BigInteger),
    # the event's own bytes, where there was an event and it can be sent again
    Column("body", LargeBinary),
    Column("headers", JSONB),
    _time("first_failed_at"),
    _time("failed_at", nullable=False, default=True),
    _time("replayed_at"),
    # key and headers as the event had them (storage/originals.py); null where none was, or an older version kept it
    Column("original", JSONB),
)
Index("idx_dead_letters_record", dead_letters.c.record_id)
Index("idx_dead_letters_class", dead_letters.c.error_class, dead_letters.c.failed_at)
Index("idx_dead_letters_failed", dead_letters.c.failed_at, dead_letters.c.id)
Index(
    "idx_dead_letters_open",
    dead_letters.c.failed_at,
    dead_letters.c.id,
    postgresql_where=text("replayed_at IS NULL"),
)
Index("idx_dead_letters_user", dead_letters.c.user_id, dead_letters.c.failed_at, dead_letters.c.id)
Index("idx_dead_letters_chapter", dead_letters.c.chapter_id, dead_letters.c.failed_at, dead_letters.c.id)
# a redelivered event makes no second row
Index(
    "idx_dead_letters_origin",
    dead_letters.c.origin_topic,
    dead_letters.c.origin_partition,
    dead_letters.c.origin_offset,
    unique=True,
    postgresql_where=text("origin_topic IS NOT NULL"),
)

provider_slots = Table(
    "provider_slots",
    metadata,
    Column("slot", Integer, primary_key=True, autoincrement=False),
    # the attempt holding it: claimed or sent, without outcome or output URLs
    Column("attempt_id", Uuid, ForeignKey("generation_attempts.id", ondelete="SET NULL"), unique=True),
    # a slot rests after a rate limit
    _time("free_at", nullable=False, default=True),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    _time("started_at", nullable=False, default=True),
    _time("alive_until", nullable=False),
    _time("fenced_at"),
)

lanes = Table(
    "lanes",
    metadata,
    Column("lane", Text, primary_key=True),
    Column("credit", Integer, nullable=False, server_default="0"),
    # of the last dispatched record
    Column("turn", BigInteger, nullable=False, server_default="0"),
)

breakers = Table(
    "breakers",
    metadata,
    # `provider` or `model:<id>`
    Column("scope", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    # what fails in a row: `auth`, `quota`, `outage` (network, timeout, unavailable) or `model_unavailable`
    Column("failing_class", Text),
    _time("failing_since"),
    # of the failures in a row, the first few different records
    Column("records", ARRAY(Uuid), nullable=False, server_default="{}"),
    _time("opened_at"),
    Column("probe_attempt", Uuid),
    _time("probe_until"),
    # in all, without the time since `opened_at`
    Column("open_seconds", Double, nullable=False, server_default="0"),
    _time("updated_at", nullable=False, default=True),
)
