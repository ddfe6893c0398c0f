"""Take over an existing `image_generations`, or make it."""

from alembic import context, op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Raises `adoption.Refused` before anything is changed."""
    context.config.attributes["adoption"].adopt(op.get_bind())
