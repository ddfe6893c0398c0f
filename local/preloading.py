"""Kafka's classes, read and linked once and kept in a file: each later start of Kafka takes half the time.

`python -m local.preloading` makes the file where it is missing; `make setup` calls it. The wheel's Java comes without
the archive of its own classes that other distributions have, so a start without the file reads 8,000 classes anew. A
file that this Java or these jars were not the origin of is passed over by Java (JEP 483, JEP 514), never an error.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from local import jars, ports
from local.kafka import Kafka
from local.server import NotReady

_LONGEST = 180.0


def make() -> None:
    """One start of a Kafka on an empty folder, and what it loaded put into the file. Raises NotReady."""
    kept = jars.preloaded()
    if kept.exists():
        return
    print("Preparing Kafka's start, once ...", flush=True)
    for old in kept.parent.glob(f"*{kept.suffix}"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="scenewire-preloading-") as name:
        folder = Path(name)
        unfinished = kept.with_suffix(".unfinished")
        port, controller_port = ports.free(2)
        kafka = Kafka(
            "kafka",
            folder / "log",
            folder=folder / "kafka",
            port=port,
            controller_port=controller_port,
            options=[f"-XX:AOTCacheOutput={unfinished}"],
        )
        kafka.start()
        # written at its end
        if not kafka.stop(_LONGEST) or not unfinished.exists():
            raise NotReady(f"Java wrote no {unfinished.name}: {(folder / 'log').read_text()[-300:]}")
        unfinished.rename(kept)
    print(f"Kafka's classes are in {kept.name}, {kept.stat().st_size / 1e6:.0f} MB.", flush=True)


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m local.preloading",
        description="Make the file that Kafka's classes are loaded from, in .cache/kafka, where it is missing. Kafka "
        "starts without it too, in twice the time.",
        epilog="Exit status: 0 when it is there, 1 when not.",
    ).parse_args()
    try:
        make()
    except (NotReady, OSError) as error:
        sys.exit(f"Kafka's start could not be prepared: {error}")
