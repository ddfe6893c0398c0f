"""How the provider behaves for a while in the long run: scripts for its simulator, by name."""

from collections.abc import Mapping, Sequence
from typing import Any

_FETCH = {"call": "fetch", "per": "job"}
_WORK: dict[str, Any] = {
    "answer": "processing",
    "latency": {"median": 0.3, "p99": 2},
    "duration": {"median": 3, "p99": 12},
    "webhook": {"lost": 0.3, "duplicated": 0.2, "delay": {"low": 0, "high": 2}},
}
_AT_ONCE: dict[str, Any] = {"answer": "success", "latency": {"low": 0.5, "high": 4}}

ORDINARY: Sequence[dict[str, Any]] = (
    {"probability": 0.25, "action": _AT_ONCE},
    {"action": _WORK},
)

MOODS: Mapping[str, Sequence[dict[str, Any]]] = {
    "has a bad day": (
        {"probability": 0.1, "action": {"answer": "error", "fault": "unavailable"}},
        {"probability": 0.05, "action": {"answer": "error", "fault": "bad_gateway"}},
        {"probability": 0.05, "action": {"answer": "reset"}},
        {"probability": 0.05, "action": {"answer": "reset", "created": True, "duration": 3}},
        {"probability": 0.1, "action": {**_WORK, "outcome": "failed", "fault": "try_again"}},
        {"probability": 0.05, "action": {**_WORK, "output": "empty"}},
        {**_FETCH, "first": 1, "probability": 0.2, "action": {"answer": "error", "fault": "bad_gateway"}},
        {"call": "picture", "probability": 0.2, "action": {"answer": "error", "fault": "unavailable"}},
    ),
    "answers after the submit timeout": (
        {"times": 4, "action": {"answer": "success", "latency": 130}},
        {"times": 2, "action": {**_WORK, "latency": 130}},
    ),
    "turns away": ({"probability": 0.3, "action": {"answer": "error", "fault": "rate_limited"}},),
    "is down (503)": (
        {"action": {"answer": "error", "fault": "unavailable"}},
        {"call": "fetch", "action": {"answer": "error", "fault": "unavailable"}},
    ),
    "refuses the key": ({"action": {"answer": "error", "fault": "invalid_key"}},),
    "has lost a model": (
        {"model": "seedream-4", "action": {"answer": "error", "fault": "model_unavailable"}},
        {"model": "imagen-4.0-ultra", "action": {"answer": "error", "fault": "model_unavailable"}},
    ),
    "gives no pictures": ({"call": "picture", "action": {"answer": "error", "fault": "bad_gateway"}},),
}
"""Rules that come before the ordinary ones."""
