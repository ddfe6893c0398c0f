"""This process as a worker: its row, its sign of life each second, and what happens when others thought it dead.

The signs are given from a thread with a loop and a connection of its own: a main loop that is busy for seconds must not
cost the worker its claims, and one that hangs for good is `/healthz`'s business (PIPELINE W1, W3, W4).
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from uuid import UUID, uuid4

import structlog

from consumer.patience import rest
from storage import answers, workers
from storage.answers import Answer
from storage.database import Database, Unavailable
from storage.settings import DatabaseSettings
from telemetry import metrics

log = structlog.get_logger(__name__)

_BACKOFF_SECONDS = 0.2


class Worker:
    """One row in `workers`. `on_fenced` is called in the main loop: drop every task, a new id is already there.
    `on_said` is called in the worker's own thread after each sign of life.

    `beat` and `life` in seconds. `held` lists the ids that this process has learned and not yet written down: they are
    written first when Postgres is back, before this worker says that it lives.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        name: str,
        beat: float,
        life: float,
        held: Callable[[], list[Answer]],
        on_fenced: Callable[[], None],
        on_said: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings.model_copy(update={"database_pool_size": 2})
        self._name = name
        self._beat = beat
        self._life = life
        self._held = held
        self._on_fenced = on_fenced
        self._on_said = on_said
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._loops: tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop] | None = None
        self._registered = asyncio.Event()
        self._connected_at: float | None = None
        self._said_at = 0.0
        self.id: UUID = uuid4()

    @property
    def may_judge(self) -> bool:
        """Whether our own line to Postgres has held for longer than a life: only then is another's silence its own.

        Our own sign must be fresh as well: with a Postgres that stood still everybody's is late.
        """
        connected_at, said_at = self._connected_at, self._said_at
        now = time.monotonic()
        return connected_at is not None and now - connected_at > self._life and now - said_at < self._life

    async def start(self) -> None:
        """Start giving signs; returns at once, `registered` tells when the row stands."""
        main = asyncio.get_running_loop()
        ready = threading.Event()

        def run() -> None:
            async def live() -> None:
                self._stop = asyncio.Event()
                self._loops = (main, asyncio.get_running_loop())
                ready.set()
                await self._live(self._stop)

            asyncio.run(live())

        self._thread = threading.Thread(target=run, name="worker", daemon=True)
        self._thread.start()
        await asyncio.to_thread(ready.wait)

    async def registered(self) -> None:
        """Wait until the worker's row stands: nothing may be claimed before."""
        await self._registered.wait()

    async def stop(self, timeout: float) -> None:
        """Say goodbye, so that what is still claimed may be taken over at once; bounded by `timeout` seconds."""
        if self._thread is None or self._loops is None or self._stop is None:
            return
        with contextlib.suppress(RuntimeError):
            self._loops[1].call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, timeout)

    async def _live(self, stop: asyncio.Event) -> None:
        database = Database(self._settings, application="scenewire-worker")
        try:
            while not stop.is_set():
                began = time.monotonic()
                pause = self._beat
                try:
                    await self._say(database)
                    self._on_said()
                except Unavailable:
                    self._connected_at = None
                    pause = _BACKOFF_SECONDS
                except Exception:
                    self._connected_at = None
                    log.exception("worker_beat_failed")
                await rest(stop, max(0.0, pause - (time.monotonic() - began)))
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2):
                    await workers.leave(database, self.id)
        finally:
            await database.close()

    async def _say(self, database: Database) -> None:
        if self._connected_at is None:
            await answers.learn(database, self._held())
            await workers.register(database, self.id, self._name, life=self._life)
        if not await workers.beat(database, self.id, life=self._life):
            # taken for dead: our claims are others' now
            metrics.count("fenced")
            log.warning("worker_fenced", worker_id=str(self.id))
            # nothing may be claimed under an id that is not on record: nobody would take it over
            successor = uuid4()
            await workers.register(database, successor, self._name, life=self._life)
            self.id = successor
            self._in_main(self._on_fenced)
        now = time.monotonic()
        late = now - self._said_at > self._life
        self._said_at = now
        if self._connected_at is None:
            self._in_main(self._registered.set)
        if self._connected_at is None or late:
            self._connected_at = now

    def _in_main(self, call: Callable[[], None]) -> None:
        assert self._loops is not None
        with contextlib.suppress(RuntimeError):  # the main loop has ended
            self._loops[0].call_soon_threadsafe(call)
