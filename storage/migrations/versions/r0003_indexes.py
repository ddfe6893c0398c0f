"""The indexes of `image_generations`, built while others write."""

from alembic import op

from storage import adoption

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
    "idx_image_generations_claims": "(worker_id) WHERE claim_token IS NOT NULL",
    "idx_image_generations_deadlines": "(deadline_at) WHERE lane IS NOT NULL AND status IN ('pending', 'in_progress')",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, definition in INDEXES.items():
            adoption.build_index(op.get_bind(), name, definition)
