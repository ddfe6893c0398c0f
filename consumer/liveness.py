"""Whether this consumer still gives due records to free slots, as Postgres sees it."""

from uuid import UUID

from storage import stalling
from storage.database import Database


class Undispatched:
    """Asked now and then; what stays first in its lane from one look to the next is not dispatched."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: frozenset[UUID] = frozenset()

    async def stuck(self) -> str | None:
        """Which record waits although a slot is free; None while the line moves. Raises `Unavailable`."""
        first = await stalling.undispatched(self._database)
        still, self._seen = first & self._seen, first
        return f"due and not dispatched though a slot is free: {min(still)}" if still else None
