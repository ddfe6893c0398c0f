"""The only room that knows Kafka: FastStream on aiokafka, and aiokafka alone where FastStream has no word for it.

Invariants:
- One way to subscribe (`subscribe.Subscriptions`): an offset is committed only after the handler returned.
- One way to send (`sender.Sender`): idempotent, acks=all, one time limit per step, thrown away after any failure.
- One way to watch a whole topic (`tail.Tail`): every partition, no group, nothing lost or doubled by an outage.
- Topic names are logical everywhere else; the deployment's namespace is put in front of them here (`names`).
- Nothing here waits without a limit while stopping: aiokafka's own `stop` may never return when Kafka is gone.
"""
