"""Which CHECKs of an adopted table would refuse what Scenewire writes: asked of Postgres itself.

A CHECK is any SQL, so it is not read but tried, on a temporary table of the same columns and CHECKs that lives within a
savepoint. Foreign keys and triggers are not copied: nothing is looked up and nobody is told.
"""

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Connection, exc

from schemas.words import ASPECT_RATIOS, SCENE_NUMBER_MAX, Stage, Status, Style, Tier
from storage.catalogue import Existing, quoted
from storage.database import sqlstate

_PROBE = "scenewire_probe"
_ID = "018f0000-0000-7000-8000-000000000001"
_CHECK_VIOLATED = "23514"

Row = Mapping[str, str | None]

WORDS: Mapping[str, Sequence[str]] = {
    "status": list(Status),
    "style": list(Style),
    "aspect_ratio": sorted(set(ASPECT_RATIOS.values())),
    "user_tier": list(Tier),
}
"""Columns that hold one of a closed set of words, and the words."""

_ACCEPTED: Row = {
    "id": _ID,
    "user_id": _ID,
    "chapter_id": _ID,
    "script_id": None,
    "scene_number": "1",
    "image_type": "scene",
    "scene_description": "a scene",
    "style": Style.CINEMATIC,
    "aspect_ratio": "16:9",
    "user_tier": Tier.STANDARD,
    "status": Status.PENDING,
    "stage": Stage.QUEUED,
    "progress": "0",
    "version": "1",
    "attempt": "1",
    "retry_count": "0",
    "lane": "standard",
    "metadata": "{}",
    "created_at": "2026-01-01 00:00:00+00",
    "updated_at": "2026-01-01 00:00:01+00",
}
_AT_WORK: Row = {**_ACCEPTED, "status": Status.IN_PROGRESS, "stage": Stage.GENERATING, "claim_token": _ID}
_DONE: Row = {**_ACCEPTED, "stage": Stage.DONE, "completed_at": "2026-01-01 00:00:01+00"}
_COMPLETED: Row = {
    **_DONE,
    "status": Status.COMPLETED,
    "progress": "100",
    "image_url": "https://localhost/images/1/file/2.png",
    "image_key": "1/2.png",
}


def _rows() -> Iterator[tuple[str, Row]]:
    """What Scenewire writes, each with the words that say what is special about it."""
    yield "a request just accepted (status 'pending')", _ACCEPTED
    yield "status 'in_progress'", _AT_WORK
    yield "status 'completed'", _COMPLETED
    yield (
        "status 'failed'",
        {
            **_DONE,
            "status": Status.FAILED,
            "error_class": "exhausted",
            "error_code": "exhausted",
            "error_message": "It could not be made.",
        },
    )
    yield "status 'cancelled'", {**_DONE, "status": Status.CANCELLED}
    for column, values in (
        ("style", WORDS["style"]),
        ("aspect_ratio", WORDS["aspect_ratio"]),
        ("user_tier", WORDS["user_tier"]),
        ("progress", ["0", "100"]),
        ("scene_number", [str(SCENE_NUMBER_MAX)]),
        ("retry_count", ["1", "2", "3"]),
    ):
        for value in values:
            yield f"{column} '{value}'", {**_AT_WORK, column: value}
            yield f"{column} '{value}'", {**_COMPLETED, column: value}
    yield "a scene_description of 4000 characters", {**_ACCEPTED, "scene_description": "x" * 4000}
    yield "a custom_prompt of 2000 characters", {**_ACCEPTED, "custom_prompt": "x" * 2000}
    yield "a request with a script_id", {**_ACCEPTED, "script_id": _ID}


def refused_by_checks(connection: Connection, table: str, existing: Existing) -> dict[str, list[str]]:
    """The names of CHECKs, each with what of ours it refuses. Leaves nothing behind."""
    if not existing.checks:
        return {}
    refused: dict[str, list[str]] = {}
    outer = connection.begin_nested()
    try:
        connection.exec_driver_sql(
            f"CREATE TEMP TABLE {_PROBE} (LIKE {table} INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING GENERATED)"
        )
        # NOT NULL has rules of its own, which know more than one row can show
        nullable = [f"ALTER COLUMN {quoted(c.name)} DROP NOT NULL" for c in existing.columns.values() if c.not_null]
        if nullable:
            connection.exec_driver_sql(f"ALTER TABLE {_PROBE} {', '.join(nullable)}")
        for words, row in _rows():
            for check in _violated(connection, existing, row):
                if words not in (said := refused.setdefault(check, [])):
                    said.append(words)
    finally:
        outer.rollback()
    return refused


def _violated(connection: Connection, existing: Existing, row: Row) -> list[str]:
    columns = [name for name in row if name in existing.columns and not existing.columns[name].generated]
    values = ", ".join("NULL" if row[name] is None else f"'{row[name]}'" for name in columns)
    insert = f"INSERT INTO pg_temp.{_PROBE} ({', '.join(map(quoted, columns))}) VALUES ({values})"
    violated: list[str] = []
    whole = connection.begin_nested()
    try:
        while (name := _first_violated(connection, insert)) is not None and name not in violated:
            violated.append(name)
            # one row may offend several, and Postgres names the first
            connection.exec_driver_sql(f"ALTER TABLE pg_temp.{_PROBE} DROP CONSTRAINT {quoted(name)}")
    finally:
        whole.rollback()
    return violated


def _first_violated(connection: Connection, insert: str) -> str | None:
    once = connection.begin_nested()
    try:
        connection.exec_driver_sql(insert)
    except exc.DBAPIError as error:
        cause = getattr(error.orig, "__cause__", None)
        # any other error is of a value that the type refuses: said by the rule for types
        return getattr(cause, "constraint_name", None) if sqlstate(error) == _CHECK_VIOLATED else None
    finally:
        once.rollback()
    return None
