"""What Scenewire cannot meet in a table that it is to adopt, each with the SQL that would mend it.

The rule of all rules: adoption only adds. What would change the meaning of a column, drop somebody's constraint or
rewrite rows is said, with the statement, and left to the owner (docs/decisions/0003-adopt-the-existing-table.md).
"""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from schemas.errors import ErrorClass
from schemas.words import Stage, Status
from storage.catalogue import Column, Constraint, Existing, quoted
from storage.probing import WORDS, refused_by_checks


@dataclass(frozen=True, slots=True)
class Objection:
    """One thing in the way: a sentence, and the SQL that would remove it (may be empty)."""

    sentence: str
    mend: Sequence[str] = ()


ALWAYS_WRITTEN = frozenset(
    (
        *("id", "user_id", "chapter_id", "scene_number", "image_type", "scene_description", "style", "aspect_ratio"),
        *("user_tier", "status", "stage", "progress", "version", "attempt", "retry_count", "takeovers", "lane"),
        *("metadata", "created_at", "updated_at", "deadline_at"),
    )
)
"""Columns that no row of Scenewire leaves empty, so that NOT NULL is met. All others must allow null."""

_OURS_ALONE = (
    *("lane", "turn", "admitted_at", "worker_id", "claim_token", "takeovers", "first_dispatched_at", "deadline_at"),
    *("version", "attempt"),
)
"""Columns that decide whether a row is Scenewire's work: in an older row they must be empty (null or 0)."""

_REQUESTED = frozenset(
    (
        *("user_id", "chapter_id", "script_id", "scene_number", "image_type", "scene_description", "style"),
        *("aspect_ratio", "custom_prompt", "user_tier", "status", "stage", "progress", "retry_count", "model_id"),
        *("metadata", "error_class", "error_code", "error_message", "lane"),
    )
)
"""Columns in which two image generations may well be the same."""

_LENGTHS = {"scene_description": 4000, "custom_prompt": 2000, "error_message": 1024, "image_url": 500}
_DEFAULT_LENGTHS = {
    **{"status": 11, "stage": 15, "style": 9, "aspect_ratio": 5, "user_tier": 12, "image_type": 5, "lane": 11},
    **{"error_class": 17, "error_code": 50, "traceparent": 55, "model_id": 100, "provider_request_id": 100},
}
_WIDER = {
    "integer": {"integer", "bigint"},
    "smallint": {"smallint", "integer", "bigint"},
    "bigint": {"bigint"},
    "uuid": {"uuid"},
    "jsonb": {"jsonb"},
    "timestamptz": {"timestamp with time zone"},
}
# read with a cast, since the older system may have kept them without a zone (its clock is taken to be UTC)
_EITHER_TIME = ("created_at", "updated_at", "completed_at")
_INDISPENSABLE = {"id": "uuid PRIMARY KEY DEFAULT gen_random_uuid()", "status": "text NOT NULL DEFAULT 'pending'"}
# words that other systems have for ours; what is not here is taken to have failed
_SAME = {
    **dict.fromkeys(("queued", "new", "created", "waiting"), Status.PENDING),
    **dict.fromkeys(("processing", "running", "generating", "started", "retrying"), Status.IN_PROGRESS),
    **dict.fromkeys(("done", "success", "succeeded", "complete", "finished"), Status.COMPLETED),
    **dict.fromkeys(("canceled", "aborted", "revoked"), Status.CANCELLED),
}
_UUID = "^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$"
# a default that was cast to the old type: 'pending'::image_status, (gen_random_uuid())::text
_CAST = re.compile(r"(::[\w. \"]+(\(\d+\))?)+$")
_VOCABULARIES: Mapping[str, Sequence[str]] = {
    "status": list(Status),
    "stage": list(Stage),
    "error_class": list(ErrorClass),
}


