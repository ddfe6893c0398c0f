"""Outbox to Kafka (PIPELINE R). Many may run, one is active: the one whose connection holds the lock.

A row is deleted after Kafka confirmed it, so an event can be sent twice and never is lost. Within a key the order of
the rows holds, except across a takeover, where the last batch may come again: receivers go by `sequence`.
"""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Sequence

import structlog

from messaging.provision import KafkaAway, provision
from messaging.sender import MissingTopic, Outgoing, Refused, Sender, SendFailed
from producer.relay_settings import RelaySettings
from schemas import topics
from schemas.events import CONTENT_TYPE
from storage.database import Unavailable
from storage.outbox import OutboxReader, OutboxRow
from telemetry import logs, metrics, traces
from telemetry.settings import load
from web import serving
from web.health import Health

log = structlog.get_logger()

_FIRST_BACKOFF_SECONDS = 0.1
_PULSE_SECONDS = 60.0
"""A step's time limits together are below this: a relay that is silent for longer hangs."""


class Relay:
    """The service. `run` until `stop` is set; nothing it meets ends it before."""

    def __init__(
        self,
        settings: RelaySettings,
        *,
        outbox: OutboxReader,
        sender: Sender,
        create_topic: Callable[[topics.Topic], Awaitable[object]],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._sender = sender
        self._create_topic = create_topic
        self._beat = beat
        self._stop = asyncio.Event()
        self.trouble: str | None = None
        """What keeps it from its work: the outbox or Kafka, in a sentence."""

    async def run(self, stop: asyncio.Event) -> None:
        """Stand by, take over, relay; after any failure from the beginning, with a new producer and connection."""
        self._stop = stop
        backoff = _FIRST_BACKOFF_SECONDS
        while not stop.is_set():
            self._beat()
            try:
                await self._outbox.open()
                await self._stand_by()
                log.info("relay_active")
                async for _ in self._steps():
                    backoff = _FIRST_BACKOFF_SECONDS
            except (Unavailable, SendFailed, MissingTopic, KafkaAway) as error:
                if self.trouble is None:
                    log.warning("relay_interrupted", error=str(error))
                self.trouble = str(error)
                metrics.count("outbox_send_failures")
            finally:
                metrics.gauge("relay_active", 0)
                # before the lock can be anybody else's: what this producer still holds must not be written later
                await self._sender.discard()
                await self._outbox.close()
            await self._pause(backoff)
            backoff = min(backoff * 2, self._settings.relay_backoff)

    async def _stand_by(self) -> None:
        while not self._stop.is_set():
            self._beat()
            if await self._outbox.acquire():
                metrics.gauge("relay_active", 1)
                return
            self.trouble = None
            await self._pause(self._settings.relay_poll)

    async def _steps(self):  # type: ignore[no-untyped-def]
        yield
