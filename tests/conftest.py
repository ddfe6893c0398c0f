"""What every test may ask for: the run's real Kafka and Postgres, a database and a namespace of its own, and servers
that a test may kill.

Kafka and Postgres are started when the first test asks for them, once per run, on folders that end with it.
"""

import asyncio
import importlib
import importlib.util
import inspect
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from local import ports
from local.kafka import Kafka
from local.postgres import Postgres
from local.server import Server
from tests.supervised import Local, free_base

_TEMPLATE = "template_scenewire"

S = TypeVar("S", bound=Server)


@pytest.fixture(scope="session")
def running_kafkas() -> list[Kafka]:
    """The run's Kafka once some test asked for it: for what must not start it."""
    return []


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, running_kafkas: list[Kafka]) -> Iterator[Kafka]:
    """The run's Kafka. Not to be killed: ask for `private_kafka` for that."""
    for server in _running(_kafka(tmp_path_factory.mktemp("kafka"), "kafka")):
        running_kafkas.append(server)
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The run's Postgres. Not to be killed: ask for `private_postgres` for that."""
    folder = tmp_path_factory.mktemp("postgres")
    server = Postgres("postgres", folder / "log", folder=folder, durable=False, max_connections=400)
    yield from _running(server)


@pytest.fixture(scope="session")
def kafka_servers(kafka: Kafka) -> str:
    """`host:port` of the run's Kafka."""
    return kafka.servers


@pytest.fixture(scope="session")
def template_database(postgres: Postgres) -> str:
    """The name of a database that went through all migrations, for others to be copied from."""
    postgres.sql(f"CREATE DATABASE {_TEMPLATE}")
    migrate(postgres.url(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def database_url(postgres: Postgres, template_database: str) -> Iterator[str]:
    """The libpq URI of a migrated database that this test has for itself."""
    yield from _database(postgres, template_database)


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """The libpq URI of a database without any table, for tests of the migrations themselves."""
    yield from _database(postgres, "template1")


@pytest.fixture
def namespace(running_kafkas: list[Kafka]) -> Iterator[str]:
    """A prefix for topics and groups that no other test of the run has (give it to SCENEWIRE_NAMESPACE).

    Topics made under it are deleted afterwards: a broker of this size is not meant for thousands of partitions.
    """
    name = f"t{uuid.uuid4().hex[:10]}-"
    yield name
    for server in running_kafkas:
        # in a thread of its own: the test's event loop may still be there
        remover = threading.Thread(target=lambda server=server: asyncio.run(_delete_topics(server.servers, name)))
        remover.start()
        remover.join()


@pytest.fixture
def private_kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A running Kafka that the test may kill, pause, stop and start again (same data, same port)."""
    yield from _running(_kafka(tmp_path / "private-kafka", "private-kafka"))


@pytest.fixture
def private_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A running, migrated Postgres that the test may kill, pause, stop and start again (same data, same socket)."""
    folder = tmp_path / "private-postgres"
    for server in _running(Postgres("private-postgres", folder / "log", folder=folder, durable=False)):
        migrate(server.url())
        yield server


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready file of a whole service, run by `python -m local` for the rest of the run. Not to be killed."""
    running = Local(tmp_path_factory.mktemp("line"), free_base())
    running.start()
    try:
        yield running.ready()
    finally:
        running.stop()


def migrate(url: str) -> None:
    """Bring a database to the newest schema; usable where no event loop runs."""
    if importlib.util.find_spec("storage.migrate") is None:
        return
    run: Callable[[str], object] = importlib.import_module("storage.migrate").migrate
    outcome = run(url)
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)


def _kafka(folder: Path, name: str) -> Kafka:
    port, controller_port = ports.free(2)
    return Kafka(name, folder / "log", folder=folder, port=port, controller_port=controller_port)


def _running(server: S) -> Iterator[S]:
    server.start()
    try:
        yield server
    finally:
        server.resume()
        server.stop()


async def _delete_topics(servers: str, prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        topics = [topic for topic in await admin.list_topics() if topic.startswith(prefix)]
        if topics:
            await admin.delete_topics(topics)
    finally:
        await admin.close()


def _database(postgres: Postgres, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    postgres.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield postgres.url(name)
    postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")
