"""Asks Kafka itself how topics stand, on a connection of its own.

Readers and the sender cannot tell whether Kafka is away or they are stuck: aiokafka's clients may go silent while Kafka
answers (aio-libs/aiokafka#1037, #712, #718), and one that reads a topic does not notice that it was made anew. So
whoever judges them asks here.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.offset import OffsetRequest

from messaging import metadata
from messaging.closing import closed_within
from messaging.names import client_options, real_topic
from messaging.provision import KafkaAway
from messaging.settings import KafkaSettings

T = TypeVar("T")

_CLOSE_SECONDS = 0.5
_END = -1


@dataclass(frozen=True, slots=True)
class Log:
    """One topic as Kafka has it now.

    `id` is of this very log: a topic that was made again under its name has another. None where Kafka does not say
    (before 2.8). `leaders`: partition -> node. `whole`: each partition has a leader and all of its replicas.
    """

    id: bytes | None
    leaders: dict[int, int]
    whole: bool


class Lookout:
    """One connection, made when needed and anew after any failure. Several tasks may ask."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._timeout = settings.kafka_send_timeout
        self._client: Any = None
        self._one = asyncio.Lock()
        self._asking: asyncio.Task[Any] | None = None

    async def logs(self, topics: Iterable[str]) -> dict[str, Log]:
        """Those of `topics` (logical names) that exist. Raises `KafkaAway`."""
        return await self._asked(self._logs, list(topics))

    async def ends(self, topics: Iterable[str], *, committed: bool) -> dict[str, dict[int, int]]:
        """Topic -> partition -> offset of the next event, as far as Kafka says; `committed`: what stands behind another
        service's open transaction does not count. Raises `KafkaAway`."""
        return await self._asked(lambda asked: self._ends(asked, int(committed)), list(topics))

    async def close(self) -> None:
        """Bounded, also with Kafka gone."""
        if self._asking is not None and not self._asking.done():
            await asyncio.wait({self._asking}, timeout=_CLOSE_SECONDS)
            self._asking.cancel()
            await asyncio.wait({self._asking}, timeout=_CLOSE_SECONDS)
        await self._leave()

    async def _asked(self, ask: Callable[[list[str]], Awaitable[T]], topics: list[str]) -> T:
        await self._one.acquire()
        # in a task of its own: cut off in mid-connect by an asker who has no more time, aiokafka leaves the socket open
        asking = self._asking = asyncio.create_task(self._answer(ask, topics), name="ask Kafka")
        asking.add_done_callback(self._answered)
        return await asyncio.shield(asking)

    def _answered(self, asking: "asyncio.Task[Any]") -> None:
        self._one.release()
        if not asking.cancelled():
            # its asker may be gone
            asking.exception()

    async def _answer(self, ask: Callable[[list[str]], Awaitable[T]], topics: list[str]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                if self._client is not None:
                    try:
                        return await ask(topics)
                    except (KafkaError, OSError):
                        # its connection was of a Kafka that is gone: perhaps there is another by now
                        await self._leave()
                await self._open()
                return await ask(topics)
        except (KafkaError, OSError, TimeoutError) as error:
            await self._leave()
            raise KafkaAway(f"Kafka does not answer: {type(error).__name__}") from error
        except BaseException:
            await self._leave()
            raise

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await closed_within(_CLOSE_SECONDS, client.close())

    async def _open(self) -> None:
        # connecting takes up to three requests: it is to end by itself
        self._client = AIOKafkaClient(
            **client_options(self._settings), request_timeout_ms=round(self._timeout * 1000 / 4)
        )
        await self._client.bootstrap()

    async def _logs(self, topics: list[str]) -> dict[str, Log]:
        logical = {real_topic(self._settings, topic): topic for topic in topics}
        found: dict[str, Log] = {}
        for topic in await metadata.ask(self._client, list(logical)):
            leaders = {one.number: one.leader for one in topic.partitions}
            whole = all(one.leader >= 0 and one.in_sync == one.replicas for one in topic.partitions)
            found[logical[topic.name]] = Log(topic.id, leaders, whole)
        return found

    async def _ends(self, topics: list[str], isolation: int) -> dict[str, dict[int, int]]:
        asked: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for topic, log in (await self._logs(topics)).items():
            for partition, leader in log.leaders.items():
                if leader >= 0:
                    asked[leader][real_topic(self._settings, topic)].append((partition, _END))
        logical = {real_topic(self._settings, topic): topic for topic in topics}
        ends: dict[str, dict[int, int]] = {}
        for leader, partitions in asked.items():
            answer = await self._client.send(leader, OffsetRequest(-1, isolation, list(partitions.items())))
            for name, told in answer.topics:
                for partition, error, _, offset in told:
                    # a partition that moves to another leader in this moment is asked for the next time
                    if not error:
                        ends.setdefault(logical[name], {})[partition] = offset
        return ends
