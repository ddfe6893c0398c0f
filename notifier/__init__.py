"""The process that tells people: status events in, WebSocket frames, held polls and plain polls out; and the pictures.

Invariants:

* nobody sees a record that is not theirs: every key of the hub and every read names the owner;
* register first, read the snapshot second, then deliver what is newer;
* one encoded frame per event, shared by all who get it; no per-subscriber JSON;
* a client that does not read delays nobody and loses no state: what waits for it is a dict by record, and when it does
  not drain in time its socket is aborted;
* the hub and the connections know neither ASGI nor uvicorn: they speak to an outlet, whatever writes the bytes below;
* losing Kafka or Postgres closes no socket that is up: what was missed arrives when they are back.
"""
