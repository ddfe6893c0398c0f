"""Alembic's entry: the connection is opened, limited and locked by `storage.migrate`, which is the way to run this."""

from alembic import context

from storage.migrations import VERSION_TABLE
from storage.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Run `python -m storage.migrate`: it opens the connection and sets the limits on waiting.")

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
