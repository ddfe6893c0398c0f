"""Reads one topic as a whole: every partition, without a group, each event once, in the order of its partition.

Not FastStream's subscriber without a group: when a partition is added that one starts all partitions anew at the end,
and events are lost (measured). Here a new partition is read from its first event, and the others go on where they were.
Fetching is our own as well (`messaging.sessions`). Positions are kept here too, so that a reader that went silent can
be replaced.

Beside it Kafka itself is asked each `kafka_watch` seconds how the topic stands: a missing one is made, new partitions
are taken in, a consumer that is silent although there is more is made anew (aio-libs/aiokafka#1037, #712), and a log
that is another one than it was (Kafka lost its data, the topic was made anew) is told to whoever reads.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from messaging.closing import stop_client
from messaging.deliveries import Delivery
from messaging.lookout import Log, Lookout
from messaging.names import client_options, real_topic
from messaging.pace import Pace
from messaging.provision import KafkaAway, provide
from messaging.sessions import EndLost, Sessions
from messaging.settings import KafkaSettings
from messaging.stillness import Standing, Stillness
from telemetry import metrics

log = structlog.get_logger()

Start = Literal["end"] | datetime | timedelta | Mapping[int, int]

_MAX_RECORDS = 1000
_FETCH_WAIT = 0.5
"""Seconds that a broker may wait for the next event before it answers that there is none."""
_FETCH_RETRY = 0.1
_CLOSE_SECONDS = 2.0
_NOT_FOUND = "the topic has not been found yet"


class OtherLog(Exception):
    """The log is not the one that was read before: what that one held beyond our positions is gone with it."""


class Tail:
    """One reader. `start`, then read `batches` in one task; the rest may be called from others."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._real = real_topic(settings, topic)
        # aiokafka's, for its connections and for questions about offsets: fetching is done by the sessions
        self._consumer: AIOKafkaConsumer | None = None
        self._sessions: Sessions | None = None
        self._positions: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._stopping = asyncio.Event()
        # a consumer that is closed while it starts goes on to open connections that nobody closes
        self._opening = asyncio.Lock()
        self._lookout = Lookout(settings)
        self._watching: asyncio.Task[None] | None = None
        self._stillness = Stillness()
        self._log: bytes | None = None
        self._batches = 0
        self._other_log = self._silent = False
        self._away: str | None = _NOT_FOUND
        self._trouble: str | None = None
        self._waiting: tuple[int, int] | None = None

    @property
    def positions(self) -> dict[int, int]:
        """Partition -> offset of the next event that `batches` will give."""
        return dict(self._positions)

    @property
    def ends(self) -> dict[int, int]:
        """Partition -> where it ended when `start` found it: what stands before was there already."""
        return dict(self._ends)

    @property
    def log(self) -> bytes | None:
        """The id of the log that the positions belong to; None where Kafka does not say (before 2.8)."""
        return self._log

    @property
    def away(self) -> str | None:
        """Why Kafka, or the topic, cannot be read now; None when they answered the last look."""
        return self._away

    @property
    def stuck(self) -> str | None:
        """Why this reader does not read although Kafka answers; None while it does, or nobody can."""
        if self._away is not None:
            return None
        if self._trouble is not None:
            return f"the log cannot be read: {self._trouble}"
        if self._waiting is not None and self._waiting[1] == self._batches:
            return f"{self._waiting[0]} events wait and none comes"
        return None

    async def start(self, at: Start = "end", *, most: int = 0) -> None:
        """Find where to read from: the end, the first event not before a time, or stated offsets.

        A timedelta goes so far back from the end, by `most` events of a partition at most, and one event further, so
        that what stands before that time is known by its last event.

        Offsets that Kafka no longer or not yet has are moved to the nearest it has; a partition that is not stated is
        read from its first event. Tries until Kafka and the topic are there: put a limit around it, or `stop`.
        """
        while not self._stopping.is_set():
            try:
                async with self._opening:
                    found = await self._found()
                    await self._close()
                    await self._open()
                    self._positions = await self._resolve(at, found, most)
                    self._log, self._other_log, self._trouble = found.id, False, None
                    self._follow()
                    if self._watching is None:
                        self._watching = asyncio.create_task(self._watch(), name=f"watch {self._topic}")
                    return
            except KafkaAway as error:
                self._away = str(error)
                log.warning("kafka_tail_not_started", topic=self._topic, error=self._away)
                await self._pause(min(0.5, self._settings.kafka_backoff))
            except (KafkaError, OSError, TimeoutError) as error:
                self._trouble = type(error).__name__
                log.warning("kafka_tail_not_started", topic=self._topic, error=self._trouble)
                await self._close()
                await self._pause(min(0.5, self._settings.kafka_backoff))

    async def batches(self) -> AsyncIterator[list[Delivery]]:
        """Events as they come, until `stop`. Outages of Kafka are waited for in here.

        Raises `OtherLog` when the log is another one: `start` anew, with `{}` from its first event on.
        """
        pace = Pace(time.monotonic())
        while not self._stopping.is_set():
            if self._other_log:
                await self._close()
                raise OtherLog
            if self._silent:
                self._silent = False
                await self._close()
                # it may be over by now
                continue
            try:
                if self._consumer is None:
                    async with self._opening:
                        await self._open()
                        self._follow()
                sessions = self._sessions
                assert sessions is not None
                # of its own accord it returns in time, unless it hangs
                async with asyncio.timeout(self._settings.kafka_watch + self._settings.kafka_stall):
                    batch = await sessions.read(self._settings.kafka_watch, _MAX_RECORDS)
            except EndLost as error:
                self._replaced(str(error))
                continue
            except (KafkaError, OSError, TimeoutError) as error:
                if self._stopping.is_set():
                    return
                self._trouble = type(error).__name__
                log.warning("kafka_tail_interrupted", topic=self._topic, error=self._trouble)
                await self._close()
                await self._pause(min(0.5, self._settings.kafka_backoff))
                continue
            self._trouble = None
            # before the yield: whoever asks for positions while handling this batch is past it. Without a batch too:
            # what ends a transaction is no event, and would seem to wait for ever
            self._positions.update(sessions.offsets)
            if batch:
                self._batches += 1
                came_at = time.monotonic()
                yield batch
                now = time.monotonic()
                # more has come meanwhile, so that the time it took counts as a pause
                if (pause := pace.pause(len(batch), now) - (now - came_at)) > 0:
                    await asyncio.sleep(pause)

    async def stop(self, timeout: float = _CLOSE_SECONDS) -> None:
        """End `start` and `batches` and leave within twice `timeout` seconds, with Kafka there or gone."""
        self._stopping.set()
        if self._watching is not None:
            self._watching.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._opening:
                pass
        await asyncio.gather(self._close(timeout), self._lookout.close())

    async def _found(self) -> Log:
        """The topic as it is, made when it is missing."""
        found = (await self._lookout.logs([self._topic])).get(self._topic)
        if found is None:
            await provide(self._settings, [self._topic])
            found = (await self._lookout.logs([self._topic])).get(self._topic)
        if found is None:
            raise KafkaAway(f"there is no topic {self._real}: run `python -m messaging.provision`")
        self._away = None
        return found

    async def _open(self) -> None:
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            group_id=None,
            enable_auto_commit=False,
            request_timeout_ms=round(self._settings.kafka_send_timeout * 1000),
        )
        self._consumer = consumer
        # connecting takes up to three requests: cut off in mid-connect, aiokafka leaves the socket open
        async with asyncio.timeout(4 * self._settings.kafka_send_timeout):
            await consumer.start()
        consumer._client.add_topic(self._real)

    async def _resolve(self, at: Start, found: Log, most: int) -> dict[int, int]:
        consumer = self._consumer
        assert consumer is not None
        topic_partitions = [TopicPartition(self._real, partition) for partition in sorted(found.leaders)]
        async with asyncio.timeout(self._settings.kafka_send_timeout):
            ends: dict[TopicPartition, int] = await consumer.end_offsets(topic_partitions)
            self._ends = {tp.partition: end for tp, end in ends.items()}
            if at == "end":
                return self.ends
            if isinstance(at, datetime):
                since = round(at.timestamp() * 1000)
                times = await consumer.offsets_for_times(dict.fromkeys(topic_partitions, since))
                return {tp.partition: times[tp].offset if times.get(tp) else ends[tp] for tp in topic_partitions}
            starts: dict[TopicPartition, int] = await consumer.beginning_offsets(topic_partitions)
            if isinstance(at, timedelta):
                since = round((datetime.now(UTC) - at).timestamp() * 1000)
                times = await consumer.offsets_for_times(dict.fromkeys(topic_partitions, since))
                first = {tp: times[tp].offset if times.get(tp) else ends[tp] for tp in topic_partitions}
                return {tp.partition: max(first[tp] - 1, ends[tp] - most, starts[tp]) for tp in topic_partitions}
            assert not isinstance(at, str)
            return {tp.partition: min(max(at.get(tp.partition, 0), starts[tp]), ends[tp]) for tp in topic_partitions}

    def _follow(self) -> None:
        """Read every partition from our position."""
        assert self._consumer is not None
        self._sessions = Sessions(
            self._consumer._client,
            self._real,
            self._topic,
            self._positions,
            wait=min(_FETCH_WAIT, self._settings.kafka_send_timeout / 2),
            retry=min(_FETCH_RETRY, self._settings.kafka_backoff),
        )
        self._stillness.forget()

    async def _watch(self) -> None:
        asked_at = time.monotonic()
        while True:
            await self._pause(self._settings.kafka_watch)
            try:
                await self._look()
                if time.monotonic() - asked_at >= self._settings.kafka_stall:
                    asked_at = time.monotonic()
                    await self._ask_for_ends()
            except KafkaAway as error:
                self._away = str(error)
                self._stillness.forget()
            except Exception:
                # a bug of ours must not end the watch
                log.exception("kafka_watch_failed", topic=self._topic)

    async def _look(self) -> None:
        found = await self._found()
        if self._other_log:
            return
        if self._log is not None and found.id is not None and found.id != self._log:
            self._replaced("it was made anew")
        elif new := found.leaders.keys() - self._positions.keys():
            log.info("kafka_partitions_added", topic=self._topic, partitions=sorted(new))
            self._positions.update(dict.fromkeys(new, 0))
            # one that is being opened is given them at its end
            if self._sessions is not None and not self._opening.locked():
                self._sessions.add(dict.fromkeys(new, 0))

    async def _ask_for_ends(self) -> None:
        positions = self.positions
        ends = (await self._lookout.ends([self._topic], committed=False)).get(self._topic, {})
        if self._other_log:
            return
        if any(ends.get(partition, offset) < offset for partition, offset in positions.items()):
            # where Kafka does not tell logs apart, and where one that it had confirmed has lost its end
            self._replaced("it ends before what was read")
            return
        if waiting := self._stillness.waiting(Standing(positions, self._batches), ends):
            self._waiting = (waiting, self._batches)
            self._silent = True
            log.warning("kafka_reader_renewed", topic=self._topic, reason="silent", events=waiting)
            metrics.count("readers_renewed", reason="silent")
            self._stillness.forget()
        elif all(ends.get(partition, 0) <= offset for partition, offset in positions.items()):
            self._waiting = None

    def _replaced(self, how: str) -> None:
        self._other_log = True
        log.warning("kafka_reader_renewed", topic=self._topic, reason="other_log", how=how)
        metrics.count("readers_renewed", reason="other_log")

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _close(self, timeout: float = _CLOSE_SECONDS) -> None:
        consumer, self._consumer = self._consumer, None
        sessions, self._sessions = self._sessions, None
        if sessions is not None:
            await sessions.close()
        if consumer is None:
            return
        await stop_client(consumer._client, consumer.stop(), seconds=timeout, what=self._topic)
