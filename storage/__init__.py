"""The only room that knows SQL (SQLAlchemy and asyncpg, Alembic).

Postgres is inbox, queue and schedule. Invariants kept here and nowhere else:

* whatever is decided is written in one transaction with the events that tell of it (`outbox`);
* every write by a worker names its `claim_token` (PIPELINE F1); every other state change locks the row and names the
  state it expects;
* statements over many rows lock `ORDER BY id`; `SKIP LOCKED` is dispatch's alone (D4);
* `version` rises by one with every change that is told;
* only the database's clock counts.
"""
