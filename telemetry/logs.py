"""Logs on stdout: JSON, one line per event, unless stdout is a terminal (then coloured lines for a person).

Events of ours come through structlog (`structlog.get_logger().info("accepted", record_id=...)`), those of libraries
through the standard library; both are rendered alike and both are redacted, tracebacks included.
"""

import contextlib
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO, cast

import structlog
from structlog.typing import Processor

from telemetry.redaction import redact_value, remember
from telemetry.settings import TelemetrySettings, secrets_of

# at INFO these write a line per request, heartbeat or start-up step, or name full URLs
_CHATTY = ("httpx", "httpcore", "uvicorn", "aiokafka", "faststream", "asyncio", "alembic", "websockets", "botocore")


class _Lossy:
    """A stream whose reader may go away or whose disk may be full: then lines are lost, and nothing else.

    Without it the line that says that a process stops would keep it from stopping.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure(settings: TelemetrySettings, *, service: str, stream: TextIO | None = None) -> None:
    """Once per process, in `__main__`. `service` is put on each event; the secrets among `settings` are never shown."""
    stream = stream or sys.stdout
    lossy = cast(TextIO, _Lossy(stream))
    remember(*secrets_of(settings))
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    console = settings.log_format == "console" or (settings.log_format == "auto" and stream.isatty())

    def name_service(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        name_service,
    ]
    # the traceback becomes text before redaction, so that an exception's message is redacted too
    rendered: list[Processor] = [
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact_event,
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), timestamp_key="time")
        if console
        else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=lossy),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(lossy)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)


def redact_event(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """The last processor before the renderer."""
    return {name: redact_value(value, name) for name, value in event.items()}
