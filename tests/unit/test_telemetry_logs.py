"""One line of JSON per event, libraries' events too, and no secret in any of them."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from telemetry import logs
from telemetry.settings import TelemetrySettings, secrets_of


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = structlog.get_config()
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.configure(**before)


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_with_service_level_and_time(stream: io.StringIO) -> None:
    logs.configure(TelemetrySettings(), service="producer", stream=stream)
    structlog.get_logger().info("accepted", scene_number=7, text="two\nlines")
    (line,) = _lines(stream)
    assert line["event"] == "accepted"
    assert line["service"] == "producer"
    assert line["level"] == "info"
    assert line["scene_number"] == 7
    assert line["time"].endswith("Z")


class _Settings(TelemetrySettings):
    words: SecretStr = SecretStr("first-word, second-word")
    unset: SecretStr | None = None
    address: str = "postgresql://me:p%40ssword@db.test/x?password=another-one"


def test_every_secret_of_the_settings_is_known() -> None:
    assert secrets_of(_Settings()) == sorted(
        ["first-word, second-word", "first-word", "second-word", "p%40ssword", "p@ssword", "another-one"]
    )
    assert secrets_of(TelemetrySettings()) == []


def test_secrets_are_redacted_in_fields_messages_and_tracebacks(stream: io.StringIO) -> None:
    logs.configure(_Settings(), service="consumer", stream=stream)
    structlog.get_logger().warning("asked", authorization="Bearer abc", payload={"key": "sk-1", "prompt": "hare"})
    try:
        raise RuntimeError('provider said {"key": "sk-live-2"} for first-word at second-word, p@ssword')
    except RuntimeError:
        structlog.get_logger().exception("failed")
        logging.getLogger("some.library").error("went wrong with token=%s", "sk-live-3", exc_info=True)
    written = stream.getvalue()
    for secret in ("Bearer abc", "sk-1", "sk-live-2", "sk-live-3", "first-word", "second-word", "p@ssword"):
        assert secret not in written
    asked, failed, library = _lines(stream)
    assert asked["payload"]["prompt"] == "hare"
    assert "RuntimeError" in failed["exception"]
    assert library["logger"] == "some.library"


def test_the_level_is_a_setting_and_chatty_libraries_are_quiet(stream: io.StringIO) -> None:
    logs.configure(TelemetrySettings(log_level="warning"), service="relay", stream=stream)
    structlog.get_logger().info("not shown")
    logging.getLogger("anything").info("not shown")
    logging.getLogger("httpx").info("GET https://example.com/?key=1")
    structlog.get_logger().warning("shown")
    assert [line["event"] for line in _lines(stream)] == ["shown"]


def test_the_console_form_is_for_people(stream: io.StringIO) -> None:
    logs.configure(TelemetrySettings(log_format="console"), service="relay", stream=stream)
    structlog.get_logger().error("sent", token="abc", topic="t")
    written = stream.getvalue()
    assert "abc" not in written
    assert not written.startswith("{")
    assert "topic=t" in written


def test_a_reader_that_went_away_costs_lines_and_nothing_else(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    logs.configure(TelemetrySettings(), service="notifier", stream=Gone())
    structlog.get_logger().info("stopping")
    logging.getLogger("some.library").warning("interrupted")
    assert capsys.readouterr().err == ""
