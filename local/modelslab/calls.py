"""The log of submits and fetches: what a test or a person counts to know what was paid."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

CALLS_KEPT = 100_000


@dataclass(slots=True)
class Call:
    """One call. `http_status` and `answer` are None while it is open, and stay so when the connection was cut;
    `references` is the number of reference pictures of a submit to image-to-image.
    """

    number: int
    time: float
    kind: Literal["submit", "fetch"]
    model: str | None = None
    prompt: str | None = None
    track_id: str | None = None
    id: int | None = None
    http_status: int | None = None
    answer: str | None = None
    charged: bool = False
    rule: str = ""
    references: int = 0

    def shown(self) -> dict[str, Any]:
        return {
            "n": self.number,
            "time": datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds"),
            "kind": self.kind,
            "model": self.model,
            "prompt": self.prompt,
            "references": self.references,
            "track_id": self.track_id,
            "id": self.id,
            "http_status": self.http_status,
            "answer": self.answer,
            "charged": self.charged,
            "rule": self.rule,
        }


@dataclass(slots=True)
class Counters:
    """Since the start or the last reset."""

    submits: int = 0
    fetches: int = 0
    pictures: int = 0
    charged: int = 0
    rate_limited: int = 0
    in_flight_max: int = 0
    webhooks_sent: int = 0
    webhooks_lost: int = 0
    webhooks_failed: int = 0


class CallLog:
    """The last 100,000 calls, and counters over all of them."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.calls: deque[Call] = deque(maxlen=CALLS_KEPT)
        self.counters = Counters()
        self._number = 0

    def submit(self, time: float) -> Call:
        self.counters.submits += 1
        return self._open(Call(self._number + 1, time, "submit"))

    def fetch(self, time: float) -> Call:
        self.counters.fetches += 1
        return self._open(Call(self._number + 1, time, "fetch"))

    def _open(self, call: Call) -> Call:
        self._number += 1
        self.calls.append(call)
        return call
