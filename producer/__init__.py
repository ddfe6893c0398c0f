"""Writes: HTTP in, one transaction out (record, idempotency key, outbox); and the relay, from the outbox to Kafka.

Invariants: 202 is sent after the commit and never before; no request waits on Kafka; whatever Postgres does, a caller
has an answer within `SCENEWIRE_ACCEPT_TIMEOUT`. Layers: `__main__` > `app` > `routes` > `requests` > `settings`.
"""
