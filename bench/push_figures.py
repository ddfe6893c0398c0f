"""What `bench/push.py` finds, and what each of it is to be."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`aim` is of the ratio to the usual pattern where `ratio`, else of the figure itself."""

    words: str
    unit: str
    aim: float | None = None
    ratio: bool = True
    most: bool = True


FIGURES = {
    "idle_rss": Figure("memory of an idle socket, welcomed", "KB", 5.0, ratio=False),
    "subscribed_rss": Figure("memory of an idle socket, with a chapter of its own", "KB", 5.0, ratio=False),
    "connect": Figure("connect alone: handshake, HS256 not cached, welcome", "us CPU", 0.35),
    "subscribe": Figure("subscribe, with the snapshot's query where there is one", "us CPU"),
    "resume": Figure("connect and subscribe, HS256 not cached, no query: from a cursor", "us CPU", 0.35),
    "fan_cpu": Figure("one event to the crowd: a delivery", "us CPU", 0.4),
    "fan_last": Figure("one event to the crowd: the last has it after", "ms", 0.5),
    "burst_rate": Figure("burst of 60 events to the crowd: deliveries", "k/s", 4.0, most=False),
    "burst_cpu": Figure("burst of 60 events to the crowd: a delivery", "us CPU"),
    "targeted_cpu": Figure("targeted at the high rate, Kafka included: an event", "us CPU", 0.75),
    "targeted_sent_p50": Figure("targeted at the high rate: sent by the producer to frame, p50", "ms"),
    "targeted_p50": Figure("targeted at the high rate: Kafka append to frame, p50", "ms"),
    "targeted_p99": Figure("targeted at the high rate: Kafka append to frame, p99", "ms"),
    "low_cpu": Figure("targeted at the low rate, Kafka included: an event", "us CPU"),
    "low_sent_p50": Figure("targeted at the low rate: sent by the producer to frame, p50", "ms"),
    "low_p50": Figure("targeted at the low rate: Kafka append to frame, p50", "ms", 1.5, ratio=False),
    "low_p99": Figure("targeted at the low rate: Kafka append to frame, p99", "ms", 10.0, ratio=False),
}


def show(results: dict[str, dict[str, list[float]]]) -> None:
    print("\n| what | unit | " + " | ".join(results) + " | ratio | aim |\n" + "| --- " * (4 + len(results)) + "|")
    for name, figure in FIGURES.items():
        sides = [found.get(name) for found in results.values()]
        if not any(sides):
            continue
        cells = [f"{statistics.median(v):.3g} ({min(v):.3g} to {max(v):.3g})" if v else "" for v in sides]
        ratio = ""
        if len(sides) == 2 and sides[0] and sides[1]:
            ratio = f"{statistics.median(sides[0]) / statistics.median(sides[1]):.2f}"
        aim = "" if figure.aim is None else f"{'<=' if figure.most else '>='} {figure.aim:g}"
        aim += " of the ratio" if aim and figure.ratio else ""
        print(f"| {figure.words} | {figure.unit} | " + " | ".join(cells) + f" | {ratio} | {aim} |")
