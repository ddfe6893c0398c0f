"""Kafka and Postgres as our own children: data and address outlive a kill, a pause ends, a parent's death ends them."""

from pathlib import Path

import asyncpg
import pytest

from local import ports
from local.kafka import Kafka
from local.postgres import Postgres

pytestmark = pytest.mark.connected


def test_postgres_keeps_its_data_and_socket_over_a_kill(private_postgres: Postgres) -> None:
    url = private_postgres.url()
    private_postgres.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)", "scenewire")
    before = private_postgres.pid
    private_postgres.kill()
    private_postgres.start()
    assert private_postgres.url() == url
    assert private_postgres.pid != before
    assert private_postgres.sql("SELECT n FROM kept", "scenewire").strip() == "7"


def test_a_paused_postgres_answers_again_when_resumed(private_postgres: Postgres) -> None:
    private_postgres.pause()
    private_postgres.resume()
    assert private_postgres.sql("SELECT 1").strip() == "1"


def test_kafka_keeps_its_address_over_a_kill(private_kafka: Kafka) -> None:
    servers = private_kafka.servers
    private_kafka.kill()
    assert not private_kafka.is_ready()
    private_kafka.start()
    assert private_kafka.servers == servers
    assert private_kafka.is_ready()


def test_kafka_starts_without_its_classes_kept_and_with_a_file_that_is_damaged(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.aot"
    damaged.write_bytes(b"no classes are in here" * 1000)
    for name, classes in (("none", tmp_path / "missing.aot"), ("damaged", damaged)):
        port, controller_port = ports.free(2)
        log, folder = tmp_path / name / "log", tmp_path / name
        kafka = Kafka(name, log, folder=folder, port=port, controller_port=controller_port, classes=classes)
        try:
            kafka.start()
            assert kafka.is_ready()
            # and nobody is told of what is of no matter
            assert "aot" not in log.read_text().lower()
        finally:
            kafka.kill()


async def test_each_test_has_a_database_of_its_own(database_url: str, empty_database_url: str) -> None:
    first, second = await asyncpg.connect(database_url), await asyncpg.connect(empty_database_url)
    try:
        assert await first.fetchval("SELECT current_database()") != await second.fetchval("SELECT current_database()")
        assert await second.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    finally:
        await first.close()
        await second.close()
