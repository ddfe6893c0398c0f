"""Take over the `image_generations` of an older system, or make the table where there is none.

What cannot be met is said before anything is changed, all of it at once (`Refused`); what can is met by adding alone:
columns that are missing, defaults that are missing, indexes. The older code runs on while this happens and after it:
every column added may be null or has a default, so that its INSERTs stay complete. Rows that Scenewire did not accept
keep `lane` null and `version` 0: shown, and never worked on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from storage import catalogue, objections
from storage.catalogue import Existing, quoted
from storage.objections import Objection

TABLE = "image_generations"

COLUMNS: dict[str, tuple[str, str | None]] = {
    # column: SQL type, and the default of those that must never be null
    "id": ("uuid", None),
    "user_id": ("uuid", None),
    "chapter_id": ("uuid", None),
    "script_id": ("uuid", None),
    "scene_number": ("integer", None),
    "image_type": ("text", "'scene'"),
    "scene_description": ("text", None),
    "style": ("text", None),
    "aspect_ratio": ("text", None),
    "custom_prompt": ("text", None),
    "user_tier": ("text", None),
    "status": ("text", None),
    "stage": ("text", None),
    "progress": ("smallint", "'0'"),
    "version": ("bigint", "'0'"),
    "attempt": ("integer", "'0'"),
    "retry_count": ("integer", "'0'"),
    "retry_at": ("timestamptz", None),
    "model_id": ("text", None),
    "provider_request_id": ("text", None),
    "image_url": ("text", None),
    "image_key": ("text", None),
    "error_class": ("text", None),
    "error_code": ("text", None),
    "error_message": ("text", None),
    "lane": ("text", None),
    "turn": ("bigint", None),
    "batch_id": ("uuid", None),
    "admitted_at": ("timestamptz", None),
    "worker_id": ("uuid", None),
    "claim_token": ("uuid", None),
    "takeovers": ("integer", "'0'"),
    "first_dispatched_at": ("timestamptz", None),
    "deadline_at": ("timestamptz", None),
    "paused_seconds": ("double precision", None),
    "replay_attempt": ("integer", None),
    "traceparent": ("text", None),
    "metadata": ("jsonb", None),
    "created_at": ("timestamptz", None),
    "updated_at": ("timestamptz", None),
    "completed_at": ("timestamptz", None),
}
# rows that are there get the moment of the migration, since null would sort before every date
_DATED = ("created_at", "updated_at")
_OTHERS = (
    *("generation_attempts", "idempotency_keys", "outbox", "dead_letters"),
    *("provider_slots", "workers", "lanes", "breakers"),
)
_OLDEST_POSTGRES = 130000
"""gen_random_uuid() is Postgres's own from 13 on."""


class Refused(Exception):
    """The database cannot be adopted as it is; `objections` say why, and what would mend it. Nothing was changed."""

    def __init__(self, refusals: Sequence[Objection]) -> None:
        self.objections = tuple(refusals)
        super().__init__(self.__doc__)


