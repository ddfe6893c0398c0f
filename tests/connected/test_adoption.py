"""Older systems' tables: what is adopted keeps every row, what is refused is said at once and mended as proposed."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from schemas.requests import SceneImageRequest
from schemas.statuses import ImageStatus
from schemas.words import Tier
from storage.accepting import Acceptor, NewRequest
from storage.adoption import Refused
from storage.database import Database
from storage.migrate import check, migrate
from storage.reading import Reader
from storage.settings import DatabaseSettings
from storage.tables import WAITING, image_generations

pytestmark = pytest.mark.connected

_USER, _CHAPTER = uuid4(), uuid4()

# nothing but what the older system started with: chapter and scene lie in metadata, times carry no zone
_FIRST = """
CREATE TABLE image_generations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    status varchar(20) NOT NULL DEFAULT 'pending',
    prompt text,
    image_url text,
    error_message text,
    metadata jsonb DEFAULT '{}',
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
)"""

# the same, grown by the older system's own migration
_GROWN = f"""{_FIRST};
ALTER TABLE image_generations ADD COLUMN IF NOT EXISTS chapter_id uuid, ADD COLUMN IF NOT EXISTS script_id uuid,
    ADD COLUMN IF NOT EXISTS scene_number integer, ADD COLUMN IF NOT EXISTS image_type text NOT NULL DEFAULT 'scene',
    ADD COLUMN IF NOT EXISTS retry_count integer NOT NULL DEFAULT 0;
CREATE INDEX idx_image_generations_chapter_id ON image_generations (chapter_id);
CREATE INDEX idx_image_generations_scene_number_meta ON image_generations (((metadata ->> 'scene_number')::int));
CREATE INDEX idx_image_generations_image_type ON image_generations (image_type);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at = now(); RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON image_generations FOR EACH ROW EXECUTE FUNCTION touch()"""

# ids as text, as an object mapper without a uuid type writes them
_TEXT_IDS = """
CREATE TABLE image_generations (
    id text PRIMARY KEY DEFAULT gen_random_uuid()::text,
    user_id varchar(36) NOT NULL,
    chapter_id text,
    scene_number text,
    status text,
    image_url text,
    metadata json,
    created_at timestamptz DEFAULT now()
)"""

# a table that others refer to, full of rules that Scenewire cannot keep
_STRICT = """
CREATE TABLE users (id uuid PRIMARY KEY);
CREATE TABLE chapters (id uuid PRIMARY KEY);
CREATE TYPE image_status AS ENUM ('pending', 'in_progress', 'completed', 'failed');
CREATE TABLE image_generations (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    chapter_id uuid CONSTRAINT of_chapter REFERENCES chapters (id),
    scene_number smallint,
    style text CHECK (style IN ('realistic', 'cinematic')),
    "order" integer NOT NULL,
    status image_status NOT NULL DEFAULT 'pending',
    state text DEFAULT 'x' CHECK (state IS NOT NULL),
    error_message varchar(255) NOT NULL DEFAULT '',
    version integer NOT NULL DEFAULT 1,
    retry_count integer,
    metadata jsonb,
    created_at timestamptz(3) NOT NULL DEFAULT now(),
    updated_at timestamptz,
    CONSTRAINT once UNIQUE (chapter_id, scene_number),
    CHECK (status <> 'completed' OR style <> 'realistic')
);
CREATE UNIQUE INDEX one_at_work ON image_generations (user_id, lower(style)) WHERE status = 'in_progress';
CREATE TABLE workers (id integer)"""

_OLD_ROWS = """
INSERT INTO image_generations (user_id, status, image_url, metadata)
SELECT $1, CASE WHEN n % 2 = 0 THEN 'completed' ELSE 'failed' END, 'https://old.example/' || n || '.png',
    jsonb_build_object('chapter_id', $2::text, 'scene_number', n)
