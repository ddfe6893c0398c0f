"""What Postgres's own catalogue says of a table that somebody else made. Only reads, and stops nobody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql.base import PGDialect

_PREPARER = PGDialect().identifier_preparer  # type: ignore[no-untyped-call]


def quoted(name: str) -> str:
    """An identifier as it must be written in SQL."""
    return _PREPARER.quote(name)


@dataclass(frozen=True, slots=True)
class Column:
    """`type` as `format_type` writes it; `default` is SQL, or null."""

    name: str
    type: str
    not_null: bool
    default: str | None
    generated: bool
    identity: bool


@dataclass(frozen=True, slots=True)
class Constraint:
    """A foreign key, CHECK or unique index with the columns it reads; `drop` is the SQL that removes it.

    `whole` is false for an index that is partial, invalid or judged only at commit: no base for ON CONFLICT.
    """

    name: str
    columns: frozenset[str]
    definition: str
    drop: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Existing:
    """A table as it stands. `kind` is pg_class.relkind: r is an ordinary table."""

    kind: str
    owner: str
    is_owner: bool
    row_security: bool
    columns: Mapping[str, Column]
    foreign_keys: Sequence[Constraint]
    checks: Sequence[Constraint]
    uniques: Sequence[Constraint]
    triggers: Sequence[str]


_TABLE = """
SELECT c.oid::bigint, c.relkind::text, pg_get_userbyid(c.relowner) AS owner,
    pg_has_role(c.relowner, 'USAGE') AS is_owner, row_security_active(c.oid) AS row_security
FROM pg_class c WHERE c.oid = to_regclass($1)
"""

_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS not_null,
    CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END AS default,
    a.attgenerated <> '' AS generated, a.attidentity <> '' AS identity
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

_CONSTRAINTS = """
SELECT o.conname AS name, o.contype::text AS kind, pg_get_constraintdef(o.oid) AS definition,
    ARRAY(SELECT a.attname::text FROM pg_attribute a
          WHERE a.attrelid = o.conrelid AND a.attnum = ANY (o.conkey)) AS columns
FROM pg_constraint o WHERE o.conrelid = $1::bigint::oid AND o.contype IN ('f', 'c') ORDER BY o.conname
"""

# An expression's columns, and those of a predicate, are known by what the index depends on
_UNIQUES = """
SELECT c.relname AS name, pg_get_indexdef(i.indexrelid) AS definition, o.conname AS constraint_name,
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid AND (
        a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
        OR 0 = ANY (i.indkey::int2[]) AND a.attnum IN (
            SELECT d.refobjsubid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
            AND d.objid = i.indexrelid AND d.refobjid = i.indrelid))) AS columns,
    i.indpred IS NULL AND i.indisvalid AND i.indimmediate AS whole
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint o ON o.conindid = i.indexrelid AND o.conrelid = i.indrelid AND o.contype IN ('p', 'u', 'x')
WHERE i.indrelid = $1::bigint::oid AND (i.indisunique OR i.indisexclusion) ORDER BY c.relname
"""

_TRIGGERS = """
SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t
WHERE t.tgrelid = $1::bigint::oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' ORDER BY t.tgname
"""


def read(connection: Connection, table: str) -> Existing | None:
    """The table that this name means on the connection's search path; null when there is none."""
    found = connection.exec_driver_sql(_TABLE, (table,)).first()
    if found is None:
        return None
    oid = (found.oid,)
    constraints: dict[str, list[Constraint]] = {"f": [], "c": []}
    for row in connection.exec_driver_sql(_CONSTRAINTS, oid):
        drop = f"ALTER TABLE {table} DROP CONSTRAINT {quoted(row.name)}"
        constraints[row.kind].append(Constraint(row.name, frozenset(row.columns), row.definition, drop))
    uniques = []
    for row in connection.exec_driver_sql(_UNIQUES, oid):
        drop = (
            f"DROP INDEX CONCURRENTLY {quoted(row.name)}"
            if row.constraint_name is None
            else f"ALTER TABLE {table} DROP CONSTRAINT {quoted(row.constraint_name)}"
        )
        uniques.append(Constraint(row.name, frozenset(row.columns), row.definition, drop, row.whole))
    return Existing(
        kind=found.relkind,
        owner=found.owner,
        is_owner=found.is_owner,
        row_security=found.row_security,
        columns={row.name: Column(*row) for row in connection.exec_driver_sql(_COLUMNS, oid)},
        foreign_keys=constraints["f"],
        checks=constraints["c"],
        uniques=uniques,
        triggers=[row[0] for row in connection.exec_driver_sql(_TRIGGERS, oid)],
    )
