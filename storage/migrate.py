"""Bring a database to today's tables: `python -m storage.migrate`.

Safe while an older system or an older Scenewire works in the database, when it is run twice, and when two run at once:
an advisory lock lets one at a time through, and no statement waits longer for a lock than `lock_timeout`, because
everybody who comes after a waiting ALTER TABLE waits behind it. When it passes, all of it is tried again.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from storage.adoption import TABLE, Adoption, Refused
from storage.database import sqlstate
from storage.migrations import VERSION_TABLE
from storage.settings import DatabaseSettings
from telemetry.settings import load

_ADVISORY_KEY = 7_210_301_544_002_173
"""Ours alone among the advisory locks of a database; any number would do."""
_AGAIN = ("55P03", "40P01")
"""SQLSTATEs after which the same is tried again: lock_timeout passed, victim of a deadlock."""
_CONNECT_TIMEOUT = 10.0
_LOOK_EVERY = 0.2


class Unreachable(Exception):
    """Postgres cannot be reached or refuses this role; SCENEWIRE_DATABASE_URL says where it is looked for."""


class Blocked(Exception):
    """A lock was not to be had in all tries: end what holds it, or run this again at a quieter time. What was done
    stays done, and the next run goes on from there."""


class Failed(Exception):
    """The steps before this one stay done, and the next run goes on from there."""


def _silently(_: str) -> None:
    """Tell nobody."""


async def migrate(
    database_url: str,
    *,
    tell: Callable[[str], None] = _silently,
    lock_timeout: float = 4.0,
    tries: int = 10,
    pause: float = 2.0,
    keep_foreign_keys: bool = False,
) -> None:
    """Run what is missing. Times are in seconds; `tell` is given one line per step.

    Raises `Refused`, `Blocked`, `Unreachable`, `Failed`; none of them shows the URL or its password.
    """
    adoption = Adoption(tell, keep_foreign_keys=keep_foreign_keys)
    async with _engine(database_url, lock_timeout) as engine, _connected(engine) as guard:
        # A connection of its own, idle between looks: one that waits for the lock, or that is in a transaction, would
        # itself be waited for by CREATE INDEX CONCURRENTLY.
        await guard.execution_options(isolation_level="AUTOCOMMIT")
        await _alone(guard, tell)
        for left in range(tries - 1, -1, -1):
            try:
                async with _watched(guard, tell, every=max(lock_timeout, 1.0)), _connected(engine) as connection:
                    await connection.run_sync(_upgrade, adoption)
                    return
            except exc.SQLAlchemyError as error:
                first = _first(error)
                if sqlstate(first) not in _AGAIN:
                    raise Failed(f"{_said(first)}. {Failed.__doc__}") from error
                holders = await _holders(guard)
                tell(f"a lock was not to be had within {lock_timeout:g} s{holders}; {left} tries left")
                if left == 0:
                    raise Blocked(f"{Blocked.__doc__}{holders}") from error
                await asyncio.sleep(pause)
            except CommandError as error:
                raise Failed(str(error)) from error


async def check(database_url: str, *, tell: Callable[[str], None] = _silently, keep_foreign_keys: bool = False) -> bool:
    """Whether nothing is missing; tells what is. Changes nothing. Raises as `migrate`."""
    async with _engine(database_url, 4.0) as engine, _connected(engine) as connection:
        return await connection.run_sync(_check, Adoption(tell, keep_foreign_keys=keep_foreign_keys))


def _config() -> Config:
    config = Config()
    folder = Path(__file__).parent / "migrations"
    # a percent sign would be read as the start of a variable
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


def _upgrade(connection: Connection, adoption: Adoption) -> None:
    before = _revision(connection)
    connection.rollback()
    config = _config()
    config.attributes.update(connection=connection, adoption=adoption)
    command.upgrade(config, "head")
    after = _revision(connection)
    adoption.tell(f"the database is at revision {after}" + (", as it was" if after == before else ""))


def _check(connection: Connection, adoption: Adoption) -> bool:
    scripts = ScriptDirectory.from_config(_config())
    revision, head = _revision(connection), scripts.get_current_head()
    if revision is None:
        existing = adoption.examine(connection)
        connection.rollback()
        adoption.tell(f"{TABLE} can be adopted" if existing is not None else f"{TABLE} is not there and will be made")
    adoption.tell(f"the database is at revision {revision or 'none'}, today's is {head}")
    return revision == head


def _revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


@asynccontextmanager
async def _engine(database_url: str, lock_timeout: float) -> AsyncIterator[AsyncEngine]:
    async def connect() -> object:
        # asyncpg reads the URI itself, as libpq would (sslmode, several hosts, passfile)
        return await asyncpg.connect(
            database_url,
            timeout=_CONNECT_TIMEOUT,
            server_settings={
                "application_name": "scenewire-migrate",
                "TimeZone": "UTC",
                "lock_timeout": f"{lock_timeout * 1000:.0f}",
                # a role's own limit would end the building of a large index
                "statement_timeout": "0",
                "idle_in_transaction_session_timeout": "0",
            },
        )

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        connection = await engine.connect()
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, exc.DBAPIError) as error:
        origin = _origin(error)
        if isinstance(origin, asyncpg.PostgresError):
            raise Unreachable(f"{Unreachable.__doc__} It says: {_said(origin)}.") from error
        if isinstance(origin, OSError):
            raise Unreachable(f"{Unreachable.__doc__} ({origin.strerror or type(origin).__name__})") from error
        # such a message may quote a piece of the URL, and a badly written URL has its password anywhere
        raise Unreachable("SCENEWIRE_DATABASE_URL is no URI that Postgres's libraries can read.") from None
    try:
        yield connection
    finally:
        await connection.close()


async def _alone(guard: AsyncConnection, tell: Callable[[str], None]) -> None:
    told = False
    while not (await guard.exec_driver_sql("SELECT pg_try_advisory_lock($1)", (_ADVISORY_KEY,))).scalar_one():
        if not told:
            tell("another migration of this database is running; waiting for its end")
            told = True
        await asyncio.sleep(_LOOK_EVERY)


@asynccontextmanager
async def _watched(guard: AsyncConnection, tell: Callable[[str], None], *, every: float) -> AsyncIterator[None]:
    """Ended by an event, because cancelling a statement would cost the connection, and the lock with it."""
    ended = asyncio.Event()
    watch = asyncio.create_task(_tell_who_is_waited_for(guard, tell, ended, every))
    try:
        yield
    finally:
        ended.set()
        await watch


async def _tell_who_is_waited_for(
    guard: AsyncConnection, tell: Callable[[str], None], ended: asyncio.Event, every: float
) -> None:
    """The building of an index waits for older transactions without a limit: say whose, again and again."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(every):
                await ended.wait()
            return
        with suppress(exc.SQLAlchemyError):
            for row in await guard.exec_driver_sql(
                "SELECT p.current_locker_pid AS pid, a.application_name AS application, a.xact_start "
                "FROM pg_stat_progress_create_index p JOIN pg_stat_activity a ON a.pid = p.current_locker_pid "
                "WHERE p.datname = current_database() "
                f"AND p.relid IN (to_regclass('{TABLE}'), to_regclass('dead_letters'))"
            ):
                tell(
                    f"the index waits for the transaction of process {row.pid} ({row.application or 'no name'}), open "
                    f"since {row.xact_start:%H:%M:%S} UTC; others work on"
                )


