"""Logical and real names, and the options every client of ours is made with."""

import ssl
from typing import Any

from messaging.settings import KafkaSettings


def real_topic(settings: KafkaSettings, topic: str) -> str:
    """The name Kafka knows."""
    return settings.namespace + topic


def logical_topic(settings: KafkaSettings, real: str) -> str:
    """The name of schemas/topics.py."""
    return real.removeprefix(settings.namespace)


def real_group(settings: KafkaSettings, group: str, topic: str) -> str:
    """One group a topic: a member that comes or goes disturbs the readers of that topic alone."""
    return f"{settings.namespace}{group}.{topic}"


def tls_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    if not settings.kafka_security.endswith("SSL"):
        return None
    return ssl.create_default_context(cafile=settings.kafka_ca_file)


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Keyword arguments of every aiokafka client: where Kafka is and how to log in."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_servers.split(","),
        "security_protocol": settings.kafka_security,
        "ssl_context": tls_context(settings),
    }
    if settings.kafka_security.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": settings.kafka_password.get_secret_value(),
        }
    return options
