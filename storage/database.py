"""A pool of connections to Postgres, its errors sorted into "away" and "wrong"."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from weakref import WeakSet

import asyncpg
import structlog
from sqlalchemy import Row, event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from storage.settings import DatabaseSettings
from telemetry import metrics

log = structlog.get_logger()
T = TypeVar("T")

_AWAY_CLASSES = ("08", "53", "57")
"""SQLSTATE classes: connection, insufficient resources, operator intervention (shutdown, starting up)."""
_DEADLOCK = "40P01"
_DEADLOCK_TRIES = 5


class Unavailable(Exception):
    """Postgres cannot be reached, has no resources or did not answer in time; what was asked may or may not be done."""


class Deadlock(Exception):
    """Postgres ended this transaction to break a deadlock; it may be repeated."""


def sqlstate(error: BaseException) -> str | None:
    """The five-character code of a database error, wherever SQLAlchemy keeps it."""
    origin = getattr(error, "orig", None) or error
    state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    return str(state) if state else None


def sorted_out(error: Exception) -> Exception:
    """`error` itself, or the `Unavailable` or `Deadlock` that it means."""
    state = sqlstate(error)
    if state == _DEADLOCK:
        return Deadlock()
    if state is not None and state.startswith(_AWAY_CLASSES):
        return Unavailable(f"Postgres: {state}")
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return Unavailable("Postgres: the connection was lost")
    if isinstance(error, TimeoutError | OSError | exc.TimeoutError | exc.InterfaceError | asyncpg.InterfaceError):
        return Unavailable(f"Postgres: {type(error).__name__}")
    if isinstance(error, exc.DBAPIError) and isinstance(
        error.orig.__cause__ if error.orig else None, OSError | TimeoutError | asyncpg.InterfaceError
    ):
        return Unavailable("Postgres: the connection was lost")
    return error


@contextmanager
def _timed(kind: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        metrics.observe("database_seconds", time.perf_counter() - began, kind=kind)


def _give_no_closed_one(connection: Any, *_: object) -> None:
    """Of a pool that outlived its Postgres: what is known to be closed is no reason to turn a request away."""
    if connection.driver_connection.is_closed():
        raise exc.DisconnectionError


async def _connect(settings: DatabaseSettings, server_settings: Mapping[str, str]) -> Any:
    # asyncpg reads the URI itself, so that all of libpq's parameters (sslmode, host lists) mean what they mean
    return await asyncpg.connect(
        settings.database_url,
        timeout=settings.database_timeout,
        command_timeout=settings.database_timeout,
        server_settings=dict(server_settings),
    )


async def reachable(settings: DatabaseSettings) -> None:
    """Whether Postgres takes a new connection and answers on it; raises what asyncpg raises when it does not.

    Asked past the pool: one whose connections all hang does not make Postgres look away.
    """
    connection = await _connect(settings, {"application_name": "scenewire-health"})
    try:
        await connection.fetchval("SELECT 1")
        await connection.close(timeout=1.0)
    finally:
        # does nothing to one that is closed
        connection.terminate()


class Transaction:
    """One transaction; `fetch` runs one statement in it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *args: object) -> Sequence[Row[Any]]:
        result = await self._connection.exec_driver_sql(sql, args)
        return result.all() if result.returns_rows else []


class Database:
    """The process's pool. Parameters are asyncpg's `$1`, `$2`; rows give their columns as attributes."""

    def __init__(self, settings: DatabaseSettings, *, application: str) -> None:
        self._timeout = settings.database_timeout

        # all that was ever connected and is not forgotten yet
        self._connected: WeakSet[Any] = WeakSet()

        async def connect() -> Any:
            connection = await _connect(
                settings,
                {
                    "application_name": application,
                    "TimeZone": "UTC",
                    # Planning our long statements costs as much as running them, so each is planned once a connection.
                    # That may be while the tables are small: the plan must then be the one for large tables.
                    "plan_cache_mode": "force_generic_plan",
                    "enable_seqscan": "off",
                    # nor one that sorts what an index of ours holds in order: it would read all that a user ever had
                    "enable_incremental_sort": "off",
                    "jit": "off",
                    # a process that stands still in the middle of a transaction must not keep its locks
                    "idle_in_transaction_session_timeout": f"{settings.database_timeout * 1000:.0f}",
                },
            )
            self._connected.add(connection)
            return connection

        self._engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            pool_size=settings.database_pool_size,
            max_overflow=0,
            pool_timeout=settings.database_timeout,
            pool_use_lifo=True,
            # an error that reaches a log must not carry what people wrote
            hide_parameters=True,
            # json arrives as text: most of it is passed on as it is
            json_deserializer=str,
        )
        event.listen(self._engine.sync_engine, "checkout", _give_no_closed_one)
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    async def open(self) -> None:
        """Nothing is connected before it is needed: a process starts without Postgres and says so in /readyz."""

    async def close(self) -> None:
        """Close the pool and all connections there are; bounded, also when Postgres is gone.

        Who still waits for an answer gets `Unavailable`.
        """
        try:
            async with asyncio.timeout(2):
                await self._engine.dispose()
        except TimeoutError:
            log.warning("database_close_timeout")
        finally:
            # the pool closes what lies in it; what is in use, or on its way back from who was cancelled, would come
            # back to a pool that nobody uses, and stay open until it is found as garbage
            for connection in list(self._connected):
                connection.terminate()

    async def ping(self) -> None:
        """Raise `Unavailable` unless Postgres answers."""
        await self.fetch("SELECT 1")

    async def fetch(self, sql: str, *args: object) -> Sequence[Row[Any]]:
        """Run one statement in its own transaction; repeated when it was a deadlock's victim.

        Raises `Unavailable`, or SQLAlchemy's `DBAPIError` for a statement that is wrong.
        """

        async def once() -> Sequence[Row[Any]]:
            with _timed("statement"):
                async with asyncio.timeout(self._timeout * 2), self._autocommit.connect() as connection:
                    result = await connection.exec_driver_sql(sql, args)
                    return result.all() if result.returns_rows else []

        return await self._repeated(once)

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in one transaction, again from its start when it was a deadlock's victim.

        `work` must do nothing but talk to the transaction: it may run more than once. Raises as `fetch`.
        """

        async def once() -> T:
            async with self.transaction() as transaction:
                return await work(transaction)

        return await self._repeated(once)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One transaction, committed at the end. Raises `Unavailable` and `Deadlock`."""
        try:
            with _timed("transaction"):
                async with asyncio.timeout(self._timeout * 4), self._engine.begin() as connection:
                    yield Transaction(connection)
        except (exc.SQLAlchemyError, OSError, TimeoutError, asyncpg.InterfaceError) as error:
            raise sorted_out(error) from error

    async def _repeated(self, once: Callable[[], Awaitable[T]]) -> T:
        for tries_left in range(_DEADLOCK_TRIES, -1, -1):
            try:
                return await once()
            except (exc.SQLAlchemyError, OSError, TimeoutError, asyncpg.InterfaceError, Deadlock) as error:
                meaning = sorted_out(error)
                if not isinstance(meaning, Deadlock):
                    raise meaning from error
                if tries_left == 0:
                    raise Unavailable("Postgres: deadlocks") from error
                log.info("database_deadlock_repeated")
        raise AssertionError("unreachable")
