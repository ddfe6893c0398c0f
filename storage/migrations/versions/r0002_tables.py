"""All tables beside `image_generations`, with the rows that must be there before the first process starts."""

from alembic import context, op

revision = "0002"
down_revision = "0001"

# Queues and counters whose rows change all the time: a vacuum that waits for a fifth of the table to be dead comes too
# late. Only for tables made here; an adopted table keeps what its owner chose.
_QUEUE = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.5"
# Room on each page, so that an update that touches no index stays on it
_COUNTER = "fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500"

_STATEMENTS = (
    """CREATE TABLE idempotency_keys (
        user_id uuid NOT NULL,
        key text NOT NULL,
        fingerprint text NOT NULL,
        record_id uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (user_id, key)
    )""",
    "CREATE INDEX idx_idempotency_keys_created ON idempotency_keys (created_at)",
    f"""CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        topic text NOT NULL,
        key text,
        headers jsonb,
        body bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    ) WITH ({_QUEUE})""",
    """CREATE TABLE dead_letters (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        record_id uuid,
        user_id uuid,
        chapter_id uuid,
        attempt integer,
        model_id text,
        error_class text NOT NULL,
        error_code text,
        error_message text,
        topic text NOT NULL,
        origin_topic text,
        origin_partition integer,
        origin_offset bigint,
        body bytea,
        headers jsonb,
        first_failed_at timestamptz,
        failed_at timestamptz NOT NULL DEFAULT now(),
        replayed_at timestamptz
    )""",
    "CREATE INDEX idx_dead_letters_record ON dead_letters (record_id)",
    "CREATE INDEX idx_dead_letters_class ON dead_letters (error_class, failed_at)",
    """CREATE UNIQUE INDEX idx_dead_letters_origin ON dead_letters (origin_topic, origin_partition, origin_offset)
        WHERE origin_topic IS NOT NULL""",
    f"""CREATE TABLE workers (
        id uuid PRIMARY KEY,
        name text NOT NULL,
        started_at timestamptz NOT NULL DEFAULT now(),
        alive_until timestamptz NOT NULL,
        fenced_at timestamptz
    ) WITH ({_COUNTER})""",
    f"""CREATE TABLE lanes (
        lane text PRIMARY KEY,
        credit integer NOT NULL DEFAULT '0',
        turn bigint NOT NULL DEFAULT '0'
    ) WITH ({_COUNTER})""",
    "INSERT INTO lanes (lane) VALUES ('interactive'), ('standard'), ('bulk')",
    f"""CREATE TABLE breakers (
        scope text PRIMARY KEY,
        epoch bigint NOT NULL DEFAULT '0',
        failures integer NOT NULL DEFAULT '0',
        failing_class text,
        failing_since timestamptz,
        opened_at timestamptz,
        probe_attempt uuid,
        probe_until timestamptz,
        updated_at timestamptz NOT NULL DEFAULT now()
    ) WITH ({_COUNTER})""",
    "INSERT INTO breakers (scope) VALUES ('provider')",
    """CREATE TABLE generation_attempts (
        id uuid PRIMARY KEY,
        record_id uuid NOT NULL,
        attempt integer NOT NULL,
        pass integer NOT NULL DEFAULT '0',
        worker_id uuid,
        claim_token uuid,
        model_id text NOT NULL,
        prompt text NOT NULL,
        path text NOT NULL,
        payload jsonb NOT NULL,
        webhook_token text,
        breaker_epoch bigint,
        claimed_at timestamptz,
        sent_at timestamptz,
        provider_request_id text,
        webhook_request_id text,
        fetch_url text,
        eta numeric,
        output_urls jsonb,
        proxy_urls jsonb,
        generated_at timestamptz,
        outcome text,
        counted boolean,
        error_class text,
        error_code text,
        error_detail text,
        cost numeric,
        image_key text,
        image_url text,
        created_at timestamptz NOT NULL DEFAULT now(),
        closed_at timestamptz,
        CONSTRAINT generation_attempts_record_attempt UNIQUE (record_id, attempt)
    )""",
    """CREATE INDEX idx_generation_attempts_open ON generation_attempts (record_id)
        WHERE outcome IS NULL OR outcome = 'uncertain'""",
    """CREATE INDEX idx_generation_attempts_answered ON generation_attempts (record_id)
        WHERE (outcome IS NULL OR outcome = 'uncertain')
            AND (provider_request_id IS NOT NULL OR webhook_request_id IS NOT NULL OR output_urls IS NOT NULL)""",
    """CREATE UNIQUE INDEX idx_generation_attempts_webhook ON generation_attempts (webhook_token)
        WHERE webhook_token IS NOT NULL""",
    f"""CREATE TABLE provider_slots (
        slot integer PRIMARY KEY,
        attempt_id uuid UNIQUE REFERENCES generation_attempts (id) ON DELETE SET NULL,
        free_at timestamptz NOT NULL DEFAULT now()
    ) WITH ({_COUNTER})""",
    # Last, because it stops writers of image_generations until the commit that follows at once
    """ALTER TABLE generation_attempts ADD FOREIGN KEY (record_id)
        REFERENCES image_generations (id) ON DELETE CASCADE""",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
    context.config.attributes["adoption"].tell("made the tables around it")
