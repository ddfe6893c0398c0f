"""The one place where the chaos tests' periods come from: production's own, at a tenth, as environment variables.

Some are longer than their tenth: what the machine itself needs does not shrink with them. A process that starts takes
two seconds of a core, and meanwhile its neighbours must not look dead, nor Kafka or Postgres away.
"""

from typing import Any

from consumer.settings import ConsumerSettings

SHORTER = 10.0
MINUTE = 60.0 / SHORTER
"""Seconds of a minute's outage."""

_LONGER: dict[str, str] = {
    "worker_beat": "0.2",
    "worker_life": "1.2",
    "mark_life": "0.8",
    # a process that starts beside it may keep a consumer's heartbeats waiting for a second
    "kafka_session": "2",
    "kafka_send_timeout": "3",
    "kafka_backoff": "0.5",
    "kafka_stall": "2",
    "kafka_watch": "0.3",
    "database_timeout": "2",
    "sweep": "0.2",
    "measure": "5",
    "consumer_stop_within": "10",
    "relay_poll": "0.2",
    "relay_backoff": "0.3",
    "accept_timeout": "2",
    "drain_window": "0.2",
}


def shortened() -> dict[str, str]:
    """Every period of a consumer, and those of the others that matter here."""
    inherited = {name for base in ConsumerSettings.__mro__[1:] for name in getattr(base, "model_fields", ())}
    given = {
        name: _tenth(field.default)
        for name, field in ConsumerSettings.model_fields.items()
        if name not in inherited and _is_period(field.default)
    }
    return {f"SCENEWIRE_{name.upper()}": value for name, value in {**given, **_LONGER}.items()}


def _is_period(default: Any) -> bool:
    return isinstance(default, float) or (isinstance(default, tuple) and all(isinstance(one, float) for one in default))


def _tenth(default: Any) -> str:
    return ",".join(f"{one / SHORTER:g}" for one in (default if isinstance(default, tuple) else (default,)))