def all_of(
    connection: Connection,
    table: str,
    existing: Existing,
    wanted: Mapping[str, tuple[str, str | None]],
    *,
    keep_foreign_keys: bool,
) -> Iterator[Objection]:
    """Everything in the way, so that it can be mended at once. `wanted` is column -> (SQL type, default or null)."""
    if existing.kind != "r":
        yield Objection(f"{table} is no ordinary table (a view, or partitioned); Scenewire needs one it can index.")
        return
    if not existing.is_owner:
        yield Objection(
            f"{table} belongs to the role {existing.owner}, which alone may alter it: run this with a database URL of "
            f"that role, or let this role act for it.",
            [f"GRANT {quoted(existing.owner)} TO CURRENT_USER"],
        )
    if existing.row_security:
        yield Objection(
            "Row security applies to this role, which would hide rows from Scenewire: it does its own checks of "
            "ownership and must see all. Run it with a role that bypasses row security.",
            ["ALTER ROLE CURRENT_USER BYPASSRLS"],
        )
    for name, definition in _INDISPENSABLE.items():
        if name not in existing.columns:
            yield Objection(
                f"{table} has no column {name}, so that its rows cannot be told apart or shown.",
                [f"ALTER TABLE {table} ADD COLUMN {name} {definition}"],
            )
    # constraints first: what is proposed for them clears the way for what is proposed for columns
    yield from _constraints(table, existing, keep_foreign_keys=keep_foreign_keys)
    for check, words in refused_by_checks(connection, table, existing).items():
        constraint = next(c for c in existing.checks if c.name == check)
        yield Objection(
            f"The check {check} ({constraint.definition}) refuses what Scenewire writes: {_listed(words)}.",
            [_widened(constraint)],
        )
    foreign = {name for name in _OURS_ALONE if name in existing.columns and _used(connection, table, existing, name)}
    for name, column in existing.columns.items():
        if name in foreign:
            yield _rename(
                table, column, "decides in Scenewire whose work a row is, but here it already holds something"
            )
        elif name in wanted:
            yield from _type(connection, table, column, wanted[name][0])
            if name in _VOCABULARIES:
                yield from _vocabulary(connection, table, column)
            if not column.not_null and (default := wanted[name][1]) is not None:
                yield from _nulls(connection, table, name, default)
        if name not in foreign:
            yield from _emptiness(table, column, wanted)


def _widened(check: Constraint) -> str:
    """Where it is about one column whose words are known: what it admits and our words beside it. Else its end."""
    words = WORDS.get(next(iter(check.columns))) if len(check.columns) == 1 else None
    expression = re.fullmatch(r"CHECK \((.*)\)( NO INHERIT)?( NOT VALID)?", check.definition, re.DOTALL)
    if words is None or expression is None:
        return check.drop
    (column,) = check.columns
    ours = ", ".join(f"'{word}'" for word in words)
    # not validated: what it admitted it still admits, so that no row need be read again
    return (
        f"{check.drop}, ADD CONSTRAINT {quoted(check.name)} CHECK ({expression[1]} OR {column} IN ({ours})) NOT VALID"
    )


def _used(connection: Connection, table: str, existing: Existing, name: str) -> bool:
    column = existing.columns[name]
    if column.default is not None and not re.fullmatch(r"\(?'?0'?\)?(::\w+)?|NULL(::[\w ]+)?", column.default):
        return True
    return bool(
        connection.exec_driver_sql(f"SELECT EXISTS (SELECT FROM {table} WHERE {name}::text <> '0')").scalar_one()
    )


def _rename(table: str, column: Column, why: str) -> Objection:
    old = f"old_{column.name}"
    mend = [f"ALTER TABLE {table} RENAME COLUMN {quoted(column.name)} TO {old}"]
    if column.not_null:
        mend.append(f"ALTER TABLE {table} ALTER COLUMN {old} DROP NOT NULL")
    return Objection(f"Column {column.name} ({column.type}) {why}. Rename it, and in the code that uses it.", mend)


def _type(connection: Connection, table: str, column: Column, wanted: str) -> Iterator[Objection]:
    plain = re.sub(r"(?<=timestamp)\(\d\)", "", column.type)
    if column.generated:
        yield Objection(
            f"Column {column.name} is generated; Scenewire must write it itself.",
            [f"ALTER TABLE {table} ALTER COLUMN {column.name} DROP EXPRESSION"],
        )
        return
    if wanted == "text":
        needed = _LENGTHS.get(column.name) or _DEFAULT_LENGTHS.get(column.name, 255)
        limit = re.fullmatch(r"character varying\((\d+)\)", plain)
        if plain in ("text", "character varying") or (limit and int(limit[1]) >= needed):
            return
        if limit:
            yield Objection(
                f"Column {column.name} holds at most {limit[1]} characters; Scenewire writes up to {needed}.",
                [f"ALTER TABLE {table} ALTER COLUMN {column.name} TYPE text"],
            )
            return
    elif plain in _WIDER[wanted] or (column.name in _EITHER_TIME and plain == "timestamp without time zone"):
        return
    if wanted == "uuid" and plain in ("smallint", "integer", "bigint", "numeric"):
        yield _rename(table, column, "is a number, and Scenewire knows ids as uuid alone: no cast leads there")
        return
    steps = [f"ALTER COLUMN {column.name} TYPE {wanted} USING {column.name}::{wanted}"]
    if column.default is not None:
        # a default is not cast along with its column
        value = _CAST.sub("", column.default)
        steps = [f"ALTER COLUMN {column.name} DROP DEFAULT", *steps, f"ALTER COLUMN {column.name} SET DEFAULT {value}"]
    yield Objection(
        f"Column {column.name} is {column.type}; Scenewire needs {wanted}."
        f"{_not_uuid(connection, table, column, wanted)} The change rewrites the table and stops its users meanwhile: "
        "choose a quiet moment, and change the foreign keys that name the column with it.",
        [f"ALTER TABLE {table} {', '.join(steps)}"],
    )


