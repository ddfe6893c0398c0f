"""Reads a stretch of a topic again, from one offset up to another, while others follow its end.

On a consumer of its own that lives for one reading: aiokafka fetches ahead for as long as a partition is assigned.
"""

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from messaging.closing import stop_client
from messaging.deliveries import Delivery, deliveries
from messaging.names import client_options, real_topic
from messaging.provision import KafkaAway
from messaging.settings import KafkaSettings

_POLL_MS = 200
_MAX_RECORDS = 1000
_CLOSE_SECONDS = 0.5


class Stretches:
    """Of one topic. Several readings may go on at a time."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._real = real_topic(settings, topic)

    async def read(self, wanted: Mapping[int, tuple[int, int]], within: float) -> dict[int, list[Delivery]]:
        """`wanted`: partition -> the first offset and the one after the last. What Kafka has kept of them, in order.

        Takes `within` seconds at most. Raises `KafkaAway`, also when there was more to read than that time allows for.
        """
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            group_id=None,
            enable_auto_commit=False,
            # what retention has removed is not there: whoever asked sees that by the first offset
            auto_offset_reset="earliest",
            request_timeout_ms=max(100, round(within * 1000 / 4)),
        )
        try:
            async with asyncio.timeout(within):
                await consumer.start()
                return await self._read(consumer, wanted)
        except (KafkaError, OSError, TimeoutError) as error:
            raise KafkaAway(f"the log could not be read again in time: {type(error).__name__}") from error
        finally:
            await stop_client(consumer._client, consumer.stop(), seconds=_CLOSE_SECONDS, what="a stretch")

    async def _read(
        self, consumer: AIOKafkaConsumer, wanted: Mapping[int, tuple[int, int]]
    ) -> dict[int, list[Delivery]]:
        left = {TopicPartition(self._real, partition): end for partition, (_, end) in wanted.items()}
        found: dict[int, list[Delivery]] = {partition: [] for partition in wanted}
        consumer.assign(list(left))
        for topic_partition in left:
            consumer.seek(topic_partition, wanted[topic_partition.partition][0])
        while left:
            records = await consumer.getmany(*left, timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
            for topic_partition, some in records.items():
                end = left[topic_partition]
                found[topic_partition.partition] += deliveries(
                    self._settings, (record for record in some if record.offset < end)
                )
            for topic_partition in list(left):
                if await consumer.position(topic_partition) >= left[topic_partition]:
                    del left[topic_partition]
                    consumer.pause(topic_partition)
        return found
