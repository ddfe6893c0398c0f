"""What messaging decides without Kafka."""

from types import SimpleNamespace

import pytest

from messaging.deliveries import deliveries
from messaging.names import client_options, logical_topic, real_group, real_topic
from messaging.security import faststream_security
from messaging.settings import KafkaSettings
from schemas.topics import TOPICS

PLAIN = KafkaSettings(kafka_servers="a:1,b:2", namespace="stage.")


@pytest.mark.parametrize("topic", [topic.name for topic in TOPICS])
def test_the_namespace_stands_before_topics_and_groups_and_nowhere_else(topic: str) -> None:
    assert real_topic(PLAIN, topic) == f"stage.{topic}"
    assert logical_topic(PLAIN, real_topic(PLAIN, topic)) == topic
    assert real_group(PLAIN, "workers", topic) == f"stage.workers.{topic}"
    # Kafka's longest name is 249, and our longest namespace must fit
    assert len(topic) + 100 <= 249


@pytest.mark.parametrize("servers", ["", "kafka", "kafka:", "http://kafka:9092", "a:1,", "a:1;b:2"])
def test_servers_without_host_and_port_are_refused(servers: str) -> None:
    with pytest.raises(ValueError, match=r"must be host:port\[,host:port\]"):
        KafkaSettings(kafka_servers=servers)


def test_servers_may_be_several_and_of_any_kind_of_address() -> None:
    servers = "kafka-1.example:9092, 10.0.0.7:9092,[::1]:9092"
    assert KafkaSettings(kafka_servers=servers).kafka_servers == servers


def test_a_delivery_takes_any_bytes() -> None:
    record = SimpleNamespace(
        topic="stage.t",
        partition=1,
        offset=2,
        timestamp=3,
        key=b"\xff",
        value=None,
        headers=(("a", None), ("b", b"\xff"), ("b", b"last")),
    )
    (event,) = deliveries(PLAIN, [record])
    assert (event.topic, event.partition, event.offset, event.timestamp_ms) == ("t", 1, 2, 3)
    assert (event.key, event.value) == ("\ufffd", b"")
    # who sends it again needs all of it
    assert event.original_key == b"\xff"
    assert event.original_headers == (("a", None), ("b", b"\xff"), ("b", b"last"))


def test_plain_connections_need_no_log_in() -> None:
    options = client_options(PLAIN)
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert options["ssl_context"] is None
    assert "sasl_plain_password" not in options
    assert faststream_security(PLAIN) is None


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("security", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_both_kinds_of_client_log_in_alike(mechanism: str, security: str) -> None:
    from faststream.kafka.security import parse_security

    settings = PLAIN.model_validate(
        PLAIN.model_dump()
        | {"kafka_security": security, "kafka_sasl_mechanism": mechanism, "kafka_username": "u", "kafka_password": "p"}
    )
    ours, theirs = client_options(settings), parse_security(faststream_security(settings))
    for name in ("security_protocol", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password"):
        assert ours[name] == theirs[name]
    assert (ours["ssl_context"] is None) == (theirs.get("ssl_context") is None) == (security == "SASL_PLAINTEXT")
    assert "'p'" not in repr(settings)


def test_tls_alone() -> None:
    settings = PLAIN.model_copy(update={"kafka_security": "SSL"})
    from faststream.kafka.security import parse_security

    assert client_options(settings)["ssl_context"] is not None
    assert parse_security(faststream_security(settings))["security_protocol"] == "SSL"
