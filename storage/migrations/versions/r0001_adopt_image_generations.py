"""Take over an existing `image_generations`, or make it."""

from alembic import op

from storage import adoption

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Raises `adoption.Refused` before anything is changed."""
    adoption.adopt(op.get_bind())
