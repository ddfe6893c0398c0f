"""Creates the topics of schemas/topics.py and checks those that exist. Run it as often as you like, twice at once too.

A topic with fewer partitions than listed is grown: receivers go by an event's `sequence`, so the moved keys do no harm.
More partitions than listed are fine. Retention, clean-up and message size that differ are reported and left alone: they
may be somebody's decision.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidPartitionsError, KafkaError, TopicAlreadyExistsError, for_code

from messaging.names import client_options, real_topic
from messaging.settings import KafkaSettings
from schemas.topics import BY_NAME, TOPICS, Topic
from telemetry.settings import load

log = structlog.get_logger()

_DEAD_LETTER_BYTES = 4 * 1024 * 1024
_REQUEST_SECONDS = 15.0
_LOOK_AGAIN_SECONDS = 0.1
PROVIDE_SECONDS = 10.0
"""For Kafka to answer when a running process misses a topic."""


class KafkaAway(Exception):
    """Kafka does not answer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and done, about one topic. `fit`: nothing is left to do; `changed`: by us, just now."""

    topic: str
    text: str
    fit: bool
    changed: bool = False

    def __str__(self) -> str:
        return f"{self.topic}: {self.text}"


async def provision(
    settings: KafkaSettings,
    *,
    check: bool = False,
    topics: Sequence[Topic] = TOPICS,
    waiting: Callable[[], object] = lambda: None,
) -> list[Finding]:
    """Make `topics` what they should be; with `check` only look. One finding a topic, in the order given.

    Calls `waiting` once where Kafka is not there yet. Raises `KafkaAway` when it does not answer within
    `kafka_connect_timeout` seconds.
    """
    async with _admin(settings, waiting) as admin:
        try:
            async with asyncio.timeout(settings.kafka_connect_timeout):
                return await _provision(admin, settings, topics, check=check)
        except (KafkaError, OSError, TimeoutError) as error:
            raise KafkaAway(_away(settings, error)) from error


async def provide(settings: KafkaSettings, names: Iterable[str]) -> None:
    """Make topics that a running process misses, as far as schemas/topics.py lists them: Kafka may have lost its data.

    Raises `KafkaAway`, also when we may not make topics: then somebody else has to.
    """
    listed = [BY_NAME[name] for name in names if name in BY_NAME]
    if listed:
        patient = settings.model_copy(update={"kafka_connect_timeout": PROVIDE_SECONDS})
        for finding in await provision(patient, topics=listed):
            if finding.changed:
                log.warning("topic_made", topic=finding.topic, what=finding.text)


async def _provision(admin: Any, settings: KafkaSettings, topics: Sequence[Topic], *, check: bool) -> list[Finding]:
    real = {topic.name: real_topic(settings, topic.name) for topic in topics}
    found = await _partitions(admin, real.values())
    missing = [topic for topic in topics if real[topic.name] not in found]
    short = [topic for topic in topics if 0 < found.get(real[topic.name], 0) < topic.partitions]
    if not check:
        if missing:
            await _create(admin, settings, missing)
        for topic in short:
            await _grow(admin, real[topic.name], topic.partitions)
        if missing or short:
            await _visible(admin, {real[topic.name]: topic.partitions for topic in (*missing, *short)})
    standing = [topic for topic in topics if topic not in missing]
    configs = await _configs(admin, [real[topic.name] for topic in standing]) if standing else {}

    def finding(topic: Topic) -> Finding:
        name = real[topic.name]
        if topic in missing:
            if check:
                return Finding(name, "missing; run `python -m messaging.provision`", fit=False)
            return Finding(name, f"created with {topic.partitions} partitions", fit=True, changed=True)
        different = [
            f"{key} is {configs[name].get(key)}, expected {value}"
            for key, value in _expected(topic).items()
            if configs[name].get(key) != value
        ]
        grown = ""
        if topic in short:
            if check:
                different.insert(0, f"{found[name]} partitions, expected {topic.partitions}")
            else:
                grown = f"grown from {found[name]} to {topic.partitions} partitions"
        if different:
            text = "; ".join([*([grown] if grown else []), *different])
            return Finding(name, f"{text} (left as it is; change it with kafka-configs.sh)", False, bool(grown))
        return Finding(name, grown or "as expected", fit=True, changed=bool(grown))

    return [finding(topic) for topic in topics]


def _expected(topic: Topic) -> dict[str, str]:
    expected = {"retention.ms": str(topic.retention_ms), "cleanup.policy": "delete"}
    if topic.name.startswith("scene-images.dead-"):
        # a dead letter carries the bytes that killed it, and headers: more than the topic it came from could hold
        expected["max.message.bytes"] = str(_DEAD_LETTER_BYTES)
    return expected


@asynccontextmanager
async def _admin(settings: KafkaSettings, waiting: Callable[[], object]) -> AsyncIterator[Any]:
    admin = None
    told = False
    try:
        async with asyncio.timeout(settings.kafka_connect_timeout):
            while True:
                admin = AIOKafkaAdminClient(
                    **client_options(settings), request_timeout_ms=round(_REQUEST_SECONDS * 1000)
                )
                try:
                    await admin.start()
                    break
                except (KafkaError, OSError):
                    await admin.close()
                    if not told:
                        told = True
                        waiting()
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    except TimeoutError as error:
        raise KafkaAway(_away(settings, error)) from error
    try:
        yield admin
    finally:
        try:
            async with asyncio.timeout(2):
                await admin.close()
        except (TimeoutError, KafkaError, OSError):
            pass


def _away(settings: KafkaSettings, error: BaseException) -> str:
    return (
        f"Kafka at {settings.kafka_servers} did not answer within {settings.kafka_connect_timeout:g} s"
        f" ({type(error).__name__}): start it, or set SCENEWIRE_KAFKA_SERVERS to where it is"
    )


async def _partitions(admin: Any, names: Iterable[str]) -> dict[str, int]:
    """Topic -> how many of its partitions have a leader; a topic that does not exist is absent."""
    described = await admin.describe_topics(list(names))
    return {
        entry["topic"]: sum(1 for partition in entry["partitions"] if partition["leader"] >= 0)
        for entry in described
        if entry["error_code"] == 0
    }


async def _visible(admin: Any, wanted: dict[str, int]) -> None:
    """Wait until every broker's clients can use what was just made."""
    while True:
        found = await _partitions(admin, wanted)
        if all(found.get(name, 0) >= partitions for name, partitions in wanted.items()):
            return
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


