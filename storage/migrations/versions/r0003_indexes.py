"""The indexes of `image_generations`, built while others write."""

from alembic import context, op

revision = "0003"
down_revision = "0002"

_WAITING = "lane IS NOT NULL AND claim_token IS NULL AND status IN ('pending', 'in_progress')"

INDEXES = {
    # the older system's own, by its names
    "idx_image_generations_chapter_id": "(chapter_id)",
    "idx_image_generations_scene_number_meta": "((metadata ->> 'scene_number'))",
    "idx_image_generations_image_type": "(image_type)",
    # ours
    "idx_image_generations_meta_chapter": "((metadata ->> 'chapter_id'))",
    "idx_image_generations_scene": "(user_id, chapter_id, scene_number, created_at, id)",
    "idx_image_generations_turns": f"(lane, turn, created_at, id) WHERE {_WAITING}",
    "idx_image_generations_user_turns": f"(user_id, lane, turn) WHERE {_WAITING}",
    "idx_image_generations_claims": "(claim_token) WHERE claim_token IS NOT NULL",
    "idx_image_generations_deadlines": "(deadline_at) WHERE lane IS NOT NULL AND status IN ('pending', 'in_progress')",
}


def upgrade() -> None:
    """Waits for older transactions as long as they last, and stops nobody meanwhile."""
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        limit = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
        op.execute("SET lock_timeout = 0")
        for name, definition in INDEXES.items():
            context.config.attributes["adoption"].build_index(connection, name, definition)
        op.execute(f"SET lock_timeout = '{limit}'")
