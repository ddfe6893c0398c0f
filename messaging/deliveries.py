"""One event as it came from Kafka: bytes, not yet decoded by anyone."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from messaging.names import logical_topic
from messaging.settings import KafkaSettings


class Delivery(NamedTuple):
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


def deliveries(settings: KafkaSettings, records: Iterable[Any]) -> list[Delivery]:
    """A `Delivery` for each of aiokafka's `ConsumerRecord`s. Never raises, whatever bytes a stranger published."""
    return [delivery_of(logical_topic(settings, record.topic), record.partition, record) for record in records]


def delivery_of(topic: str, partition: int, record: Any) -> Delivery:
    """The same from one record of the log, of a logical topic's partition."""
    key, headers = record.key, record.headers
    # for thousands at once: by position, which costs a third of what names cost
    return Delivery(
        topic,
        partition,
        record.offset,
        record.timestamp,
        None if key is None else key.decode("utf-8", "replace"),
        record.value or b"",
        # a header may be null
        {name: value or b"" for name, value in headers},
        key,
        tuple(headers),
    )
