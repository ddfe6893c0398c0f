"""docs/configuration.md: every variable that a process reads, from the settings classes."""

import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from consumer.deadletters_settings import DeadLettersSettings
from consumer.settings import ConsumerSettings
from local.modelslab.settings import SimulatorSettings
from media.settings import MediaSettings
from messaging.settings import KafkaSettings
from notifier.settings import PushSettings
from notifier.settings import Settings as NotifierSettings
from producer.relay_settings import RelaySettings
from producer.settings import ProducerSettings
from storage.settings import DatabaseSettings
from telemetry.settings import TelemetrySettings
from web.settings import HealthSettings, WebSettings

PROCESSES: dict[str, type[BaseSettings]] = {
    "producer": ProducerSettings,
    "relay": RelaySettings,
    "consumer": ConsumerSettings,
    "notifier": NotifierSettings,
    "migrate": DatabaseSettings,
    "provision": KafkaSettings,
    "deadletters": DeadLettersSettings,
    "simulator": SimulatorSettings,
}

_SECTIONS: tuple[tuple[str, str, type[BaseSettings]], ...] = (
    ("Postgres", "", DatabaseSettings),
    ("Kafka", "", KafkaSettings),
    ("Pictures", "", MediaSettings),
    (
        "Addresses, tokens and origins",
        "Producer, consumer and notifier must be given the same. They do not start without a secret or keys to verify "
        "tokens with.",
        WebSettings,
    ),
    ("Health", "", HealthSettings),
    ("Logs", "", TelemetrySettings),
    ("Producer", "", ProducerSettings),
    ("Relay", "", RelaySettings),
    ("Consumer and provider", "", ConsumerSettings),
    ("Notifier", "", PushSettings),
    (
        "Simulator",
        "`python -m local.modelslab`; each is a command-line option too. `make run` sets slots, journal and origins.",
        SimulatorSettings,
    ),
)

_HEAD = """\
<!-- Written by `make docs` from the settings classes. Do not edit. -->

# Configuration

Every process reads its settings from the environment, once, when it starts. What is wrong or missing is named, one line
each, and the process ends with exit code 2; the value itself is never shown. All periods are seconds and may be
fractions. `python -m local` (`make run`) hands every `SCENEWIRE_*` and `MODELSLAB_*` variable of its own on to each
process, and sets those that are required. Address and port of a listener are options of the command line: `--host`,
`--port`.
"""

_LIBRARIES = (
    (
        "`OTEL_EXPORTER_OTLP_ENDPOINT`",
        "producer, relay, consumer, notifier",
        "a collector for traces (OTLP over HTTP); unset: no spans are made, and only `traceparent` is handed on",
    ),
    (
        "other `OTEL_*`",
        "likewise",
        "read by the OpenTelemetry SDK where an endpoint is set: `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, "
        "`OTEL_RESOURCE_ATTRIBUTES` and the rest",
    ),
    (
        "`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT`, `AWS_ALLOW_HTTP` and the rest",
        "consumer, notifier",
        "for `SCENEWIRE_MEDIA_URL=s3://...`; likewise `GOOGLE_*` for `gs://` and `AZURE_*` for `az://`, as obstore "
        "reads them",
    ),
    (
        "`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`",
        "consumer",
        "a proxy on the way to the provider and its pictures; it resolves their hosts' names, so let it refuse to "
        "connect to your own network (without one the consumer itself does)",
    ),
    (
        "`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`",
        "producer, notifier",
        "a proxy on the way to the issuer's published keys, and the authorities that may vouch for its host",
    ),
)


@dataclass(frozen=True, slots=True)
class Variable:
    """One row. `default` is what is shown: never a secret's."""

    name: str
    kind: str
    default: str
    meaning: str
    processes: tuple[str, ...]


def render() -> str:
    """The file's text."""
    parts = [_HEAD]
    seen: set[str] = set()
    for title, words, settings in _SECTIONS:
        declared = [one for one in variables(settings) if one.name not in seen]
        seen |= {one.name for one in declared}
        rows = [
            f"| `{one.name}` | {one.kind} | {one.default} | {', '.join(one.processes)} | {one.meaning} |"
            for one in declared
        ]
        table = "\n".join(
            ["| variable | type | default | read by | meaning |", "| --- | --- | --- | --- | --- |", *rows]
        )
        parts.append("\n\n".join(filter(None, [f"## {title}", words, table])) + "\n")
    others = ["| variable | read by | meaning |", "| --- | --- | --- |", *map(" | ".join, _LIBRARIES)]
    rows = [line if line.startswith("|") else f"| {line} |" for line in others]
    return "\n".join([*parts, "## Read by libraries\n", *rows]) + "\n"


def variables(settings: type[BaseSettings]) -> Iterator[Variable]:
    """What this class itself declares, not what it inherits."""
    for field, info in settings.model_fields.items():
        if field in inspect.get_annotations(settings):
            yield Variable(
                name=variable_of(settings, field, info),
                kind=_kind(info),
                default=_default(info),
                meaning=_cell(info.description or ""),
                processes=tuple(name for name, read in PROCESSES.items() if _reads(read, settings, field, info)),
            )


def variable_of(settings: type[BaseSettings], field: str, info: FieldInfo) -> str:
    """The environment's name of a field."""
    if isinstance(info.validation_alias, AliasChoices):
        return str(info.validation_alias.choices[0])
    return f"{settings.model_config.get('env_prefix', '')}{field}".upper()


def _reads(process: type[BaseModel], settings: type[BaseSettings], field: str, info: FieldInfo) -> bool:
    own = process.model_fields.get(field)
    if own is None or not issubclass(process, BaseSettings):
        return False
    return variable_of(process, field, own) == variable_of(settings, field, info)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    value = info.default
    if value is None or value == "" or _is_secret(info.annotation) or value is PydanticUndefined:
        return "unset"
    if isinstance(value, tuple):
        return f"`{','.join(f'{one:g}' for one in value)}`"
    return f"`{value:g}`" if isinstance(value, float) and value < 1e5 else f"`{value}`"


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or SecretStr in get_args(annotation)


_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", SecretStr: "secret"}


def _kind(info: FieldInfo) -> str:
    annotation: Any = info.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = [one for one in get_args(annotation) if one is not type(None)]
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "numbers, separated by commas"
    return _WORDS[annotation] + _limits(info)


def _limits(info: FieldInfo) -> str:
    bounds = {
        name: getattr(limit, name) for limit in info.metadata for name in ("gt", "ge", "le") if hasattr(limit, name)
    }
    match bounds:
        case {"ge": low, "le": high}:
            return f", {low} to {high}"
        case {"ge": low}:
            return f", {low} or more"
        case {"gt": low}:
            return f" above {low}"
    return ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").rstrip(".")