async def _create(admin: Any, settings: KafkaSettings, topics: Sequence[Topic]) -> None:
    brokers = len((await admin.describe_cluster())["brokers"])
    response = await admin.create_topics(
        [
            NewTopic(
                real_topic(settings, topic.name),
                topic.partitions,
                settings.kafka_replication or max(1, min(3, brokers)),
                topic_configs=_expected(topic),
            )
            for topic in topics
        ]
    )
    for name, code, *rest in response.topic_errors:
        # somebody else made it in the same moment
        if code not in (0, TopicAlreadyExistsError.errno):
            detail = rest[0] if rest else ""
            raise for_code(code)(f"topic {name} was not created: {detail}")


async def _grow(admin: Any, name: str, partitions: int) -> None:
    try:
        await admin.create_partitions({name: NewPartitions(total_count=partitions)})
    except InvalidPartitionsError:
        # grown by somebody else in the same moment
        if (await _partitions(admin, [name])).get(name, 0) < partitions:
            raise


async def _configs(admin: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    return {
        name: {entry[0]: entry[1] for entry in entries}
        for response in responses
        for _, _, _, name, entries in response.resources
    }


def main(argv: Sequence[str] | None = None, *, say: Callable[[str], object] = print) -> int:
    """The command line; returns its exit code: 0 all is well, 1 something differs, 2 Kafka is away."""
    parser = argparse.ArgumentParser(
        prog="python -m messaging.provision",
        description="Create Scenewire's Kafka topics and check those that exist. Safe to repeat.",
        epilog="Exit code: 0 all topics are as expected, 1 something differs, 2 Kafka did not answer. "
        "Reads SCENEWIRE_KAFKA_SERVERS, SCENEWIRE_NAMESPACE and the other SCENEWIRE_KAFKA_* variables.",
    )
    parser.add_argument("--check", action="store_true", help="look only, change nothing")
    arguments = parser.parse_args(argv)
    settings = load(KafkaSettings)

    def waiting() -> None:
        say(f"Waiting for Kafka at {settings.kafka_servers} (up to {settings.kafka_connect_timeout:g} s) ...")

    try:
        findings = asyncio.run(provision(settings, check=arguments.check, waiting=waiting))
    except KafkaAway as error:
        say(str(error))
        return 2
    for finding in findings:
        say(str(finding))
    return 0 if all(finding.fit for finding in findings) else 1


if __name__ == "__main__":
    # the client complains at every try; we say once that we wait, and once that it was in vain
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    sys.exit(main())
