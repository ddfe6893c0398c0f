"""What breakers and replays need to remember."""

from alembic import context, op

revision = "0004"
down_revision = "0003"

_STATEMENTS = (
    # nullable and without default, so that the older code's rows stay as they are
    """ALTER TABLE image_generations ADD COLUMN IF NOT EXISTS paused_seconds double precision,
        ADD COLUMN IF NOT EXISTS replay_attempt integer""",
    """ALTER TABLE breakers ADD COLUMN records uuid[] NOT NULL DEFAULT '{}',
        ADD COLUMN open_seconds double precision NOT NULL DEFAULT '0'""",
    """CREATE INDEX idx_generation_attempts_kept ON generation_attempts (record_id)
        WHERE image_key IS NOT NULL AND outcome = 'late_success'""",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
    with op.get_context().autocommit_block():
        context.config.attributes["adoption"].build_index(
            op.get_bind(), "idx_image_generations_paused", "(id) WHERE stage = 'provider_paused'"
        )
