"""One event as it came from Kafka: bytes, not yet decoded by anyone."""

from dataclasses import dataclass
from typing import Any

from messaging.names import logical_topic
from messaging.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class Delivery:
    """`topic` is logical; `value` is empty for a tombstone; of headers with one name the last counts.

    `original_key` and `original_headers` are as they stood in the log, for whoever sends the event again.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: str | None
    value: bytes
    headers: dict[str, bytes]
    original_key: bytes | None
    original_headers: tuple[tuple[str, bytes | None], ...]


def delivery(settings: KafkaSettings, record: Any) -> Delivery:
    """A `Delivery` from aiokafka's `ConsumerRecord`. Never raises, whatever bytes a stranger published."""
    return Delivery(
        topic=logical_topic(settings, record.topic),
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=None if record.key is None else record.key.decode("utf-8", "replace"),
        value=record.value or b"",
        # a header may be null
        headers={name: value or b"" for name, value in record.headers},
        original_key=record.key,
        original_headers=tuple(record.headers),
    )
