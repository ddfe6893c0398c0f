"""Every metric there is: one typed list, so that a name that is not on it is a type error.

    metrics.count("accepted", lane="standard")
    metrics.gauge("sockets", 12)
    metrics.observe("accept_seconds", 0.004)

All names are exported with the prefix `scenewire_` (counters with `_total`). A label's values are a closed set of our
own words (lanes, classes, outcomes, route templates), never an id, a URL or anything a caller chose.

A gauge or histogram is exported by the processes that set it: a 0 from one that knows nothing of it would be a lie. A
counter without labels is exported from the start, so that its first step is seen as one.
"""

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

CounterName = Literal[
    "http_requests", "accepted", "accept_refused", "outbox_sent", "outbox_send_failures", "events", "dispatched",
    "attempts", "completed", "failed", "retries", "deferrals", "breaker_opened", "takeovers", "uncertain", "fenced",
    "poison", "storing_repeats", "picture_bytes", "status_events", "frames", "snapshots", "sockets_closed", "sweeps",
    "streams_dropped", "thumbnails", "webhooks", "late_answers", "readers_renewed",
    "jwks_fetches",
]  # fmt: skip
GaugeName = Literal[
    "outbox_rows", "outbox_oldest_seconds", "relay_active", "slots", "waiting", "oldest_waiting_seconds", "running",
    "workers_alive", "breakers_open", "sockets", "subscriptions", "long_polls", "event_streams", "dependency_up",
    "loop_age_seconds",
]  # fmt: skip
HistogramName = Literal[
    "http_seconds", "accept_seconds", "accept_batch", "admit_batch", "outbox_seconds", "provider_seconds",
    "storing_seconds", "generation_seconds", "push_seconds", "database_seconds",
]  # fmt: skip

_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LONG: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _QUICK


COUNTERS: Final[tuple[Metric, ...]] = (
    Metric("http_requests", "HTTP requests answered", ("method", "route", "status")),
    Metric("accepted", "requests put on record", ("lane",)),
    Metric(
        "accept_refused",
        "requests not put on record: replayed, key_reused, unknown_reference, unavailable",
        ("reason",),
    ),
    Metric("outbox_sent", "outbox rows that Kafka confirmed", ("topic",)),
    Metric("outbox_send_failures", "sends that failed or timed out; their rows stay in the outbox"),
    Metric(
        "events", "events read from Kafka by outcome: admitted, woken, ignored, invalid, poison", ("topic", "outcome")
    ),
    Metric("dispatched", "claims given to workers", ("lane",)),
    Metric("attempts", "attempts closed, by outcome", ("model", "outcome")),
    Metric("completed", "image generations completed", ("lane",)),
    Metric("failed", "image generations that died", ("error_class",)),
    Metric("retries", "counted failures that wait for their next attempt", ("error_class",)),
    Metric("deferrals", "attempts put off without counting", ("reason",)),
    Metric("breaker_opened", "breakers opened by a failure noted here: provider, model", ("scope",)),
    Metric("takeovers", "records taken over from a dead worker"),
    Metric("uncertain", "attempts that were sent and not answered"),
    Metric("fenced", "writes refused because the claim had gone to another worker"),
    Metric("poison", "events that could not be read", ("topic",)),
    Metric("storing_repeats", "downloads or puts repeated after the provider's success", ("reason",)),
    Metric("picture_bytes", "bytes of pictures stored"),
    Metric("status_events", "status events read for pushing: pushed, unwatched, old, poison", ("outcome",)),
    Metric("frames", "frames written to sockets"),
    Metric("snapshots", "snapshots answered, by where they resumed", ("resumed",)),
    Metric("sockets_closed", "sockets closed by us", ("code",)),
    Metric("streams_dropped", "streams of server-sent events whose readers did not read"),
    Metric("sweeps", "sweeps run, by outcome", ("outcome",)),
    Metric(
        "thumbnails", "thumbnails: made, not_stored (made all the same), refused (of a broken picture)", ("outcome",)
    ),
    Metric("webhooks", "webhooks of the provider: noted, ignored, unreadable, unavailable", ("outcome",)),
    Metric(
        "late_answers",
        "ids that only webhooks named: confirmed, refuted, failed; pictures of ended records: kept, addresses",
        ("outcome",),
    ),
    Metric(
        "readers_renewed",
        "readers of Kafka made anew: silent, left_out of their group, other_log (Kafka lost its data)",
        ("reason",),
    ),
    Metric("jwks_fetches", "readings of the published keys: fetched, failed", ("outcome",)),
)
GAUGES: Final[tuple[Metric, ...]] = (
    Metric("outbox_rows", "rows that wait in the outbox"),
    Metric("outbox_oldest_seconds", "age of the oldest row in the outbox"),
    Metric("relay_active", "1 for the relay that holds the lock, 0 for a standby"),
    Metric("slots", "provider slots: free, used, resting; the same in every consumer", ("state",)),
    Metric("waiting", "records that wait for dispatch; the same in every consumer", ("lane",)),
    Metric("oldest_waiting_seconds", "age of the oldest of these; 0 when none waits", ("lane",)),
    Metric("running", "tasks of this worker", ("stage",)),
    Metric("workers_alive", "consumer processes that report alive; the same in every consumer"),
    Metric("breakers_open", "open breakers: provider (0 or 1), model; the same in every consumer", ("scope",)),
    Metric("sockets", "open sockets"),
    Metric("subscriptions", "subscriptions on open sockets"),
    Metric("long_polls", "polls that are held"),
    Metric("event_streams", "open streams of server-sent events"),
    Metric("dependency_up", "1 while a dependency answers", ("name",)),
    Metric("loop_age_seconds", "time since a loop of this process last made progress", ("name",)),
)
HISTOGRAMS: Final[tuple[Metric, ...]] = (
    Metric("http_seconds", "from request to the end of its answer", ("route",)),
    Metric("accept_seconds", "from a valid request to its commit"),
    Metric("accept_batch", "requests in one commit", buckets=_SIZES),
    Metric("admit_batch", "events in one admission", buckets=_SIZES),
    Metric("outbox_seconds", "from a row's insertion to Kafka's confirmation", buckets=_LONG),
    Metric("provider_seconds", "from submit to the provider's outcome", ("model",), buckets=_LONG),
    Metric("storing_seconds", "from the provider's success to the stored picture", buckets=_LONG),
    Metric("generation_seconds", "from request to completion", ("lane",), buckets=_LONG),
    Metric("push_seconds", "from a change's commit to its frame"),
    Metric("database_seconds", "one statement or transaction, also one that failed", ("kind",)),
)


