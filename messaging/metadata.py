"""Kafka's answer to "which topics are there", with their ids: aiokafka's own requests are too old to ask for those.

An id belongs to one making of a topic (KIP-516). Metadata requests carry it from version 10, Kafka 2.8
(https://kafka.apache.org/protocol#The_Messages_Metadata); aiokafka 0.14 ends at version 5.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

_NO_ID = bytes(16)
_TEXT = CompactString("utf-8")


@dataclass(frozen=True, slots=True)
class Partition:
    """`leader` is a node, -1 for none; of `replicas` so many are `in_sync`."""

    number: int
    leader: int
    replicas: int
    in_sync: int


@dataclass(frozen=True, slots=True)
class Found:
    """A topic that exists, by its real name. `id` is None where Kafka does not say."""

    name: str
    id: bytes | None
    partitions: list[Partition]


async def ask(client: Any, names: list[str]) -> list[Found]:
    """Those of `names` that exist; `client` is a bootstrapped AIOKafkaClient. Raises KafkaError and OSError."""
    node = client.get_random_node()
    try:
        answer = await client.send(node, _Metadata(names))
    except NotImplementedError:
        # an older Kafka, or something that speaks its protocol as it was
        answer = await client.send(node, MetadataRequest(names, allow_auto_topic_creation=False))
        return [
            Found(name, None, [Partition(p, leader, len(all_), len(synced)) for _, p, leader, all_, synced, *_ in rest])
            for error, name, _, rest in answer.topics
            if error == 0
        ]
    return [
        Found(
            name,
            topic_id if topic_id != _NO_ID else None,
            [Partition(p, leader, len(all_), len(synced)) for _, p, leader, _, all_, synced, *_ in partitions],
        )
        for error, name, topic_id, _, partitions, *_ in answer.topics
        if error == 0
    ]


class _Id(AbstractType[bytes]):  # type: ignore[misc]
    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value


class _Response10(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), ("tags", TaggedFields)),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("topic_id", _Id),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _Request10(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Response10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Id), ("name", _TEXT), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _Metadata(Request[_Request10]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[_Request10]) -> _Request10:
        return request_struct_class([(_NO_ID, name, {}) for name in self._names], False, False, False, {})
