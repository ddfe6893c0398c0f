"""Where jobs outlive a restart of the simulator, as they do at the provider: a file of one JSON line a job.

It is rewritten at each start: what is older than two weeks goes (about as long as ModelsLab was seen to keep pictures),
and so does a line that a kill cut short. Webhooks are not in it: their addresses hold a receiver's token.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from local.modelslab.clock import Clock
from local.modelslab.job import Job
from local.modelslab.orders import Order
from local.modelslab.script import Action

KEPT = 14 * 86_400.0


class Journal:
    """A file of jobs. `read` first, then `add`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._out: TextIO | None = None

    def read(self, clock: Clock) -> list[Job]:
        """The jobs kept, oldest first, their times on this clock; the file is tidied and open from here on."""
        jobs = list(self._jobs(clock))
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_name(f"{self._file.name}.new")
        fresh.write_text("".join(_line(job) for job in jobs))
        os.replace(fresh, self._file)
        self._out = self._file.open("a")
        return jobs

    def add(self, job: Job) -> None:
        if self._out is not None:
            self._out.write(_line(job))
            self._out.flush()

    def clear(self) -> None:
        if self._out is not None:
            self._out.truncate(0)

    def close(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None

    def _jobs(self, clock: Clock) -> Iterator[Job]:
        try:
            lines = self._file.read_text().splitlines()
        except FileNotFoundError:
            return
        now, wall = clock.monotonic(), clock.wall()
        for line in lines:
            try:
                job = _job(json.loads(line), now, wall)
            except (ValueError, KeyError, TypeError):
                continue  # cut short, or of another version of this file
            if job.created > wall - KEPT:
                yield job


def _line(job: Job) -> str:
    kept = {
        "id": job.id,
        "owner": job.owner,
        "order": asdict(job.order) | {"webhook": None},
        "action": job.action.model_dump(exclude_defaults=True),
        "seed": job.seed,
        "created": job.created,
        "lasts": None if job.action.outcome == "never" else job.ready_at - job.made_at,
        "charged": job.charged,
    }
    return json.dumps(kept) + "\n"


def _job(kept: dict[str, Any], now: float, wall: float) -> Job:
    made_at = now - (wall - kept["created"])
    return Job(
        id=kept["id"],
        owner=kept["owner"],
        order=Order(**kept["order"]),
        action=Action.model_validate(kept["action"]),
        seed=kept["seed"],
        created=kept["created"],
        made_at=made_at,
        ready_at=float("inf") if kept["lasts"] is None else made_at + kept["lasts"],
        charged=kept["charged"],
    )