class Metrics:
    """The whole list in one registry. Any thread may use it."""

    def __init__(self) -> None:
        # else every counter and histogram comes with a second series that tells when it began
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._families: dict[str, Any] = {}
        # labels() takes a lock and checks names: a child is looked up there once
        self._children: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()
        for metric in COUNTERS:
            if not metric.labels:
                self._child(metric.name, {})

    def counter(self, name: CounterName, /, **labels: str) -> Counter:
        return self._child(name, labels)  # type: ignore[no-any-return]

    def gauge(self, name: GaugeName, /, **labels: str) -> Gauge:
        return self._child(name, labels)  # type: ignore[no-any-return]

    def histogram(self, name: HistogramName, /, **labels: str) -> Histogram:
        return self._child(name, labels)  # type: ignore[no-any-return]

    def value(self, name: CounterName | GaugeName, /, **labels: str) -> float:
        """What a counter or gauge shows now, 0 when nobody set it; for tests and health."""
        child = self._children.get((name, *labels.items()))
        return 0.0 if child is None else float(child._value.get())

    def render(self) -> bytes:
        """The text exposition format, version 0.0.4."""
        return generate_latest(self.registry)

    def _child(self, name: str, labels: dict[str, str]) -> Any:
        key = (name, *labels.items())
        child = self._children.get(key)
        if child is None:
            family = self._family(name)
            child = self._children[key] = family.labels(**labels) if labels else family
        return child

    def _family(self, name: str) -> Any:
        with self._lock:
            family = self._families.get(name)
            if family is None:
                family = self._families[name] = _made(_listed()[name], self.registry)
            return family


def _made(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    full = f"scenewire_{metric.name}"
    if metric in HISTOGRAMS:
        return Histogram(full, metric.help, metric.labels, registry=registry, buckets=metric.buckets)
    kind = Counter if metric in COUNTERS else Gauge
    return kind(full, metric.help, metric.labels, registry=registry)


@cache
def _listed() -> dict[str, Metric]:
    return {metric.name: metric for metric in all_metrics()}


@cache
def of_process() -> Metrics:
    """This process's metrics, made at first use."""
    return Metrics()


class Tally:
    """Observations of one histogram, told together: its locks and its search for a bucket cost each of thousands a
    second dear. For one thread."""

    def __init__(self, histogram: Histogram) -> None:
        self._sum = histogram._sum
        self._buckets = histogram._buckets
        self._bounds = histogram._upper_bounds
        self._begin()

    def observe(self, value: float) -> None:
        # a bucket takes what is at most its bound, the last one whatever there is
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def tell(self) -> None:
        """From now on the histogram has what was observed here."""
        counts, total = self._counts, self._total
        self._begin()
        if any(counts):
            self._sum.inc(total)
            for bucket, number in zip(self._buckets, counts, strict=True):
                if number:
                    bucket.inc(number)

    def _begin(self) -> None:
        self._counts = [0] * len(self._buckets)
        self._total = 0.0


def count(name: CounterName, amount: float = 1.0, /, **labels: str) -> None:
    of_process().counter(name, **labels).inc(amount)


def gauge(name: GaugeName, value: float, /, **labels: str) -> None:
    of_process().gauge(name, **labels).set(value)


def observe(name: HistogramName, value: float, /, **labels: str) -> None:
    of_process().histogram(name, **labels).observe(value)


def all_metrics() -> Sequence[Metric]:
    return (*COUNTERS, *GAUGES, *HISTOGRAMS)