FROM generate_series(1, 20) n"""
_OLD_PENDING = "INSERT INTO image_generations (user_id) SELECT $1 FROM generate_series(1, 100)"


@pytest.fixture
async def old(empty_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the older system's code."""
    opened = await asyncpg.connect(empty_database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    opened = Database(DatabaseSettings(database_url=empty_database_url), application="test")
    yield opened
    await opened.close()


def _request() -> NewRequest:
    body = SceneImageRequest(scene_description="A mad tea party")
    return NewRequest(uuid4(), _USER, _CHAPTER, 3, body, Tier.FREE, "key", "print")


async def _mended(url: str, refused: Refused) -> None:
    connection = await asyncpg.connect(url)
    try:
        for objection in refused.objections:
            for statement in objection.mend:
                await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("made", [_FIRST, _GROWN])
async def test_old_rows_are_kept_shown_and_never_worked_on(
    made: str, empty_database_url: str, old: asyncpg.Connection, database: Database
) -> None:
    await old.execute(made)
    await old.execute(_OLD_ROWS, _USER, str(_CHAPTER))
    await old.execute(_OLD_PENDING, _USER)
    columns = "id, user_id, status, prompt, image_url, error_message, metadata, created_at, updated_at"
    before = await old.fetch(f"SELECT {columns} FROM image_generations ORDER BY id")
    lines: list[str] = []
    await migrate(empty_database_url, tell=lines.append)
    assert await old.fetch(f"SELECT {columns} FROM image_generations ORDER BY id") == before
    assert any("touched" in line for line in lines) == (made is _GROWN)

    untouched = "lane IS NULL AND version = 0 AND attempt = 0 AND claim_token IS NULL AND deadline_at IS NULL"
    assert await old.fetchval(f"SELECT count(*) FROM image_generations WHERE {untouched}") == 120
    assert await old.fetchval(f"SELECT count(*) FROM image_generations WHERE {WAITING}") == 0
    assert await old.fetchval("SELECT count(*) FROM generation_attempts") == 0
    assert await old.fetchval("SELECT count(*) FROM outbox") == 0

    reader = Reader(database)
    shown = await reader.scene(_USER, _CHAPTER, 4)
    assert shown is not None
    assert shown.latest.version == 0
    assert shown.current is not None
    assert shown.current.image_url == "https://old.example/4.png"

    # both systems go on writing: the older one knows none of the new columns
    await old.execute("INSERT INTO image_generations (user_id, status) VALUES ($1, 'pending')", _USER)
    request = _request()
    assert not (await Acceptor(database, deadline=60).accept(request)).replayed
    waiting = await old.fetch(f"SELECT id FROM image_generations WHERE {WAITING}")
    assert [row["id"] for row in waiting] == [request.record_id]
    latest = await reader.scene(_USER, _CHAPTER, 3)
    assert latest is not None
    assert latest.latest.record_id == request.record_id


async def test_an_old_row_without_a_type_is_a_scene(
    empty_database_url: str, old: asyncpg.Connection, database: Database
) -> None:
    await old.execute(f"{_FIRST}; ALTER TABLE image_generations ADD COLUMN image_type text")
    await migrate(empty_database_url)
    # the older code writes on, and fills in no type
    await old.execute(_OLD_ROWS, _USER, str(_CHAPTER).upper())
    await old.execute("UPDATE image_generations SET image_type = NULL")
    await old.execute("UPDATE image_generations SET image_type = 'cover' WHERE metadata ->> 'scene_number' = '2'")
    reader = Reader(database)
    shown = await reader.scene(_USER, _CHAPTER, 4)
    assert shown is not None
    assert shown.current is not None
    status = ImageStatus.model_validate_json(shown.latest.text)
    assert (status.image_type, status.chapter_id, status.scene_number) == ("scene", _CHAPTER, 4)
    assert shown.latest.place == f"{_CHAPTER}/4"
    assert await reader.scene(_USER, _CHAPTER, 2) is None
    scenes = [f"{_CHAPTER}/{n}" for n in range(1, 21) if n != 2]
    assert [image.place for image in await reader.chapter(_USER, _CHAPTER)] == scenes
    assert [image.place for image in await reader.mine(_USER) if image.place is not None] == scenes


async def test_an_adopted_table_has_every_index_and_keeps_the_definition_it_had(
    empty_database_url: str, old: asyncpg.Connection
) -> None:
    await old.execute(_GROWN)
    lines: list[str] = []
    await migrate(empty_database_url, tell=lines.append)
    assert "kept the index idx_image_generations_scene_number_meta" in lines
    built = await old.fetchval("SELECT count(*) FROM pg_indexes WHERE tablename = 'image_generations'")
    assert built == len(image_generations.indexes) + 1
    kept = await old.fetch("SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%lane IS NULL%'")
    # the older system's code may read by them
    assert kept == []
    assert await check(empty_database_url)


async def test_text_ids_are_refused_in_sentences_and_nothing_is_changed(
    empty_database_url: str, old: asyncpg.Connection, database: Database
) -> None:
    await old.execute(_TEXT_IDS)
    await old.execute("INSERT INTO image_generations (user_id, chapter_id, status) VALUES ('nobody', $1, 'done')", "x")
    catalogue = "SELECT oid, relname, relnatts FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY oid"
    before = await old.fetch(catalogue)
    with pytest.raises(Refused) as caught:
        await migrate(empty_database_url)
    assert await old.fetch(catalogue) == before
    said = "\n".join(objection.sentence for objection in caught.value.objections)
    for column in ("id", "user_id", "chapter_id", "scene_number", "metadata"):
        assert f"Column {column} is " in said
    assert "1 of its rows hold no uuid (for example 'nobody')" in said
    assert "'done' (1 rows)" in said
    assert not await _checked(empty_database_url)

    await old.execute("UPDATE image_generations SET user_id = $1, chapter_id = $2", str(_USER), str(_CHAPTER))
    await _mended(empty_database_url, caught.value)
    await migrate(empty_database_url)
    assert isinstance(
        await old.fetchval("INSERT INTO image_generations (user_id) VALUES ($1) RETURNING id", _USER), UUID
    )
    await Acceptor(database, deadline=60).accept(_request())
    assert await old.fetchval("SELECT count(*) FROM image_generations WHERE status = 'completed'") == 1


async def _checked(url: str) -> bool:
    try:
        return await check(url)
    except Refused:
        return False


async def test_every_rule_that_cannot_be_kept_is_said_at_once(
    empty_database_url: str, old: asyncpg.Connection, database: Database
) -> None:
    await old.execute(_STRICT)
    await old.execute("INSERT INTO users VALUES ($1)", _USER)
    await old.execute('INSERT INTO image_generations (id, user_id, "order") VALUES (gen_random_uuid(), $1, 1)', _USER)
    with pytest.raises(Refused) as caught:
        await migrate(empty_database_url)
    sentences = [objection.sentence for objection in caught.value.objections]
    for words in (
        "Something named workers is there already",
        "The foreign key image_generations_user_id_fkey",
        "The foreign key of_chapter",
        "Column scene_number is smallint",
        "The check image_generations_style_check",
        "Column order is NOT NULL without a default",
        "Column status is image_status",
        "Column error_message holds at most 255",
        "Column error_message is NOT NULL",
        "Column version (integer) decides",
        "Column retry_count is null in 1 rows",
        "once allows only one row",
        "one_at_work allows only one row",
        "The check image_generations_check (",
    ):
        assert sum(sentence.startswith(words) for sentence in sentences) == 1, (words, sentences)
    # state's check is met by its default
    assert len(sentences) == 14
    style = next(sentence for sentence in sentences if "style_check" in sentence)
    assert "style 'animated', style 'fantasy'" in style
    assert "style 'cinematic'" not in style
    pictured = next(sentence for sentence in sentences if "image_generations_check (" in sentence)
    assert "style 'realistic'." in pictured


async def test_foreign_keys_may_be_kept_knowingly(
    empty_database_url: str, old: asyncpg.Connection, database: Database
) -> None:
    await old.execute("CREATE TABLE users (id uuid PRIMARY KEY); CREATE TABLE chapters (id uuid PRIMARY KEY)")
    await old.execute(_GROWN)
    await old.execute(
        "ALTER TABLE image_generations ADD CONSTRAINT whose FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE, "
        "ADD CONSTRAINT which FOREIGN KEY (chapter_id) REFERENCES chapters"
    )
    with pytest.raises(Refused) as caught:
        await migrate(empty_database_url)
    assert [objection.mend for objection in caught.value.objections] == [
        ["ALTER TABLE image_generations DROP CONSTRAINT which"],
        ["ALTER TABLE image_generations DROP CONSTRAINT whose"],
    ]
    lines: list[str] = []
    await migrate(empty_database_url, tell=lines.append, keep_foreign_keys=True)
    assert any("kept the foreign key which" in line for line in lines)
    await old.execute("INSERT INTO users VALUES ($1)", _USER)
    await old.execute("INSERT INTO chapters VALUES ($1)", _CHAPTER)
    request = _request()
    await Acceptor(database, deadline=60).accept(request)
    await old.execute("DELETE FROM users")
    assert await old.fetchval("SELECT count(*) FROM image_generations") == 0


async def test_what_is_proposed_leads_to_a_table_that_is_adopted(
    empty_database_url: str, old: asyncpg.Connection, database: Database
) -> None:
    await old.execute(_STRICT)
    with pytest.raises(Refused) as caught:
        await migrate(empty_database_url)
    await _mended(empty_database_url, caught.value)
    await migrate(empty_database_url)
    await Acceptor(database, deadline=60).accept(_request())
    assert await old.fetchval(f"SELECT count(*) FROM image_generations WHERE {WAITING}") == 1
    # a check of words is widened, not lost
    with pytest.raises(asyncpg.CheckViolationError):
        await old.execute("UPDATE image_generations SET style = 'cubist'")


async def test_a_check_is_asked_not_read(empty_database_url: str, old: asyncpg.Connection) -> None:
    await old.execute(_FIRST)
    await old.execute("CREATE FUNCTION fine(text) RETURNS bool LANGUAGE sql AS $$SELECT length($1) < 10$$")
    await old.execute(
        "ALTER TABLE image_generations ADD CONSTRAINT short CHECK (fine(status)), "
        "ADD CONSTRAINT known CHECK (status IN ('pending', 'completed', 'failed', 'in_progress', 'cancelled')), "
        "ADD CONSTRAINT pictured CHECK (status <> 'completed' OR image_url IS NOT NULL)"
    )
    with pytest.raises(Refused) as caught:
        await migrate(empty_database_url)
    assert [objection.sentence.split(" (")[0] for objection in caught.value.objections] == ["The check short"]
    assert "status 'in_progress'" in caught.value.objections[0].sentence
    assert "status 'completed'" not in caught.value.objections[0].sentence
    assert await old.fetchval("SELECT to_regclass('pg_temp.scenewire_probe')") is None


async def test_a_view_a_partitioned_and_a_strangers_table_are_refused(
    empty_database_url: str, old: asyncpg.Connection
) -> None:
    await old.execute("CREATE VIEW image_generations AS SELECT 1 AS id")
    with pytest.raises(Refused):
        await migrate(empty_database_url)
    await old.execute("DROP VIEW image_generations")
    await old.execute("CREATE TABLE image_generations (id uuid, status text) PARTITION BY HASH (id)")
    with pytest.raises(Refused):
        await migrate(empty_database_url)


@pytest.mark.parametrize("rows", [5_000])
async def test_the_older_code_writes_on_while_its_table_is_adopted(
    rows: int, empty_database_url: str, old: asyncpg.Connection
) -> None:
    await old.execute(_GROWN)
    await old.execute(
        "INSERT INTO image_generations (user_id, metadata) "
        "SELECT gen_random_uuid(), jsonb_build_object('scene_number', n) "
        f"FROM generate_series(1, {rows}) n"
    )
    # longer than the machine itself keeps anybody waiting
    lock_timeout = 10.0
    stop, writing = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    slowest, written = 0.0, 0

    async def write() -> None:
        nonlocal slowest, written
        while not stop.is_set():
            began = loop.time()
            async with old.transaction():
                record = await old.fetchval(
                    "INSERT INTO image_generations (user_id, status) VALUES ($1, 'pending') RETURNING id", _USER
                )
                await old.execute("UPDATE image_generations SET status = 'in_progress' WHERE id = $1", record)
            await old.execute("UPDATE image_generations SET status = 'completed' WHERE id = $1", record)
            slowest = max(slowest, loop.time() - began)
            written += 1
            writing.set()

    writer = asyncio.create_task(write())
    await writing.wait()
    before = written
    await migrate(empty_database_url, lock_timeout=lock_timeout)
    during = written - before
    stop.set()
    await writer
    assert during > 10
    assert slowest < lock_timeout
    assert await old.fetchval("SELECT count(*) FROM image_generations") == rows + written
    assert await old.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    assert await check(empty_database_url)
