"""What a picture that came after its record's end is completed from, and how the records that can be are found."""

from alembic import context, op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # nullable and without default: what the older code writes stays complete
    op.execute("ALTER TABLE generation_attempts ADD COLUMN IF NOT EXISTS picture jsonb")
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        limit = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
        # the building of an index waits for older transactions as long as they last, and stops nobody meanwhile
        op.execute("SET lock_timeout = 0")
        context.config.attributes["adoption"].build_index(
            connection,
            "idx_image_generations_replayed",
            "(id) WHERE replay_attempt IS NOT NULL AND claim_token IS NULL AND status IN ('pending', 'in_progress')",
        )
        op.execute(f"SET lock_timeout = '{limit}'")