@dataclass(frozen=True, slots=True)
class Adoption:
    """How to adopt. `tell` is given one line per step."""

    tell: Callable[[str], None]
    keep_foreign_keys: bool = False

    def examine(self, connection: Connection) -> Existing | None:
        """The table as it stands, null when there is none. Changes nothing. Raises `Refused`."""
        refusals = list(_database(connection))
        existing = catalogue.read(connection, TABLE)
        if existing is not None:
            refusals += objections.all_of(
                connection, TABLE, existing, COLUMNS, keep_foreign_keys=self.keep_foreign_keys
            )
        if refusals:
            raise Refused(refusals)
        if existing is not None:
            for trigger in existing.triggers:
                self.tell(f"note: a trigger of {TABLE} will run for Scenewire's rows too: {trigger}")
            for key in existing.foreign_keys:
                self.tell(f"note: kept the foreign key {key.name}: {key.definition}")
        return existing

    def adopt(self, connection: Connection) -> None:
        """Make the table, or add to it what it lacks. Raises `Refused`."""
        existing = self.examine(connection)
        if existing is None:
            columns = ", ".join(_definition(name) for name in COLUMNS)
            # room for the updates of a row's life on its own page; an adopted table keeps its owner's choice
            connection.exec_driver_sql(
                f"CREATE TABLE {TABLE} ({columns}, PRIMARY KEY (id)) "
                "WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05)"
            )
            self.tell(f"made the table {TABLE}")
            return
        missing = [name for name in COLUMNS if name not in existing.columns]
        actions = [f"ADD COLUMN IF NOT EXISTS {_definition(name)}" for name in missing]
        actions += [
            f"ALTER COLUMN {name} SET DEFAULT {default}"
            for name, (_, default) in COLUMNS.items()
            if default is not None and name in existing.columns and existing.columns[name].default is None
        ]
        if actions:
            # One statement, so that the lock that stops everybody is taken once, and none of it touches a row: a
            # default that is the same for all rows is kept in the catalogue.
            connection.exec_driver_sql(f"ALTER TABLE {TABLE} {', '.join(actions)}")
        self.tell(f"adopted the table {TABLE}: {len(missing)} columns added, {len(existing.columns)} left as they are")

    def build_index(self, connection: Connection, name: str, definition: str, *, table: str = TABLE) -> None:
        """Build one index of `table` while others write; `connection` must be in autocommit.

        A valid one of that name is kept, whoever made it; an invalid one is the rest of a build that was interrupted.
        Raises `Refused` when the name is taken by something else.
        """
        found = connection.exec_driver_sql(
            "SELECT i.indisvalid AS valid, i.indrelid IS NOT DISTINCT FROM to_regclass($1) AS ours, "
            "c.oid::regclass::text AS written FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid "
            "WHERE c.relname = $2 AND c.relnamespace = "
            "(SELECT t.relnamespace FROM pg_class t WHERE t.oid = to_regclass($1))",
            (table, name),
        ).first()
        if found is not None and not found.ours:
            raise Refused(
                [Objection(f"The name {name} is taken.", [f"ALTER INDEX {found.written} RENAME TO old_{name}"])]
            )
        if found is not None and found.valid:
            self.tell(f"kept the index {name}")
            return
        if found is not None:
            self.tell(f"dropping what an interrupted build left of the index {name}")
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {found.written}")
        connection.exec_driver_sql(f"CREATE INDEX CONCURRENTLY {name} ON {table} {definition}")
        self.tell(f"built the index {name}")


def _definition(name: str) -> str:
    kind, default = COLUMNS[name]
    if default is not None:
        return f"{name} {kind} NOT NULL DEFAULT {default}"
    return f"{name} {kind} DEFAULT now()" if name in _DATED else f"{name} {kind}"


def _database(connection: Connection) -> list[Objection]:
    found: list[Objection] = []
    about = connection.exec_driver_sql(
        "SELECT current_setting('server_version_num')::int AS version, current_setting('server_encoding') AS encoding, "
        "current_schema()::text AS schema, current_user::text AS role, "
        "coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create"
    ).one()
    if about.version < _OLDEST_POSTGRES:
        found.append(Objection("This Postgres is too old: Scenewire needs version 13 or newer."))
    if about.encoding != "UTF8":
        found.append(Objection(f"This database's encoding is {about.encoding}; descriptions of scenes need UTF8."))
    if about.schema is None:
        found.append(Objection("No schema of the search path exists, so that there is no place for tables."))
    elif not about.may_create:
        found.append(
            Objection(
                f"The role {about.role} may not create tables in the schema {about.schema}.",
                [f"GRANT CREATE ON SCHEMA {quoted(about.schema)} TO {quoted(about.role)}"],
            )
        )
    taken = connection.exec_driver_sql(
        "SELECT name FROM unnest($1::text[]) AS name "
        "WHERE to_regclass(quote_ident(current_schema()) || '.' || name) IS NOT NULL",
        (list(_OTHERS),),
    ).scalars()
    found += [
        Objection(
            f"Something named {name} is there already, and no migration of Scenewire's is on record.",
            [f"ALTER TABLE {name} RENAME TO old_{name}"],
        )
        for name in taken
    ]
    return found
