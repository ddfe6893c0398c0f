"""The pipeline behind an accepted request, measured part by part.

    .venv/bin/python bench/pipeline.py                     # every part, three rounds, medians
    .venv/bin/python bench/pipeline.py --only relay        # one part

It starts a real Kafka and a real Postgres (fsync on) on a folder of its own, and what a part needs of our processes
with production's settings. Nothing here is a test: the machine's noise would fail it.
"""

import argparse
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import uvloop

# our rooms are run from their checkout, never installed
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import admits
import burst
import claims
import killed
import relayed
from ground import Figure, Ground, ground, raise_open_files

Measure = Callable[[Ground, argparse.Namespace], Awaitable[dict[str, float]]]

PARTS: dict[str, tuple[dict[str, Figure], Measure]] = {
    "admits": (admits.FIGURES, lambda g, a: admits.measure(g, count=a.admits)),
    "claims": (claims.FIGURES, lambda g, a: claims.measure(g, claims=a.claims, waiting=a.waiting)),
    "relay": (relayed.FIGURES, lambda g, a: relayed.measure(g, events=a.events, seconds=a.seconds)),
    "burst": (burst.FIGURES, lambda g, a: burst.measure(g, count=a.burst, latency=a.latency, tls=a.tls)),
    "killed": (killed.FIGURES, lambda g, a: killed.measure(g, kills=a.kills)),
}


def main() -> None:
    arguments = _arguments()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    print(" ".join(f"{name}={value}" for name, value in vars(arguments).items()), flush=True)
    # a topic that has just been made may have no leader yet: said at each try, and tried again
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    raise_open_files(4 * arguments.burst + 1_000)
    with ground() as servers:
        results = uvloop.run(_rounds(servers, arguments))
    _show(results)


async def _rounds(servers: Ground, arguments: argparse.Namespace) -> dict[str, list[float]]:
    results: dict[str, list[float]] = {}
    for number in range(arguments.rounds):
        for part in arguments.only or PARTS:
            print(f"round {number + 1} of {arguments.rounds}: {part} (load {os.getloadavg()[0]:.1f})", flush=True)
            began = time.monotonic()
            for name, value in (await PARTS[part][1](servers, arguments)).items():
                results.setdefault(name, []).append(value)
                print(f"    {name:58} {value:10.1f}", flush=True)
            print(f"    took {time.monotonic() - began:.0f} s", flush=True)
    return results


def _show(results: dict[str, list[float]]) -> None:
    figures = {name: figure for named, _ in PARTS.values() for name, figure in named.items()}
    print(f"\n{'':58} {'median':>9} {'min':>9} {'max':>9}  {'unit':9} {'aim':12} others")
    for name, values in results.items():
        figure = figures[name]
        aim = "" if figure.aim is None else f"{'<=' if figure.most else '>='} {figure.aim:g}"
        numbers = " ".join(f"{value:9.1f}" for value in (statistics.median(values), min(values), max(values)))
        print(f"{name:58} {numbers}  {figure.unit:9} {aim:12} {figure.others}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PARTS), help="one part; may be given more than once")
    parser.add_argument("--rounds", type=_at_least_one, default=3, help="rounds; medians are printed (default 3)")
    parser.add_argument(
        "--admits", type=_at_least_one, default=30_000, help="admits: events in each backlog (default 30000)"
    )
    parser.add_argument(
        "--claims", type=_at_least_one, default=5_000, help="claims: records claimed for the rate (default 5000)"
    )
    parser.add_argument(
        "--waiting", type=_at_least_one, default=100_000, help="claims: records that wait behind (default 100000)"
    )
    parser.add_argument(
        "--events", type=_at_least_one, default=100_000, help="relay: events in the backlog (default 100000)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="relay: length of each paced stretch (default 10)")
    parser.add_argument(
        "--burst", type=_at_least_one, default=5_000, help="burst: generations in flight at once (default 5000)"
    )
    parser.add_argument(
        "--latency", type=float, default=10.0, help="burst: seconds the provider takes to answer (default 10)"
    )
    parser.add_argument(
        "--tls", action="store_true", help="burst: submits over TLS, as ModelsLab is called (needs the openssl command)"
    )
    parser.add_argument("--kills", type=_at_least_one, default=5, help="killed: kills in a round (default 5)")
    return parser.parse_args()


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a number from 1")
    return int(text)


if __name__ == "__main__":
    main()
