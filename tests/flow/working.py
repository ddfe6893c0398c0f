"""A whole consumer, or several, with relay, on real Kafka and Postgres; the provider and its pictures are ours."""

import asyncio
import contextlib
import json
import struct
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import httpx
from aiohttp.abc import AbstractResolver
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import Row

from consumer.app import Consumer, build
from consumer.settings import ConsumerSettings
from messaging.provision import provision
from messaging.sender import Outgoing, Sender
from producer.relay import build as build_relay
from producer.relay_settings import RelaySettings
from schemas.topics import BY_NAME
from storage.accepting import NewRequest
from storage.database import Database, Unavailable
from storage.settings import DatabaseSettings
from tests.connected.steps import Steps, request

SECRET = "0123456789abcdef0123456789abcdef"
PATIENCE = 30.0


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


PNG = b"".join(
    (
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 9, 8, 2, 0, 0, 0)),
        _chunk(b"IDAT", zlib.compress((b"\x00" + b"\x20\x60\xa0" * 16) * 9)),
        _chunk(b"IEND", b""),
    )
)
"""A real one, of 16 x 9 pixels."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call to the provider; `number` counts the submits, or the fetches of one job, from 1."""

    number: int
    track_id: str
    prompt: str
    model: str
    job: str
    path: str
    webhook: str


Answer: TypeAlias = dict[str, Any] | httpx.Response | Exception | Callable[[Call], Awaitable[Any]]


def success(job: str | int | None, **more: Any) -> dict[str, Any]:
    return {"status": "success", "id": job, "output": [f"https://pictures.test/{job}.png"], "proxy_links": [], **more}


def processing(job: str | int, eta: float = 0.05) -> dict[str, Any]:
    return {
        "status": "processing",
        "id": job,
        "eta": eta,
        "fetch_result": f"https://modelslab.com/api/v7/images/fetch/{job}",
        "output": [],
    }


def error(message: str, code: int = 200, **more: Any) -> httpx.Response:
    return httpx.Response(code, json={"status": "error", "message": message, **more})


class Provider:
    """Answers by script, in order, then as `otherwise` says, or with success; counts what it was asked."""

    def __init__(self) -> None:
        self.submits: list[Call] = []
        self.fetches: list[Call] = []
        self.open = 0
        self.most_open = 0
        self.submit_answers: deque[Answer] = deque()
        self.fetch_answers: deque[Answer] = deque()
        self.otherwise: Answer | None = None
        self.transport = httpx.MockTransport(self._handle)

    def scripted(self, *submits: Answer, fetches: tuple[Answer, ...] = ()) -> None:
        self.submit_answers.extend(submits)
        self.fetch_answers.extend(fetches)

    async def _handle(self, asked: httpx.Request) -> httpx.Response:
        body = json.loads(asked.content)
        path = asked.url.path
        job = path.rpartition("/fetch/")[2] if "/fetch/" in path else ""
        calls, answers = (self.fetches, self.fetch_answers) if job else (self.submits, self.submit_answers)
        number = sum(call.job == job for call in calls) + 1
        told = (str(body.get(name, "")) for name in ("track_id", "prompt", "model_id"))
        call = Call(number, *told, job, path, body.get("webhook", ""))
        calls.append(call)
        self.open += not job
        self.most_open = max(self.most_open, self.open)
        try:
            answer: Any = answers.popleft() if answers else self.otherwise or success(job or f"job-{number}")
            if callable(answer):
                answer = await answer(call)
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)
        finally:
            self.open -= not job


class Pictures:
    """The hosts that pictures lie on: a PNG, unless the script says something else."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: deque[bytes | int] = deque()
        self.transport = httpx.MockTransport(self._handle)

    async def _handle(self, asked: httpx.Request) -> httpx.Response:
        self.asked.append(str(asked.url))
        answer = self.answers.popleft() if self.answers else PNG
        return httpx.Response(answer) if isinstance(answer, int) else httpx.Response(200, content=answer)


class Held:
    """An answer that is held back: `asked` is set when the call is open, `go` lets it through."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, call: Call) -> Any:
        self.asked.set()
        await self.go.wait()
        return await self.answer(call) if callable(self.answer) else self.answer


@dataclass(eq=False)
class Running:
    """One consumer at work."""

    consumer: Consumer
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def stopped(self, within: float = 15.0) -> None:
        self.stop.set()
        async with asyncio.timeout(within):
            await self.task


