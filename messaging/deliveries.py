"""One event as it came from Kafka: bytes, not yet decoded by anyone."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from messaging.names import logical_topic
from messaging.settings import KafkaSettings


class Delivery(NamedTuple):
    """`topic` is logical; `value` is empty for a tombstone.

    `original_key` and `original_headers` are as they stood in the log, for whoever sends the event again. Nothing is
    decoded before somebody asks: of thousands a second the notifier wants the value alone.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes
    original_key: bytes | None
    original_headers: tuple[tuple[str, bytes | None], ...]

    @property
    def key(self) -> str | None:
        """What is no UTF-8 in it is replaced."""
        return None if self.original_key is None else self.original_key.decode("utf-8", "replace")


def deliveries(settings: KafkaSettings, records: Iterable[Any]) -> list[Delivery]:
    """A `Delivery` for each of aiokafka's `ConsumerRecord`s. Never raises, whatever bytes a stranger published."""
    return [delivery_of(logical_topic(settings, record.topic), record.partition, record) for record in records]


def delivery_of(topic: str, partition: int, record: Any) -> Delivery:
    """The same from one record of the log, of a logical topic's partition."""
    # for thousands at once: by position, which costs a third of what names cost
    return Delivery(
        topic, partition, record.offset, record.timestamp, record.value or b"", record.key, tuple(record.headers)
    )
