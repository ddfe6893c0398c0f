"""Works: requests and retries in, ModelsLab called, pictures stored; what it decides goes into the outbox.

Invariants: an offset is acknowledged only when Postgres remembers its request; nothing is sent without a sending mark;
once the provider gave an id or a picture the record is only ever resumed; no network call inside a transaction.
"""
