"""How to reach Kafka."""

import re
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# a host's name or IPv4 address, or an IPv6 address in brackets
_SERVER = re.compile(r"([^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}")


class KafkaSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SCENEWIRE_", extra="ignore", frozen=True)

    kafka_servers: str = Field(description="Kafka's bootstrap servers, host:port[,host:port]")
    namespace: str = Field(
        default="",
        pattern=r"^[a-zA-Z0-9._-]*$",
        max_length=100,
        description="prefix of topics and groups, so that several deployments can share a Kafka",
    )
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="how connections to Kafka are secured"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="PLAIN", description="how to log in to Kafka, with kafka_security SASL_PLAINTEXT or SASL_SSL"
    )
    kafka_username: str = Field(default="", description="Kafka user, with SASL")
    kafka_password: SecretStr = Field(default=SecretStr(""), description="Kafka password, with SASL")
    kafka_ca_file: str | None = Field(
        default=None, description="PEM file of the authority that signed Kafka's certificates (default: the system's)"
    )
    kafka_replication: int | None = Field(
        default=None, ge=1, description="copies of each partition in topics made here (default: 3, or all brokers)"
    )
    kafka_connect_timeout: float = Field(
        default=60.0, gt=0, description="seconds `messaging.provision` waits for Kafka before it gives up"
    )
    kafka_send_timeout: float = Field(
        default=10.0, gt=0, description="seconds until a batch that Kafka has not acknowledged counts as failed"
    )
    kafka_poll: float = Field(
        default=1.0, gt=0, description="longest single wait of a subscription for events, in seconds; no latency"
    )
    kafka_session: float = Field(
        default=10.0, gt=0, description="seconds without a heartbeat until a group gives a member's partitions away"
    )
    kafka_backoff: float = Field(
        default=5.0, gt=0, description="most seconds between two tries of what Kafka or a handler refused"
    )
    kafka_watch: float = Field(
        default=1.0, gt=0, description="seconds between two looks for new partitions of a topic read as a whole"
    )
    kafka_stall: float = Field(
        default=10.0,
        gt=0,
        description="seconds without an event, though the topic holds newer ones, until a reader is made anew",
    )

    @field_validator("kafka_servers")
    @classmethod
    def _hosts_and_ports(cls, servers: str) -> str:
        if not all(_SERVER.fullmatch(one.strip()) for one in servers.split(",")):
            raise ValueError("must be host:port[,host:port], such as kafka-1.example:9092,kafka-2.example:9092")
        return servers
