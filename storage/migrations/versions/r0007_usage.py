"""What it takes to add up what one user's images of some days have cost."""

from alembic import context, op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Waits for older transactions as long as they last, and stops nobody meanwhile."""
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        limit = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
        op.execute("SET lock_timeout = 0")
        context.config.attributes["adoption"].build_index(
            connection, "idx_image_generations_user_created", "(user_id, created_at)"
        )
        op.execute(f"SET lock_timeout = '{limit}'")
