"""Topics are made once, checked always, and whoever runs it twice or at the same time does no harm."""

import asyncio

import pytest

from messaging.provision import KafkaAway, main, provision
from messaging.settings import KafkaSettings
from schemas.topics import TOPICS, Topic

pytestmark = pytest.mark.connected

ONE = Topic(name="one.v1", key="k", partitions=2, retention_ms=60_000, purpose="a test")


@pytest.fixture
def settings(kafka_servers: str, namespace: str) -> KafkaSettings:
    return KafkaSettings(kafka_servers=kafka_servers, namespace=namespace, kafka_connect_timeout=60)


async def test_missing_topics_are_created_once(settings: KafkaSettings) -> None:
    first = await provision(settings)
    assert [finding.topic for finding in first] == [settings.namespace + topic.name for topic in TOPICS]
    assert all(finding.fit and finding.changed for finding in first)

    second = await provision(settings)
    assert all(finding.fit and not finding.changed for finding in second)
    assert {finding.text for finding in await provision(settings, check=True)} == {"as expected"}


async def test_two_at_once_agree(settings: KafkaSettings) -> None:
    both = await asyncio.gather(provision(settings), provision(settings))
    assert all(finding.fit for findings in both for finding in findings)


async def test_a_check_changes_nothing(settings: KafkaSettings) -> None:
    for _ in range(2):
        (finding,) = await provision(settings, check=True, topics=[ONE])
        assert not finding.fit
        assert "missing" in finding.text


async def test_a_topic_grows_to_its_partitions(settings: KafkaSettings) -> None:
    await provision(settings, topics=[ONE])
    wider = ONE.model_copy(update={"partitions": 3})

    (finding,) = await provision(settings, check=True, topics=[wider])
    assert not finding.fit
    assert "2 partitions, expected 3" in finding.text

    grown = await asyncio.gather(*(provision(settings, topics=[wider]) for _ in range(2)))
    assert all(finding.fit for findings in grown for finding in findings)
    (finding,) = await provision(settings, topics=[wider])
    assert (finding.fit, finding.changed) == (True, False)
    # more than listed is somebody's decision
    (finding,) = await provision(settings, topics=[ONE])
    assert finding.text == "as expected"


async def test_another_retention_is_reported_and_left(settings: KafkaSettings) -> None:
    await provision(settings, topics=[ONE])
    longer = ONE.model_copy(update={"retention_ms": 120_000})
    for _ in range(2):
        (finding,) = await provision(settings, topics=[longer])
        assert not finding.fit
        assert "retention.ms is 60000, expected 120000" in finding.text


async def test_kafka_away_is_one_clear_line(unused_port: int) -> None:
    settings = KafkaSettings(kafka_servers=f"127.0.0.1:{unused_port}", kafka_connect_timeout=0.5)
    with pytest.raises(KafkaAway, match="SCENEWIRE_KAFKA_SERVERS"):
        await provision(settings)


def test_command_line(settings: KafkaSettings, unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setenv("SCENEWIRE_KAFKA_SERVERS", settings.kafka_servers)
    monkeypatch.setenv("SCENEWIRE_NAMESPACE", settings.namespace)
    assert main(["--check"], say=lines.append) == 1
    assert main([], say=lines.append) == 0
    assert main(["--check"], say=lines.append) == 0
    assert len(lines) == 3 * len(TOPICS)

    monkeypatch.setenv("SCENEWIRE_KAFKA_SERVERS", f"127.0.0.1:{unused_port}")
    monkeypatch.setenv("SCENEWIRE_KAFKA_CONNECT_TIMEOUT", "0.5")
    assert main([], say=lines.append) == 2
    waiting, away = lines[-2:]
    assert waiting.startswith("Waiting for Kafka at")
    assert "did not answer within 0.5 s" in away


@pytest.fixture
def unused_port() -> int:
    from local import ports

    (port,) = ports.free(1)
    return port
