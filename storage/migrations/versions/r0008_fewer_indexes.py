"""Fewer index entries for each row of ours: an image generation is written some eight times, and none of the times
leaves the indexes alone.

What serves rows of the older system holds those alone, and what no statement looks for is in no index. An adopted
table keeps the older system's own three indexes as they are: its code may read by them.
"""

from alembic import context, op
from sqlalchemy import Connection

revision = "0008"
down_revision = "0007"

_OURS_ALONE = """
SELECT 'fillfactor=85' = ANY (c.reloptions) AND 'autovacuum_vacuum_scale_factor=0.05' = ANY (c.reloptions)
    AND NOT EXISTS (SELECT FROM image_generations WHERE lane IS NULL)
FROM pg_class c WHERE c.oid = to_regclass('image_generations')
"""
"""Made here, as `Adoption.adopt` makes it, and nobody else has written into it."""

# by name: what both systems look up, in Postgres's own words as revision 0003 made it
_ADOPTED = {
    "idx_image_generations_chapter_id": "(chapter_id)",
    "idx_image_generations_scene_number_meta": "(((metadata ->> 'scene_number'::text)))",
    "idx_image_generations_image_type": "(image_type)",
}
# by what it is found by, so that what is not there has no entry
_OLD_CHAPTER = "((metadata ->> 'chapter_id')) WHERE (metadata ->> 'chapter_id') IS NOT NULL"
_META_CHAPTER = "(((metadata ->> 'chapter_id'::text)))"
_FOUND = """
SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid
WHERE indrelid = to_regclass('image_generations') AND c.relname = $1
    AND pg_get_indexdef(indexrelid) LIKE '% USING btree ' || $2
"""


def upgrade() -> None:
    """Waits for older transactions as long as they last, and stops nobody meanwhile."""
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        adoption = context.config.attributes["adoption"]
        limit = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
        op.execute("SET lock_timeout = 0")
        adoption.build_index(connection, "idx_image_generations_old_chapter", _OLD_CHAPTER)
        _drop(connection, "idx_image_generations_meta_chapter", _META_CHAPTER)
        if connection.exec_driver_sql(_OURS_ALONE).scalar_one():
            for name, definition in _ADOPTED.items():
                _drop(connection, name, definition)
                adoption.build_index(connection, name, f"{definition} WHERE lane IS NULL")
        op.execute(f"SET lock_timeout = '{limit}'")


def _drop(connection: Connection, name: str, definition: str) -> None:
    """Unless it is another of that name, or gone since a run that was interrupted."""
    found = connection.exec_driver_sql(_FOUND, (name, definition)).scalar()
    if found is not None:
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {found}")