class Line:
    """Everything that runs, and what tests ask of it."""

    def __init__(self, settings: ConsumerSettings, database: Database) -> None:
        self.settings = settings
        self.steps = Steps(database)
        self.provider = Provider()
        self.pictures = Pictures()
        # where it is given, pictures come from real hosts, by its names
        self.names: AbstractResolver | None = None
        self.sender = Sender(settings)
        self.running: list[Running] = []

    def start(self, **changes: Any) -> Running:
        """One more consumer, with these settings changed."""
        settings = ConsumerSettings.model_validate({**self.settings.model_dump(), **changes})
        consumer = build(
            settings,
            provider_transport=self.provider.transport,
            picture_transport=self.pictures.transport if self.names is None else None,
            picture_resolver=self.names,
        )
        stop = asyncio.Event()
        running = Running(consumer, stop, asyncio.create_task(consumer.run(stop), name="consumer"))
        self.running.append(running)
        return running

    async def ask(self, new: NewRequest | None = None) -> UUID:
        """A request as the producer accepts it; the relay does the rest."""
        made = new or request()
        await self.steps.accept(made)
        return made.record_id

    async def publish(self, topic: str, body: bytes, key: str | None = None) -> None:
        """An event as another service publishes it."""
        await self.sender.send([Outgoing(topic, key, body)])

    async def until(self, holds: Callable[[], Awaitable[Any]], within: float = PATIENCE) -> Any:
        """What `holds` gives as soon as it is true."""
        async with asyncio.timeout(within):
            while True:
                # tests kill Postgres too: its lines are found dead one by one
                with contextlib.suppress(Unavailable):
                    if found := await holds():
                        return found
                await asyncio.sleep(0.01)

    async def ended(self, record_id: UUID, status: str = "completed", within: float = PATIENCE) -> Row[Any]:
        """The record once it has ended, which must be so."""

        async def terminal() -> Row[Any] | None:
            # another service's request is no record before its event was read
            rows = await self.steps.sql("SELECT * FROM image_generations WHERE id = $1", record_id)
            return rows[0] if rows and rows[0].status in ("completed", "failed", "cancelled") else None

        row: Row[Any] = await self.until(terminal, within)
        assert row.status == status, (row.error_class, row.error_code)
        return row

    async def reaches(self, record_id: UUID, stage: str) -> None:
        async def there() -> bool:
            return bool((await self.steps.record(record_id)).stage == stage)

        await self.until(there)

    async def outcomes(self, record_id: UUID) -> list[str | None]:
        """Of each attempt, in order."""
        return [row.outcome for row in await self.steps.attempts(record_id)]

    async def events(self, topic: str, count: int) -> list[dict[str, Any]]:
        """The first `count` events of a topic, as dicts with `headers`; waits for them."""
        found: list[dict[str, Any]] = []
        client = AIOKafkaConsumer(bootstrap_servers=self.settings.kafka_servers, auto_offset_reset="earliest")
        await client.start()
        try:
            client.assign(
                [TopicPartition(self.settings.namespace + topic, p) for p in range(BY_NAME[topic].partitions)]
            )
            async with asyncio.timeout(PATIENCE):
                while len(found) < count:
                    for records in (await client.getmany(timeout_ms=200)).values():
                        found += [_event(record) for record in records]
        finally:
            await client.stop()
        return found


def _event(record: Any) -> dict[str, Any]:
    headers = {name: value.decode() for name, value in record.headers}
    try:
        event = json.loads(record.value)
    except ValueError:
        event = None
    return {**(event if isinstance(event, dict) else {}), "headers": headers}


def settings_of(database_url: str, kafka_servers: str, namespace: str, media: Path, **changes: Any) -> ConsumerSettings:
    given: dict[str, Any] = {
        "database_url": database_url,
        "database_timeout": 2.0,
        "kafka_servers": kafka_servers,
        "namespace": namespace,
        "media_url": f"file://{media}",
        "jwt_secret": SECRET,
        "push_url": "https://push.scenewire.test",
        "modelslab_api_key": "the-key",
        "provider_slots": 3,
        "retry_delays": (0.05, 0.05, 0.05),
        "poll_interval": 0.05,
        "progress_interval": 0.01,
        "sweep": 0.1,
        "download_fresh_for": 0.0,
        "storing_retry": 0.05,
        "storing_retry_longest": 0.1,
        "worker_beat": 0.2,
        "worker_life": 2.0,
        "mark_life": 1.0,
        "uncertain_after": 1.0,
        "drain": 0.3,
        **changes,
    }
    return ConsumerSettings.model_validate(given)


@asynccontextmanager
async def line_of(settings: ConsumerSettings, *, topics: bool = True) -> AsyncIterator[Line]:
    """Topics, a relay, and no consumer yet; `topics=False` without Kafka's part: requests are swept in."""
    database = Database(DatabaseSettings(database_url=settings.database_url), application="test")
    line = Line(settings, database)
    stop = asyncio.Event()
    relaying: asyncio.Task[None] | None = None
    if topics:
        await provision(settings)
        relay, _ = build_relay(
            RelaySettings(
                kafka_servers=settings.kafka_servers,
                namespace=settings.namespace,
                database_url=settings.database_url,
                database_timeout=2.0,
                relay_poll=0.2,
                relay_backoff=0.2,
            )
        )
        relaying = asyncio.create_task(relay.run(stop), name="relay")
    try:
        yield line
    finally:
        for running in line.running:
            running.stop.set()
        stop.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*(running.task for running in line.running), return_exceptions=True)
            if relaying is not None:
                await relaying
        await line.sender.discard()
        await database.close()