async def _holders(guard: AsyncConnection) -> str:
    rows = (
        await guard.exec_driver_sql(
            "SELECT DISTINCT a.pid, a.application_name AS application, a.state FROM pg_locks l "
            "JOIN pg_stat_activity a USING (pid) WHERE l.granted AND l.pid <> pg_backend_pid() "
            f"AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            f"AND l.relation = to_regclass('{TABLE}') ORDER BY a.pid LIMIT 5"
        )
    ).all()
    if not rows:
        return ""
    return f" ({TABLE} is held by " + ", ".join(f"process {r.pid} {r.application}, {r.state}" for r in rows) + ")"


def _first(error: BaseException) -> BaseException:
    """What Postgres said: once a connection is gone, putting it in order raises an error on top of it."""
    found = error
    while not isinstance(found, exc.DBAPIError) and found.__context__ is not None:
        found = found.__context__
    return found if isinstance(found, exc.DBAPIError) else error


def _origin(error: BaseException) -> BaseException:
    return getattr(getattr(error, "orig", None), "__cause__", None) or error


def _said(error: BaseException) -> str:
    return str(_origin(error)).strip().rstrip(".")


def _report(refused: Refused) -> str:
    lines = [f"The database cannot be adopted as it is. Nothing was changed. In the way ({len(refused.objections)}):"]
    for number, objection in enumerate(refused.objections, 1):
        lines += ["", f"{number}. {objection.sentence}", *(f"     {statement};" for statement in objection.mend)]
    lines += ["", "The statements are proposals: read what each says of your own code first, then run this again."]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m storage.migrate",
        description="Bring the database that SCENEWIRE_DATABASE_URL names to today's tables. Safe to repeat, and safe "
        "while others work in the database. An existing image_generations is adopted, or refused with every reason at "
        "once. Connect to Postgres itself, not through a pooler of transactions.",
        epilog="Exit code 0: the database is at today's tables. 1: it is not, and the last lines say why.",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; say whether something is missing")
    parser.add_argument(
        "--keep-foreign-keys",
        action="store_true",
        help="adopt a table with foreign keys on user, chapter or script; requests for unknown ones will then fail",
    )
    parser.add_argument(
        "--lock-timeout",
        type=float,
        default=4.0,
        metavar="SECONDS",
        help="how long to wait for a lock, and so the longest that others may wait behind us (default: %(default)s)",
    )
    parser.add_argument("--tries", type=int, default=10, help="how often to try again after it (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.lock_timeout <= 0 or arguments.tries < 1:
        parser.error("--lock-timeout must be above 0 and --tries at least 1")
    url = load(DatabaseSettings).database_url

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    options = {"tell": tell, "keep_foreign_keys": arguments.keep_foreign_keys}
    try:
        if arguments.check:
            return 0 if asyncio.run(check(url, **options)) else 1
        asyncio.run(migrate(url, lock_timeout=arguments.lock_timeout, tries=arguments.tries, **options))
    except Refused as refused:
        sys.stderr.write(f"{_report(refused)}\n")
        return 1
    except (Blocked, Unreachable, Failed) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. What was done stays done; the next run goes on from there.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
