"""The relay's side of the outbox: one connection that holds the right to relay, reads, and deletes (PIPELINE R1).

Writers insert rows and `SELECT pg_notify('scenewire_outbox', '')` in their own transactions. Whoever holds the advisory
lock relays; because the lock belongs to the very connection that reads and deletes, a relay that lost it can delete
nothing. There is no cursor: ids are given before commit and become visible out of order, so what is sent next is always
the lowest that is there.

The lock and LISTEN belong to a session: SCENEWIRE_DATABASE_URL must not lead through a pooler in transaction mode.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog
from sqlalchemy.engine import make_url

from schemas.errors import ErrorClass
from storage import originals
from storage.database import Unavailable
from storage.originals import Original
from storage.settings import DatabaseSettings

log = structlog.get_logger()

CHANNEL = "scenewire_outbox"

_LOCK = 0x5CE7E371E0
"""One key for all relays of a database; advisory locks are the database's own."""

_LOWEST = """
    SELECT id, topic, key, headers, body, original, extract(epoch FROM clock_timestamp() - created_at)::float8 AS age
    FROM outbox ORDER BY id LIMIT $1
"""
_BURY = """
    WITH gone AS (DELETE FROM outbox WHERE id = $1 RETURNING *)
    INSERT INTO dead_letters (error_class, error_code, error_message, topic, body, original, headers)
    SELECT $2, $3, $4, topic, body, original,
        coalesce(headers, '{}') || jsonb_strip_nulls(jsonb_build_object('key', key))
    FROM gone
"""
_SESSION = {
    # a relay whose machine vanished must not keep the lock for the two hours TCP would
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    # a deletion that a crash undoes is an event sent twice, which may happen anyway: no wait for the disk between two
    # batches. Whoever inserted the row did wait for it
    "synchronous_commit": "off",
}
# nor may one whose machine stands still: its kernel answers for it. Postgres 13 has no such setting
_MOST_SILENCE = "SELECT set_config(name, $1, false) FROM pg_settings WHERE name = 'idle_session_timeout'"


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event to send; `topic` is logical, `age` seconds since it was inserted.

    `original` is that of an event which is sent again: nothing of ours goes with it.
    """

    id: int
    topic: str
    key: str | None
    headers: dict[str, str]
    body: bytes
    age: float
    original: Original | None = None


class OutboxReader:
    """The dedicated connection. Every method raises `Unavailable` when it is lost or slow; then `close` and `open`.

    Whoever is silent for `silence` seconds loses it, and the lock with it: longer than a working relay ever is.
    """

    def __init__(
        self, settings: DatabaseSettings, *, silence: float = 60.0, application: str = "scenewire-relay"
    ) -> None:
        # libpq's form, whatever driver the URL names
        self._url = make_url(settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._timeout = settings.database_timeout
        self._silence = silence
        self._application = application
        self._connection: Any = None
        self._news = asyncio.Event()

    async def open(self) -> None:
        """Connect. Nothing is locked yet."""
        try:
            async with asyncio.timeout(self._timeout):
                self._connection = await asyncpg.connect(
                    self._url,
                    timeout=self._timeout,
                    command_timeout=self._timeout,
                    server_settings={"application_name": self._application, "TimeZone": "UTC", **_SESSION},
                )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unavailable(f"Postgres: {type(error).__name__}") from error
        await self._ask("execute", _MOST_SILENCE, str(round(self._silence * 1000)))
        self._connection.add_termination_listener(lambda _: self._news.set())

    async def acquire(self) -> bool:
        """Become the one that relays; False while another is."""
        if not await self._ask("fetchval", "SELECT pg_try_advisory_lock($1)", _LOCK):
            return False
        await self._ask("add_listener", CHANNEL, lambda *_: self._news.set())
        return True

    async def lowest(self, limit: int) -> list[OutboxRow]:
        """The lowest rows that are there, whatever was read before. News from here on end the next `wait`."""
        self._news.clear()
        rows = await self._ask("fetch", _LOWEST, limit)
        return [
            OutboxRow(
                row["id"],
                row["topic"],
                row["key"],
                _headers(row["headers"]),
                row["body"],
                max(0.0, row["age"]),
                originals.read(row["original"]),
            )
            for row in rows
        ]

    async def delete(self, ids: Sequence[int]) -> None:
        """Forget rows that Kafka has confirmed."""
        await self._ask("execute", "DELETE FROM outbox WHERE id = ANY($1::bigint[])", ids)

    async def bury(self, row_id: int, code: str, message: str) -> None:
        """Move a row that can never be sent to `dead_letters`, so that it does not hold up those behind it."""
        await self._ask("execute", _BURY, row_id, ErrorClass.UNEXPECTED.value, code, message)

    async def count(self) -> int:
        """How many rows there are."""
        return int(await self._ask("fetchval", "SELECT count(*) FROM outbox"))

    async def wait(self, timeout: float) -> None:
        """Until a writer commits, the connection is lost, or `timeout` seconds have passed."""
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """End the `wait` that is going on."""
        self._news.set()

    async def close(self) -> None:
        """Give the lock and the connection up; bounded, also with Postgres gone."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=1.0)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()

    async def _ask(self, method: str, *args: object) -> Any:
        if self._connection is None:
            raise Unavailable("Postgres: the connection was lost")
        try:
            async with asyncio.timeout(self._timeout):
                return await getattr(self._connection, method)(*args)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # wrong SQL included: whatever it is, this connection's state is no longer known
            raise Unavailable(f"Postgres: {type(error).__name__}") from error


def _headers(column: str | None) -> dict[str, str]:
    if not column:
        return {}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in json.loads(column).items()}
