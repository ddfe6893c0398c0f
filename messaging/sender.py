"""Sends batches: all or an exception, and after an exception a new producer.

Why so strict: with idempotence aiokafka (0.14) never gives a batch up. With Kafka gone `send` and `stop` wait for ever
(aio-libs/aiokafka#1101), and a producer left alone may write its old batches minutes later.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)

from messaging.closing import stop_client
from messaging.names import client_options, real_topic
from messaging.partitions import partition_of
from messaging.settings import KafkaSettings

log = structlog.get_logger()

_LARGEST_MESSAGE_BYTES = 4 * 1024 * 1024
_BATCH_BYTES = 256 * 1024
"""Of one partition: far below a broker's default limit of 1 MiB, which refuses a batch as a whole."""


_CANCELS = 3
_CANCEL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event to send; `topic` is logical. Headers in a sequence are sent as they stand: repeated, null, bytes."""

    topic: str
    key: str | bytes | None
    body: bytes
    headers: Mapping[str, str] | Sequence[tuple[str, bytes | None]] = field(default_factory=dict)

    def key_bytes(self) -> bytes | None:
        return self.key.encode() if isinstance(self.key, str) else self.key

    def header_bytes(self) -> list[tuple[str, bytes | None]]:
        if isinstance(self.headers, Mapping):
            return [(name, value.encode()) for name, value in self.headers.items()]
        return list(self.headers)


class SendFailed(Exception):
    """Kafka did not take the batch, or did not say so in time: any part of it may have been written."""


class MissingTopic(Exception):
    """The topic does not exist; nothing was sent. `python -m messaging.provision` creates it."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"the topic {topic} does not exist: run `python -m messaging.provision`")
        self.topic = topic


class Refused(Exception):
    """Kafka will never take a message of this batch (too large, or an impossible topic); others may be written."""


class Sender:
    """An idempotent producer, made when needed, thrown away after any failure."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._timeout = settings.kafka_send_timeout
        self._producer: AIOKafkaProducer | None = None
        # logical topic -> its real name
        self._known: dict[str, str] = {}

    @property
    def connected(self) -> bool:
        return self._producer is not None

    async def start(self) -> None:
        """Connect; does nothing when connected. Raises `SendFailed`."""
        if self._producer is not None:
            return
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=_BATCH_BYTES,
            max_request_size=_LARGEST_MESSAGE_BYTES,
            # connecting takes up to three requests: cut off in mid-connect, aiokafka leaves the socket open
            request_timeout_ms=round(self._timeout * 1000 / 4),
        )
        self._producer, self._known = producer, {}
        try:
            async with asyncio.timeout(self._timeout):
                await producer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await self.discard()
            raise SendFailed(f"Kafka is not reachable: {type(error).__name__}") from error
        except BaseException:
            await self.discard()
            raise

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """Send all of `batch`, in order per key, and return when Kafka has it on record.

        Raises `MissingTopic` (before anything is sent), `Refused`, `SendFailed`; after the last two, and when
        cancelled, the producer is gone and the next `send` makes a new one.
        """
        await self.start()
        try:
            # one limit for the step: a limit around each send costs two thirds of the throughput (measured)
            async with asyncio.timeout(self._timeout):
                await self._know({row.topic for row in batch})
                await self._send(batch)
        except MissingTopic:
            # nothing was sent: the producer is as good as it was
            raise
        except (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTopicError) as error:
            await self.discard()
            raise Refused(f"Kafka refuses the message: {type(error).__name__}") from error
        except UnknownTopicOrPartitionError as error:
            await self.discard()
            raise SendFailed("a topic has vanished") from error
        except (KafkaError, OSError, TimeoutError) as error:
            await self.discard()
            raise SendFailed(f"Kafka did not take the batch: {type(error).__name__}") from error
        except BaseException:
            await self.discard()
            raise

    async def _know(self, topics: set[str]) -> None:
        """`producer.send` would wait its whole time limit for a topic that is not there: ask first."""
        producer = self._producer
        assert producer is not None
        for topic in sorted(topics - self._known.keys()):
            real = real_topic(self._settings, topic)
            updated = await producer.client.add_topic(real)
            if producer.client.cluster.partitions_for_topic(real) is None:
                # the first answer may belong to a question asked before the topic was added
                updated = await producer.client.force_metadata_update()
            if not updated:
                raise SendFailed("Kafka does not answer")
            if producer.client.cluster.partitions_for_topic(real) is None:
                raise MissingTopic(topic)
            self._known[topic] = real

    async def _send(self, batch: Sequence[Outgoing]) -> None:
        """One batch and one future a partition: one future an event is half of what sending costs (measured)."""
        producer = self._producer
        assert producer is not None
        partitions = {topic: self._partitions(topic) for topic in {row.topic for row in batch}}
        filling: dict[tuple[str, int], Any] = {}
        pending: list[asyncio.Future[object]] = []
        try:
            for row in batch:
                place = row.topic, partition_of(row.key_bytes(), partitions[row.topic])
                builder = filling.get(place)
                if builder is not None and _taken(builder, row):
                    continue
                if builder is not None:
                    pending.append(await producer.send_batch(builder, self._known[row.topic], partition=place[1]))
                builder = filling[place] = producer.create_batch()
                # the first of a batch is taken whatever its size
                _taken(builder, row)
            for (topic, partition), builder in filling.items():
                builder.close()
                pending.append(await producer.send_batch(builder, self._known[topic], partition=partition))
        except BaseException:
            # nobody will ask them any more; an unasked failure would be logged as a bug
            for future in pending:
                future.cancel()
            raise
        results = await asyncio.gather(*pending, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _partitions(self, topic: str) -> list[int]:
        """Asked at each step: a topic may grow, or be gone."""
        assert self._producer is not None
        partitions = self._producer.client.cluster.partitions_for_topic(self._known[topic])
        if not partitions:
            raise UnknownTopicOrPartitionError(topic)
        return sorted(partitions)

    async def discard(self, timeout: float = 2.0) -> None:
        """Throw the producer away within `timeout` s, with Kafka there or gone; what was not acked may be lost."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        # stop() alone waits for Kafka; with its sending task ended and its batches failed it has nothing to wait for
        sending = producer._sender.sender_task
        for _ in range(_CANCELS):
            # the first cancel makes it wait for the request in flight, the next ends that too
            if sending is None or sending.done():
                break
            sending.cancel()
            await asyncio.wait({sending}, timeout=_CANCEL_SECONDS)
        batches = producer._message_accumulator
        # a batch that waits to be sent again has left this set, and its end would be logged as a KeyError
        batches._pending_batches.update(batch for queue in batches._batches.values() for batch in queue)
        batches.fail_all(KafkaError("the producer was thrown away"))
        await stop_client(producer.client, producer.stop(), seconds=timeout, what="producer")


def _taken(builder: Any, row: Outgoing) -> bool:
    """Whether the batch had room for it; if not, it is closed. Raises MessageSizeTooLargeError."""
    if len(row.body) > _LARGEST_MESSAGE_BYTES:
        raise MessageSizeTooLargeError(f"{len(row.body)} bytes")
    room = builder.append(timestamp=None, key=row.key_bytes(), value=row.body, headers=row.header_bytes())
    return room is not None
