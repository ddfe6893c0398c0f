"""The ratios that the guarantees rest on: settings that break one do not start a consumer."""

from typing import Any

import pytest
from pydantic import ValidationError

from consumer.settings import ConsumerSettings
from telemetry.settings import load

_GIVEN: dict[str, Any] = {
    "database_url": "postgresql://user@host/database",
    "kafka_servers": "kafka.test:9092",
    "jwt_secret": "0123456789abcdef0123456789abcdef",
    "modelslab_api_key": "any",
    "media_url": "file:///pictures",
}


def _settings(**changes: Any) -> ConsumerSettings:
    return ConsumerSettings.model_validate({**_GIVEN, **changes})


def test_the_defaults_hold_and_cost_nothing() -> None:
    assert _settings().costs == []


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"worker_beat": 1.6}, ("SCENEWIRE_WORKER_LIFE (3)", "SCENEWIRE_WORKER_BEAT (1.6)")),
        ({"mark_life": 3.0}, ("SCENEWIRE_WORKER_LIFE (3)", "SCENEWIRE_MARK_LIFE (3)")),
        ({"uncertain_after": 1.9}, ("SCENEWIRE_UNCERTAIN_AFTER (1.9)", "SCENEWIRE_MARK_LIFE (2)")),
        ({"storing_retry": 31.0}, ("SCENEWIRE_STORING_RETRY_LONGEST (30)", "SCENEWIRE_STORING_RETRY (31)")),
        ({"run_deadline": 90_000.0}, ("SCENEWIRE_DEADLINE (86400)", "SCENEWIRE_RUN_DEADLINE (90000)")),
        ({"bulk_deadline": 90_000.0}, ("SCENEWIRE_DEADLINE (86400)", "SCENEWIRE_BULK_DEADLINE (90000)")),
    ],
)
def test_a_broken_ratio_is_refused_and_both_variables_are_named(
    changes: dict[str, float], names: tuple[str, str]
) -> None:
    with pytest.raises(ValidationError) as refused:
        _settings(**changes)
    (fault,) = refused.value.errors()
    for name in names:
        assert name in fault["msg"]


@pytest.mark.parametrize("delays", ["5,4", "0,5", "-1"])
def test_retry_delays_must_rise(delays: str) -> None:
    with pytest.raises(ValidationError, match="must not fall from one retry to the next"):
        _settings(retry_delays=delays)


def test_equal_delays_and_none_at_all_are_allowed() -> None:
    assert _settings(retry_delays="5,5").retry_delays == (5.0, 5.0)
    assert _settings(retry_delays=()).retry_delays == ()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"drain": 4.0}, ("SCENEWIRE_DRAIN (4)", "SCENEWIRE_SUBMIT_TIMEOUT (120)")),
        ({"run_deadline": 60.0}, ("SCENEWIRE_RUN_DEADLINE (60)", "SCENEWIRE_SUBMIT_TIMEOUT (120)")),
    ],
)
def test_what_only_costs_money_is_allowed_and_told(changes: dict[str, float], names: tuple[str, str]) -> None:
    (cost,) = _settings(**changes).costs
    for name in names:
        assert name in cost


def test_each_broken_ratio_is_one_line_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**_GIVEN, "worker_life": 1.0, "storing_retry": 60.0}.items():
        monkeypatch.setenv(("" if name.startswith("modelslab") else "SCENEWIRE_") + name.upper(), str(value))
    with pytest.raises(SystemExit, match="2"):
        load(ConsumerSettings)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["SCENEWIRE_WORKER_LIFE"] * 2 + ["SCENEWIRE_STORING_RETRY_LONGEST"]