def _not_uuid(connection: Connection, table: str, column: Column, wanted: str) -> str:
    if wanted != "uuid":
        return ""
    bad = connection.exec_driver_sql(
        f"SELECT count(*) AS rows, min({column.name}::text) AS example FROM {table} WHERE {column.name}::text !~ $1",
        (_UUID,),
    ).one()
    if bad.rows == 0:
        return " All of its values can be cast."
    return f" {bad.rows} of its rows hold no uuid (for example {bad.example[:60]!r}): mend or clear those first."


def _vocabulary(connection: Connection, table: str, column: Column) -> Iterator[Objection]:
    words = _VOCABULARIES[column.name]
    # a status is what every page shows, so that one without is a fault too
    null = "OR status IS NULL" if column.name == "status" else ""
    strange = connection.exec_driver_sql(
        f"SELECT {column.name}::text AS word, count(*) AS rows FROM {table} "
        f"WHERE {column.name}::text <> ALL ($1::text[]) {null} GROUP BY 1 ORDER BY 2 DESC LIMIT 20",
        (list(words),),
    ).all()
    if not strange:
        return
    found = _listed([f"{'null' if row.word is None else repr(row.word)} ({row.rows} rows)" for row in strange])
    if column.name != "status":
        yield _rename(table, column, f"holds words of its own: {found}")
        return
    mend = []
    for row in strange:
        if row.word is None:
            mend.append(f"UPDATE {table} SET status = 'failed' WHERE status IS NULL")
        else:
            literal = row.word.replace("'", "''")
            meant = _SAME.get(row.word.lower(), Status.FAILED)
            mend.append(f"UPDATE {table} SET status = '{meant}' WHERE status::text = '{literal}'")
    yield Objection(
        f"Column status holds words that no reader of Scenewire knows: {found}. It knows {', '.join(words)}. Decide "
        "what each means, and change the code that writes it.",
        mend,
    )


def _nulls(connection: Connection, table: str, name: str, default: str) -> Iterator[Objection]:
    rows = connection.exec_driver_sql(f"SELECT count(*) FROM {table} WHERE {name} IS NULL").scalar_one()
    if rows:
        yield Objection(
            f"Column {name} is null in {rows} rows, which readers of Scenewire cannot show.",
            [
                f"UPDATE {table} SET {name} = {default} WHERE {name} IS NULL",
                f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT {default}, ALTER COLUMN {name} SET NOT NULL",
            ],
        )


def _emptiness(table: str, column: Column, wanted: Container[str]) -> Iterator[Objection]:
    if not column.not_null:
        return
    name = quoted(column.name)
    if column.name in wanted:
        if column.name not in ALWAYS_WRITTEN:
            yield Objection(
                f"Column {column.name} is NOT NULL, but Scenewire leaves it empty until (or unless) it is known.",
                [f"ALTER TABLE {table} ALTER COLUMN {name} DROP NOT NULL"],
            )
    elif column.default is None and not column.generated and not column.identity:
        yield Objection(
            f"Column {column.name} is NOT NULL without a default, and Scenewire does not know it. Allow null, or give "
            "it a default.",
            [f"ALTER TABLE {table} ALTER COLUMN {name} DROP NOT NULL"],
        )


def _constraints(table: str, existing: Existing, *, keep_foreign_keys: bool) -> Iterator[Objection]:
    if not any(unique.whole and unique.columns == {"id"} for unique in existing.uniques) and "id" in existing.columns:
        yield Objection(
            "Column id has no primary key or unique index of its own.",
            [f"ALTER TABLE {table} ADD PRIMARY KEY (id)"],
        )
    for unique in existing.uniques:
        if unique.columns <= _REQUESTED:
            yield Objection(
                f"{unique.name} allows only one row for each {' + '.join(sorted(unique.columns))} "
                f"({unique.definition}); Scenewire makes one for every request: a scene can be asked for again.",
                [unique.drop],
            )
    for key in existing.foreign_keys:
        if key.columns & _REQUESTED and not keep_foreign_keys:
            yield Objection(
                f"The foreign key {key.name} ({key.definition}) refuses requests for what its table does not hold; "
                "Scenewire accepts every user, chapter and script that a token or an event names. Drop it, or run "
                "again with --keep-foreign-keys: then such requests fail.",
                [key.drop],
            )


def _listed(words: Sequence[str]) -> str:
    shown = ", ".join(words[:8])
    return shown if len(words) <= 8 else f"{shown} and {len(words) - 8} more"
