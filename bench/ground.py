"""What the pipeline's measurements stand on: a real Kafka and a real Postgres (fsync on), databases and topics of
their own for each measurement, our processes, and what those cost."""

import asyncio
import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from driving import cpu_of_trees
from uuid_utils.compat import uuid7

from local import ports
from local.kafka import Kafka
from local.postgres import Postgres
from local.python import PythonServer
from local.server import Server
from messaging.provision import provision
from messaging.settings import KafkaSettings
from producer.relay import build as build_relay
from producer.relay_settings import RelaySettings
from schemas.events import REQUESTED_TYPE, RequestedData
from schemas.requests import SceneImageRequest
from schemas.words import Lane, Tier
from storage import admitting
from storage.accepting import Acceptor, NewRequest
from storage.admitting import Asked
from storage.database import Database
from storage.migrate import migrate
from storage.settings import DatabaseSettings

PAGE = os.sysconf("SC_PAGE_SIZE")
SECRET = "a-secret-of-the-measurement-with-32-bytes-or-more"
_DEADLINE = 86_400.0
_WORDS = (
    "The March Hare and the Hatter were having tea at a table set out under a tree in front of the house; a Dormouse "
    "was sitting between them, fast asleep, and the other two were using it as a cushion."
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `most`: the aim is a ceiling, else a floor; `others`: what other designs reach."""

    unit: str
    aim: float | None = None
    most: bool = True
    others: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """One database and one namespace of topics, fresh."""

    database_url: str
    kafka_servers: str
    namespace: str
    folder: Path
    postgres: Server

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(kafka_servers=self.kafka_servers, namespace=self.namespace)

    @property
    def relay(self) -> RelaySettings:
        return RelaySettings(kafka_servers=self.kafka_servers, namespace=self.namespace, database_url=self.database_url)

    def environment(self, **more: str) -> dict[str, str]:
        """Of our processes: production's defaults, and where things are."""
        return {
            "PATH": os.environ["PATH"],
            "SCENEWIRE_DATABASE_URL": self.database_url,
            "SCENEWIRE_KAFKA_SERVERS": self.kafka_servers,
            "SCENEWIRE_NAMESPACE": self.namespace,
            "SCENEWIRE_MEDIA_URL": f"file://{self.folder}/media",
            "SCENEWIRE_JWT_SECRET": SECRET,
            "SCENEWIRE_LOG_LEVEL": "warning",
            "MODELSLAB_API_KEY": "any",
            **more,
        }

    def process(
        self, name: str, module: str, arguments: Sequence[str] = (), ready_path: str = "/readyz", **more: str
    ) -> PythonServer:
        """One of our processes, not started yet; `more` goes into its environment."""
        (port,) = ports.free(1)
        log, environment = self.folder / f"{name}.log", self.environment(**more)
        return PythonServer(
            name,
            log,
            module=module,
            port=port,
            environment=environment,
            arguments=arguments,
            ready_path=ready_path,
        )

    @asynccontextmanager
    async def database(self, **more: Any) -> AsyncIterator[Database]:
        database = Database(DatabaseSettings(database_url=self.database_url, **more), application="bench")
        try:
            yield database
        finally:
            await database.close()


class Ground:
    """The servers all measurements share."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        port, controller_port = ports.free(2)
        self.kafka = Kafka(
            "kafka",
            folder / "kafka.log",
            folder=folder / "kafka",
            port=port,
            controller_port=controller_port,
            quick=quick,
        )
        self.postgres = Postgres("postgres", folder / "postgres.log", folder=folder / "postgres")

    @asynccontextmanager
    async def site(self) -> AsyncIterator[Site]:
        """A fresh database with today's tables, and fresh topics."""
        name = f"bench_{uuid.uuid4().hex[:10]}"
        self.postgres.sql(f"CREATE DATABASE {name}")
        site = Site(self.postgres.url(name), self.kafka.servers, f"{name}-", self.folder / name, self.postgres)
        (site.folder / "media").mkdir(parents=True)
        try:
            await migrate(site.database_url)
            await provision(site.kafka)
            yield site
        finally:
            self.postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def ground(*, quick: bool = True) -> Iterator[Ground]:
    """Kafka and Postgres, started; gone with all they hold at the end. `quick`: a Kafka that starts in little time,
    and never gets as fast as one in production."""
    with tempfile.TemporaryDirectory(prefix="scenewire-bench-", ignore_cleanup_errors=True) as folder:
        # Postgres runs as another user when we are root
        Path(folder).chmod(0o755)
        made = Ground(Path(folder), quick=quick)
        try:
            for server in (made.kafka, made.postgres):
                server.prepare()
                server.launch()
            for server in (made.kafka, made.postgres):
                server.wait_ready()
            yield made
        finally:
            made.kafka.stop()
            made.postgres.stop()


@contextmanager
def running(*servers: PythonServer) -> Iterator[None]:
    """Start them, wait until they are ready; stop them at the end."""
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_ready()
        yield
    finally:
        for server in servers:
            server.ask_to_stop()
        for server in servers:
            if not server.wait_stopped(10):
                server.kill()


@asynccontextmanager
async def relaying(site: Site) -> AsyncIterator[None]:
    """A relay in this process, for what is only prepared."""
    relay, _ = build_relay(site.relay)
    stop = asyncio.Event()
    task = asyncio.create_task(relay.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


def new_request(number: int, *, users: int = 50) -> NewRequest:
    """The `number`-th of many: ten scenes a chapter, users taking turns."""
    user, chapter = uuid.UUID(int=1 + number % users), uuid.UUID(int=1_000_000 + number // 10)
    body = SceneImageRequest(scene_description=f"{number}. {_WORDS}")
    return NewRequest(uuid7(), user, chapter, number % 10 + 1, body, Tier.STANDARD)


def requested_data(new: NewRequest) -> RequestedData:
    return RequestedData(
        **new.body.model_dump(),
        record_id=new.record_id,
        user_id=new.user_id,
        chapter_id=new.chapter_id,
        scene_number=new.scene_number,
        user_tier=new.tier,
    )


def requested_event(new: NewRequest) -> bytes:
    """The event by which another service asks for the same."""
    event = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/another-service",
        "type": REQUESTED_TYPE,
        "subject": str(new.record_id),
        "data": requested_data(new).model_dump(mode="json", exclude_none=True),
    }
    return json.dumps(event).encode()


async def accept(database: Database, count: int, *, users: int = 50) -> None:
    """Put `count` requests on record as the producer does."""
    acceptor = Acceptor(database, deadline=_DEADLINE)
    for first in range(0, count, 1_000):
        numbers = range(first, min(first + 1_000, count))
        await asyncio.gather(*(acceptor.accept(new_request(number, users=users)) for number in numbers))


async def wait_for_dispatch(
    database: Database, count: int, *, users: int = 50, lanes: Sequence[Lane] = (Lane.STANDARD,)
) -> None:
    """Put `count` records on record, admitted, the lanes in turn."""
    for first in range(0, count, 500):
        numbers = range(first, min(first + 500, count))
        asked = [
            Asked(requested_data(new_request(number, users=users)), lanes[number % len(lanes)], None)
            for number in numbers
        ]
        await admitting.admit(database, asked, deadline=_DEADLINE)


async def until(
    connection: "asyncpg.Connection[Any]", sql: str, *args: object, seconds: float = 120.0, every: float = 0.05
) -> None:
    """Wait until `sql` gives true, asked `every` so many seconds; other processes work meanwhile."""
    async with asyncio.timeout(seconds):
        while not await connection.fetchval(sql, *args):  # noqa: ASYNC110
            await asyncio.sleep(every)


@asynccontextmanager
async def connected(site: Site) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(site.database_url)
    try:
        yield connection
    finally:
        await connection.close()


def cpu_of(*servers: Server) -> list[float]:
    """Seconds of CPU so far of each, with its children; Postgres with its backends."""
    return list(cpu_of_trees({str(number): server.pid or 0 for number, server in enumerate(servers)}).values())


def rss_kb(pid: int | None) -> float:
    """Resident memory of one process now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1024


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def raise_open_files(wanted: int) -> int:
    """Ask for `wanted` open files for this process and its children; gives what there is."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            # only root may lift the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
