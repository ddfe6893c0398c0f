"""A picture store that is full, or may not be written (PIPELINE T, D2).

Storing is tried again, nothing is generated twice, and what is to be stored keeps no slot.
"""

import asyncio
import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.connected.steps import request
from tests.flow.living import PERIODS, STALL, alive_for, asked
from tests.flow.working import PNG, line_of, settings_of

pytestmark = [pytest.mark.chaos, pytest.mark.connected]

SLOTS = 2
MOST_STORING = 4 * SLOTS


@dataclass
class Store:
    """A folder that takes nothing until `mend`."""

    folder: Path
    mend: Callable[[], object]


@pytest.fixture(params=["full", "closed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    folder = tmp_path / "store"
    folder.mkdir()
    if request.param == "closed":
        if os.geteuid() == 0:
            pytest.skip("permissions do not bind root")
        folder.chmod(0o500)
        yield Store(folder, lambda: folder.chmod(0o700))
        folder.chmod(0o700)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no file system may be mounted here")
    try:
        ballast = folder / "ballast"
        _fill(ballast)
        yield Store(folder, ballast.unlink)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(OSError) as full:
        (ballast.parent / "more").write_bytes(b"x" * 4096)
    assert full.value.errno == errno.ENOSPC
    (ballast.parent / "more").unlink()


async def test_storing_waits_for_room_and_generating_goes_on(
    store: Store, database_url: str, kafka_servers: str, namespace: str
) -> None:
    settings = settings_of(
        database_url,
        kafka_servers,
        namespace,
        store.folder,
        admit_after=0.001,
        provider_slots=SLOTS,
        storing_retry=0.2,
        storing_retry_longest=1.0,
        **PERIODS,
    )
    async with line_of(settings, topics=False) as line:
        running = line.start()
        records = [await line.ask(request(scene=scene)) for scene in range(1, 13)]

        async def held_back() -> bool:
            (row,) = await line.steps.sql(
                "SELECT count(*) FILTER (WHERE stage = 'storing') AS storing,"
                " count(*) FILTER (WHERE status = 'pending') AS waiting FROM image_generations"
            )
            return bool(row.storing >= MOST_STORING and row.storing + row.waiting == len(records))

        await line.until(held_back)
        submits = len(line.provider.submits)
        assert MOST_STORING <= submits < MOST_STORING + SLOTS
        assert await line.steps.used() == 0
        tries, began = len(line.pictures.asked), time.monotonic()
        health = running.consumer.health
        await alive_for(health, 2 * STALL)
        # again and again, each in its own time, and nothing is made anew or begun
        assert submits == len(line.provider.submits)
        again = len(line.pictures.asked) - tries
        took = time.monotonic() - began
        assert submits <= again <= submits * (took / settings.storing_retry_longest + 3)
        if store.folder.joinpath("ballast").exists():

            async def nothing_else() -> bool:
                return [path.name for path in store.folder.rglob("*") if path.is_file()] == ["ballast"]

            # what did not fit is not left lying about: what is just being tried is gone again
            await line.until(nothing_else)

        store.mend()
        for record_id in records:
            row = await line.ended(record_id)
            assert (row.attempt, row.retry_count) == (1, 0)
            assert (store.folder / row.image_key).read_bytes() == PNG
        assert len(line.provider.submits) == len(records)
        assert (await asked(health, "/healthz")).status_code == 200
        await asyncio.wait_for(running.stopped(), 20)
