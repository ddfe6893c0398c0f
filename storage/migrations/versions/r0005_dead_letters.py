"""What it takes to send an event again exactly as it was, and to find one dead letter among many."""

from alembic import context, op

revision = "0005"
down_revision = "0004"

INDEXES = {
    "idx_dead_letters_failed": "(failed_at, id)",
    "idx_dead_letters_open": "(failed_at, id) WHERE replayed_at IS NULL",
    "idx_dead_letters_user": "(user_id, failed_at, id)",
    "idx_dead_letters_chapter": "(chapter_id, failed_at, id)",
}


def upgrade() -> None:
    # nullable and without default: what the older code writes stays complete
    op.execute("ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS original jsonb")
    op.execute("ALTER TABLE outbox ADD COLUMN IF NOT EXISTS original jsonb")
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        limit = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
        # the building of an index waits for older transactions as long as they last, and stops nobody meanwhile
        op.execute("SET lock_timeout = 0")
        for name, definition in INDEXES.items():
            context.config.attributes["adoption"].build_index(connection, name, definition, table="dead_letters")
        op.execute(f"SET lock_timeout = '{limit}'")
