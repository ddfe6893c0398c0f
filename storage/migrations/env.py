"""Alembic's entry: the connection is opened, limited and locked by `storage.migrate`, which is the way to run this."""

from alembic import context

from storage import migrate

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Run `python -m storage.migrate`: it opens the connection and sets the limits on waiting.")

context.configure(
    connection=connection,
    target_metadata=migrate.METADATA,
    version_table=migrate.VERSION_TABLE,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
