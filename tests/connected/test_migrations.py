"""The migrations themselves: the tables they make, repeated, at once, interrupted, blocked."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from local.postgres import Postgres
from storage.adoption import COLUMNS
from storage.migrate import Blocked, Failed, check, migrate
from storage.migrations import VERSION_TABLE, versions
from storage.tables import image_generations, metadata

pytestmark = pytest.mark.connected

_SHAPE = """
SELECT 'column', c.relname::text, format('%s %s %s %s %s', a.attname, format_type(a.atttypid, a.atttypmod),
    a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index', tablename::text, indexdef FROM pg_indexes WHERE schemaname = 'public'
"""
# revisions are files named by their numbers: r0001_...
NEWEST = max(path.name[1:5] for path in Path(versions.__path__[0]).glob("r*.py"))
_INVALID = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"


@pytest.fixture
async def connection(empty_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(empty_database_url, server_settings={"application_name": "elder"})
    yield opened
    await opened.close()


@pytest.fixture
def second_url(postgres: Postgres, empty_database_url: str) -> Iterator[str]:
    name = "beside_" + empty_database_url.split("/")[3].split("?")[0]
    postgres.sql(f"CREATE DATABASE {name}")
    yield postgres.url(name)
    postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")


async def _shape(url: str) -> set[tuple[str, ...]]:
    opened = await asyncpg.connect(url)
    try:
        return {tuple(row) for row in await opened.fetch(_SHAPE) if row[1] != VERSION_TABLE}
    finally:
        await opened.close()


async def test_an_empty_database_comes_to_hold_exactly_the_declared_tables(
    empty_database_url: str, second_url: str
) -> None:
    await migrate(empty_database_url)

    def engine(url: str):
        return create_async_engine(
            "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool
        )

    declared = engine(second_url)
    async with declared.begin() as opened:
        await opened.run_sync(metadata.create_all)
    await declared.dispose()
    assert await _shape(empty_database_url) == await _shape(second_url)

    def differences(opened: Connection) -> list[object]:
        options = {"include_name": lambda name, kind, _: kind != "table" or name != VERSION_TABLE}
        return compare_metadata(MigrationContext.configure(opened, opts=options), metadata)

    migrated = engine(empty_database_url)
    async with migrated.connect() as opened:
        assert await opened.run_sync(differences) == []
    await migrated.dispose()


def test_adoption_names_the_columns_that_are_declared() -> None:
    assert list(COLUMNS) == [column.name for column in image_generations.columns]


async def test_the_rows_that_processes_count_on_are_there(
    empty_database_url: str, connection: asyncpg.Connection
) -> None:
    await migrate(empty_database_url)
    lanes = await connection.fetch("SELECT lane, credit, turn FROM lanes ORDER BY lane")
    assert [tuple(row) for row in lanes] == [("bulk", 0, 0), ("interactive", 0, 0), ("standard", 0, 0)]
    assert await connection.fetchval("SELECT array_agg(scope) FROM breakers WHERE opened_at IS NULL") == ["provider"]
    assert await connection.fetchval("SELECT count(*) FROM provider_slots") == 0


async def test_a_second_run_changes_nothing(empty_database_url: str) -> None:
    first: list[str] = []
    assert not await check(empty_database_url)
    await migrate(empty_database_url, tell=first.append)
    shape = await _shape(empty_database_url)
    second: list[str] = []
    await migrate(empty_database_url, tell=second.append)
    assert await _shape(empty_database_url) == shape
    assert len(first) > 10
    assert second == [f"the database is at revision {NEWEST}, as it was"]
    assert await check(empty_database_url)


async def test_two_at_once_do_the_work_once(empty_database_url: str) -> None:
    lines: list[str] = []
    await asyncio.gather(*(migrate(empty_database_url, tell=lines.append) for _ in range(3)))
    assert lines.count("made the table image_generations") == 1
    assert lines.count(f"the database is at revision {NEWEST}, as it was") == 2


async def test_the_older_system_may_keep_its_own_alembic(
    empty_database_url: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    await connection.execute("INSERT INTO alembic_version VALUES ('theirs')")
    await migrate(empty_database_url)
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "theirs"


async def test_an_interrupted_build_of_an_index_is_done_again(
    empty_database_url: str, connection: asyncpg.Connection, postgres: Postgres
) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        # others' transactions may be waited for as well, such as those of the server itself
        if line.startswith("the index waits") and "elder" in line:
            loop.call_soon(told.set)

    # a snapshot without a lock: a concurrent build waits for its end, nothing before does
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.fetchval("SELECT count(*) FROM pg_class")
    running = asyncio.create_task(migrate(empty_database_url, tell=tell, lock_timeout=1))
    async with asyncio.timeout(30):
        await told.wait()
    killer = await asyncpg.connect(empty_database_url)
    await killer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND state = 'active' AND query LIKE 'CREATE INDEX CONCURRENTLY%'"
    )
    with pytest.raises(Failed):
        await running
    await connection.execute("ROLLBACK")
    assert await killer.fetchval(_INVALID) == 1
    lines.clear()
    await migrate(empty_database_url, tell=lines.append)
    assert any(line.startswith("dropping what an interrupted build left") for line in lines)
    assert await killer.fetchval(_INVALID) == 0
    await killer.close()
    assert await check(empty_database_url)


# the indexes as they were before revision 0008
_INDEXES_OF_0007 = """
DROP INDEX idx_image_generations_old_chapter, idx_image_generations_chapter_id,
    idx_image_generations_scene_number_meta, idx_image_generations_image_type;
CREATE INDEX idx_image_generations_chapter_id ON image_generations (chapter_id);
CREATE INDEX idx_image_generations_scene_number_meta ON image_generations ((metadata ->> 'scene_number'));
CREATE INDEX idx_image_generations_image_type ON image_generations (image_type);
CREATE INDEX idx_image_generations_meta_chapter ON image_generations ((metadata ->> 'chapter_id'))
"""
_DEFINITION = "SELECT indexdef FROM pg_indexes WHERE indexname = $1"


@pytest.mark.parametrize(
    "stopped_after",
    ["SELECT", "DROP INDEX idx_image_generations_meta_chapter", "DROP INDEX idx_image_generations_image_type"],
)
async def test_indexes_of_an_older_scenewire_give_way_to_todays(
    empty_database_url: str, second_url: str, connection: asyncpg.Connection, stopped_after: str
) -> None:
    await migrate(second_url)
    await migrate(empty_database_url)
    await connection.execute(_INDEXES_OF_0007)
    await connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0007'")
    await connection.execute(stopped_after)
    assert not await check(empty_database_url)
    await migrate(empty_database_url)
    assert await _shape(empty_database_url) == await _shape(second_url)


async def test_indexes_that_others_may_read_by_are_left(
    empty_database_url: str, connection: asyncpg.Connection
) -> None:
    await migrate(empty_database_url)
    await connection.execute(_INDEXES_OF_0007)
    # one of the same name that is not ours, and a row that somebody else wrote
    await connection.execute("DROP INDEX idx_image_generations_meta_chapter")
    await connection.execute("CREATE INDEX idx_image_generations_meta_chapter ON image_generations (scene_number)")
    await connection.execute("INSERT INTO image_generations (id, status) VALUES (gen_random_uuid(), 'completed')")
    await connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0007'")
    await migrate(empty_database_url)
    for name, definition in (
        ("idx_image_generations_meta_chapter", "(scene_number)"),
        ("idx_image_generations_chapter_id", "(chapter_id)"),
        ("idx_image_generations_image_type", "(image_type)"),
    ):
        assert (await connection.fetchval(_DEFINITION, name)).endswith(definition)


async def test_a_lock_that_is_not_to_be_had_is_named_and_waited_for_shortly(
    empty_database_url: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE image_generations (id uuid PRIMARY KEY, status text)")
    await connection.execute("BEGIN")
    await connection.execute("LOCK TABLE image_generations IN ACCESS SHARE MODE")
    lines: list[str] = []
    with pytest.raises(Blocked, match=r"image_generations is held by process \d+ elder, idle in transaction"):
        await migrate(empty_database_url, tell=lines.append, lock_timeout=0.1, tries=2, pause=0)
    assert [line[-12:] for line in lines] == ["1 tries left", "0 tries left"]

    held = [connection.execute("ROLLBACK")]

    async def release() -> None:
        await held.pop()

    releases: list[asyncio.Task[None]] = []

    def tell(line: str) -> None:
        if line.endswith("tries left") and held:
            releases.append(asyncio.create_task(release()))

    await migrate(empty_database_url, tell=tell, lock_timeout=0.1, tries=50, pause=0.05)
    assert releases
    assert await check(empty_database_url)


def _run(*arguments: str, url: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCENEWIRE_")}
    if url is not None:
        environment["SCENEWIRE_DATABASE_URL"] = url
    return subprocess.run(
        [sys.executable, "-m", "storage.migrate", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_line_says_what_it_does(empty_database_url: str) -> None:
    assert _run("--check", url=empty_database_url).returncode == 1
    done = _run(url=empty_database_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "made the table image_generations"
    assert done.stdout.splitlines()[-1] == f"the database is at revision {NEWEST}"
    assert _run("--check", url=empty_database_url).returncode == 0


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://user:s3cret@127.0.0.1:1/none", "cannot be reached"),
        ("postgresql://user:s3cret@host:p/ort@h:1:2/none", "is no URI"),
        ("mysql://user:s3cret@127.0.0.1/none", "SCENEWIRE_DATABASE_URL: must be a libpq URI"),
        (None, "SCENEWIRE_DATABASE_URL is required: set it in the environment"),
    ],
)
def test_what_cannot_be_reached_is_one_sentence_without_a_password(url: str | None, says: str) -> None:
    done = _run(url=url)
    assert done.returncode != 0
    assert says in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
