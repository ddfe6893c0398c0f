"""`python -m local` as people use it: one start, what is said, a death in between, the stop, and the start after it."""

import asyncio
import os
import select
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from local import ports
from local.python import CHECKOUT
from tests.supervised import Local, free_base

pytestmark = pytest.mark.flow

NAMES = ["kafka", "postgres", "simulator", "producer", "relay", "consumer-1", "notifier-1"]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    running = Local(tmp_path, free_base())
    yield running
    if running.process is not None:
        running.process.kill()
        running.process.wait()


async def _count_images(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM image_generations"))
    finally:
        await connection.close()


def _watches(ready: dict[str, Any]) -> list[int]:
    return [os.pidfd_open(process["pid"]) for process in ready["processes"]]


def _all_ended(watches: list[int], timeout: float = 10) -> bool:
    """Whether every watched process is gone; closes the watches."""
    waiting = set(watches)
    while waiting:
        ended, _, _ = select.select(waiting, [], [], timeout)
        if not ended:
            break
        waiting -= set(ended)
    for watch in watches:
        os.close(watch)
    return not waiting


def test_a_day_with_the_local_service(local: Local) -> None:
    local.start()
    ready = local.ready()
    assert [process["name"] for process in ready["processes"]] == NAMES
    assert ready["api"] == f"http://127.0.0.1:{local.base}"
    for process in ready["processes"]:
        if process["url"] is not None:
            with urllib.request.urlopen(f"{process['url']}/healthz", timeout=5) as answer:
                assert answer.status == 200
    assert asyncio.run(_count_images(ready["database"])) == 0

    # a second one is told, in one line
    second = subprocess.run(local.command(), cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "is in use by another `python -m local`" in second.stderr
    # and one on the same ports, with another state
    other = [*local.command()[:3], "--state", str(local.state.parent / "other"), "--ports", str(local.base)]
    third = subprocess.run(other, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert third.returncode == 1
    assert third.stderr.startswith("Ports ")
    assert local.ready_file.exists()

    # what dies comes back, on its port, and the ready file says so
    relay = next(process for process in ready["processes"] if process["name"] == "relay")
    os.kill(relay["pid"], signal.SIGKILL)
    said = local.read_until(lambda line: "relay" in line and "back" in line)
    assert any("was ended by signal 9; starting it again in 0.2 s" in line for line in said)
    after = next(process for process in local.now()["processes"] if process["name"] == "relay")
    assert after["pid"] != relay["pid"]
    assert after["url"] == relay["url"]

    # it stops cleanly and leaves nothing
    watches = _watches(local.now())
    assert local.stop(signal.SIGINT) == 0
    assert _all_ended(watches)
    assert not local.ready_file.exists()

    # the next start finds who it was; killed, it leaves nothing either
    local.start()
    again = local.ready()
    same = ("jwt_secret", "user_id", "chapter_id", "database", "api")
    assert {name: again[name] for name in same} == {name: ready[name] for name in same}
    watches = _watches(again)
    assert local.process is not None
    local.process.kill()
    local.process.wait()
    assert _all_ended(watches)


def test_a_stop_in_the_middle_of_the_start(local: Local) -> None:
    local.start()
    local.read_until(lambda line: "postgres" in line and "ready" in line)
    assert local.stop() == 0
    assert not local.ready_file.exists()
    assert ports.taken(range(local.base, local.base + 40)) == []
