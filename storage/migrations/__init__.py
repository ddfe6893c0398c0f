"""The steps from an empty database, or from one with an older system's `image_generations`, to today's tables.

Run by `storage.migrate` alone, which holds the advisory lock and the limits on waiting. Invariants:

* forward only, each step harmless when it is repeated and while the code of the step before still runs;
* each revision is its own transaction; no lock that stops writers outlives a change of the catalogue;
* an index on a table that may be large is built CONCURRENTLY;
* revisions say their SQL themselves: `storage.tables` moves on, what was shipped does not.
"""

VERSION_TABLE = "scenewire_alembic_version"
"""Not Alembic's own name: the older system may keep its own migrations on record in this database."""
