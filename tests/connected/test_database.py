"""The pool: libpq's URIs, json as text, and what counts as Postgres being away."""

import pytest
from sqlalchemy.exc import DBAPIError

from storage.database import Database, Unavailable
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
    frozen = Database(DatabaseSettings(database_url=database_url, database_timeout=0.5), application="frozen")
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
