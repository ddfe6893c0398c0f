"""Trace context is kept or made, and the list of metrics is whole."""

import typing

import pytest
from prometheus_client.parser import text_string_to_metric_families

from telemetry import metrics, traces

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (GIVEN, GIVEN),
        (f" {GIVEN} ", GIVEN),
        (f"cc{GIVEN[2:]}-what-a-later-version-adds", GIVEN),
        (f"{GIVEN}-more", None),
        (GIVEN.upper(), None),
        (GIVEN.replace("00f067aa0ba902b7", "0" * 16), None),
        (GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), None),
        (f"ff{GIVEN[2:]}", None),
        ("", None),
        ("00-short-00f067aa0ba902b7-01", None),
        (None, None),
    ],
)
def test_a_traceparent_is_kept_only_when_it_is_valid(header: str | None, kept: str | None) -> None:
    assert traces.parse(header) == kept


def test_a_made_traceparent_is_valid_and_new() -> None:
    first, second = traces.make(), traces.make()
    assert traces.parse(first) == first
    assert first != second
    assert traces.trace_id(GIVEN) == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_without_an_exporter_a_span_hands_on_what_it_was_given() -> None:
    with traces.span("anything", GIVEN) as handed_on:
        assert handed_on == GIVEN
    with traces.span("anything", "nonsense") as made:
        assert traces.parse(made) == made


def test_names_in_the_types_and_in_the_list_are_the_same() -> None:
    for names, listed in (
        (metrics.CounterName, metrics.COUNTERS),
        (metrics.GaugeName, metrics.GAUGES),
        (metrics.HistogramName, metrics.HISTOGRAMS),
    ):
        assert sorted(typing.get_args(names)) == sorted(metric.name for metric in listed)
    every = [metric.name for metric in metrics.all_metrics()]
    assert len(every) == len(set(every))
    assert all(metric.help for metric in metrics.all_metrics())


def test_what_was_counted_is_rendered_for_prometheus() -> None:
    own = metrics.Metrics()
    own.counter("accepted", lane="standard").inc(3)
    own.gauge("sockets").set(2)
    own.histogram("accept_seconds").observe(0.004)
    assert own.value("accepted", lane="standard") == 3
    samples = {
        (sample.name, sample.labels.get("lane")): sample.value
        for family in text_string_to_metric_families(own.render().decode())
        for sample in family.samples
    }
    assert samples["scenewire_accepted_total", "standard"] == 3
    assert samples["scenewire_sockets", None] == 2
    assert samples["scenewire_accept_seconds_count", None] == 1


def test_nobody_shows_what_it_never_set() -> None:
    own = metrics.Metrics()
    own.gauge("waiting", lane="bulk").set(4)
    shown = own.render().decode()
    assert 'scenewire_waiting{lane="bulk"} 4.0' in shown
    ours = {line.split("{")[0].split(" ")[0] for line in shown.splitlines() if line.startswith("scenewire_")}
    # a counter begins at 0: its first step must not look like its beginning
    unlabelled = {f"scenewire_{metric.name}_total" for metric in metrics.COUNTERS if not metric.labels}
    assert ours == {"scenewire_waiting", *unlabelled}
    assert own.value("sockets") == 0
    # the process's own CPU and memory go on changing
    again = own.render().decode()
    assert [line for line in again.splitlines() if "scenewire_" in line] == [
        line for line in shown.splitlines() if "scenewire_" in line
    ]


def test_a_wrong_label_is_an_error() -> None:
    with pytest.raises(ValueError):
        metrics.Metrics().counter("accepted", colour="red")
