"""Take over the `image_generations` of an older system."""

from sqlalchemy import Connection

TABLE = "image_generations"

COLUMNS = {
    "id": "uuid PRIMARY KEY",
    "user_id": "uuid",
    "chapter_id": "uuid",
    "script_id": "uuid",
    "scene_number": "integer",
    "image_type": "text NOT NULL DEFAULT 'scene'",
    "scene_description": "text",
    "style": "text",
    "aspect_ratio": "text",
    "custom_prompt": "text",
    "user_tier": "text",
    "status": "text",
    "stage": "text",
    "progress": "smallint NOT NULL DEFAULT '0'",
    "version": "bigint NOT NULL DEFAULT '0'",
    "attempt": "integer NOT NULL DEFAULT '0'",
    "retry_count": "integer NOT NULL DEFAULT '0'",
    "retry_at": "timestamptz",
    "model_id": "text",
    "provider_request_id": "text",
    "image_url": "text",
    "image_key": "text",
    "error_class": "text",
    "error_code": "text",
    "error_message": "text",
    "lane": "text",
    "turn": "bigint",
    "batch_id": "uuid",
    "admitted_at": "timestamptz",
    "worker_id": "uuid",
    "claim_token": "uuid",
    "takeovers": "integer NOT NULL DEFAULT '0'",
    "first_dispatched_at": "timestamptz",
    "deadline_at": "timestamptz",
    "traceparent": "text",
    "metadata": "jsonb",
    "created_at": "timestamptz DEFAULT now()",
    "updated_at": "timestamptz DEFAULT now()",
    "completed_at": "timestamptz",
}


def adopt(connection: Connection) -> None:
    """Make the table, or add to it what it lacks."""
    columns = ", ".join(f"{name} {definition}" for name, definition in COLUMNS.items())
    connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {TABLE} ({columns})")
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {name} {definition}" for name, definition in COLUMNS.items())
    connection.exec_driver_sql(f"ALTER TABLE {TABLE} {added}")


def build_index(connection: Connection, name: str, definition: str) -> None:
    """Build one index while others write."""
    connection.exec_driver_sql(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {TABLE} {definition}")
