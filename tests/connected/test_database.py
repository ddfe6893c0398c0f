"""The pool: libpq's URIs, json as text, and what counts as Postgres being away."""

import asyncio
import contextlib

import pytest
from sqlalchemy.exc import DBAPIError

from storage.database import Database, Unavailable, reachable
from storage.settings import DatabaseSettings

pytestmark = pytest.mark.connected


async def test_all_of_libpqs_parameters_mean_what_they_mean(database_url: str) -> None:
    settings = DatabaseSettings(database_url=f"{database_url}&sslmode=disable&application_name=mine")
    database = Database(settings, application="ours")
    try:
        (row,) = await database.fetch(
            "SELECT current_setting('application_name') AS name, current_setting('TimeZone') AS zone"
        )
        assert (row.name, row.zone) == ("ours", "UTC")
    finally:
        await database.close()


async def test_json_goes_in_and_comes_out_as_text(database_url: str) -> None:
    database = Database(DatabaseSettings(database_url=database_url), application="test")
    try:
        (row,) = await database.fetch(
            "SELECT $1::jsonb AS b, $2::json AS j, jsonb_typeof($1::jsonb) AS kind", '{"a": 1}', "[1]"
        )
        assert (row.b, row.j, row.kind) == ('{"a": 1}', "[1]", "object")
    finally:
        await database.close()


async def test_a_wrong_statement_is_no_outage_and_shows_no_values(database_url: str) -> None:
    database = Database(DatabaseSettings(database_url=database_url), application="test")
    try:
        with pytest.raises(DBAPIError) as refused:
            await database.fetch("SELECT $1::text, no_such_column", "what somebody wrote")
        assert "what somebody wrote" not in str(refused.value)
    finally:
        await database.close()


async def test_who_stands_still_in_a_transaction_loses_its_locks(database_url: str) -> None:
    frozen = Database(DatabaseSettings(database_url=database_url, database_timeout=2.0), application="frozen")
    other = Database(DatabaseSettings(database_url=database_url, database_timeout=10.0), application="other")
    await other.fetch("CREATE TABLE held AS SELECT 1 AS id")

    async def stand_still() -> None:
        async with frozen.transaction() as transaction:
            await transaction.fetch("SELECT id FROM held FOR UPDATE")
            # waits for the lock, and gets it though nobody gives it back
            await other.fetch("UPDATE held SET id = 2")
            await transaction.fetch("UPDATE held SET id = 3")

    try:
        with pytest.raises(Unavailable):
            await stand_still()
        (row,) = await other.fetch("SELECT id FROM held")
        assert row.id == 2
        await frozen.ping()
    finally:
        await frozen.close()
        await other.close()


async def test_a_connection_that_postgres_has_closed_is_not_given_out(database_url: str) -> None:
    database = Database(DatabaseSettings(database_url=database_url), application="test")
    other = Database(DatabaseSettings(database_url=database_url), application="other")
    try:
        (mine,) = await database.fetch("SELECT pg_backend_pid() AS pid")
        await other.fetch("SELECT pg_terminate_backend($1, 5000)", mine.pid)
        # with a time limit that call returns when the other process is gone
        (now,) = await database.fetch("SELECT pg_backend_pid() AS pid")
        assert now.pid != mine.pid
    finally:
        await database.close()
        await other.close()


async def test_nobody_listening_is_unavailable() -> None:
    settings = DatabaseSettings(database_url="postgresql://nobody@127.0.0.1:9/none", database_timeout=1.0)
    database = Database(settings, application="test")
    try:
        with pytest.raises(Unavailable):
            await database.ping()
        with pytest.raises(Unavailable):
            async with database.transaction() as transaction:
                await transaction.fetch("SELECT 1")
    finally:
        await database.close()


async def test_lines_that_were_lost_while_idle_are_replaced_unseen(database_url: str) -> None:
    """Postgres was restarted: the first statement after it finds it there again."""
    database = Database(DatabaseSettings(database_url=database_url, database_pool_size=3), application="pooled")
    other = Database(DatabaseSettings(database_url=database_url), application="other")
    try:
        await asyncio.gather(*(database.fetch("SELECT pg_sleep(0.05)") for _ in range(3)))
        (ended,) = await other.fetch(
            "SELECT count(pg_terminate_backend(pid)) AS lines FROM pg_stat_activity WHERE application_name = 'pooled'"
        )
        assert ended.lines == 3
        async with asyncio.timeout(10):
            while (await other.fetch("SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'pooled'"))[
                0
            ].n:
                pass
        await asyncio.gather(*(database.fetch("SELECT 1") for _ in range(3)))
        async with database.transaction() as transaction:
            assert await transaction.fetch("SELECT 2 AS two")
    finally:
        await database.close()
        await other.close()


async def test_postgres_is_reachable_though_all_of_our_lines_are_taken(database_url: str) -> None:
    settings = DatabaseSettings(database_url=database_url, database_pool_size=2, database_timeout=2.0)
    database = Database(settings, application="test")
    try:
        async with database.transaction(), database.transaction():
            with pytest.raises(Unavailable):
                await database.ping()
            await reachable(settings)
    finally:
        await database.close()
    nowhere = DatabaseSettings(database_url="postgresql://nobody@127.0.0.1:9/none", database_timeout=0.5)
    with pytest.raises(OSError):
        await reachable(nowhere)


@pytest.mark.parametrize("patience", [60, 0], ids=["", "cut off"])
async def test_nothing_is_left_open_by_who_is_closed(database_url: str, patience: float) -> None:
    """Whoever is still at it when the pool is closed gives its connection back to nobody."""
    leaving = Database(DatabaseSettings(database_url=database_url, database_timeout=30.0), application="leaving")
    other = Database(DatabaseSettings(database_url=database_url), application="other")

    async def connections() -> int:
        (row,) = await other.fetch("SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'leaving'")
        return int(row.n)

    async def until_there_are(count: int) -> None:
        async with asyncio.timeout(20):
            while await connections() != count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    over = asyncio.Event()

    async def still_at_it() -> None:
        async with leaving.transaction() as transaction:
            await transaction.fetch("SELECT 1")
            await over.wait()

    working = asyncio.create_task(still_at_it())
    try:
        await leaving.ping()
        await until_there_are(2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await leaving.close()
        await until_there_are(0)
        over.set()
        with pytest.raises(Unavailable):
            await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await leaving.close()
        await other.close()
