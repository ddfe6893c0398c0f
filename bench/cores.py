"""A server that is measured has one core to itself; what loads it has the other."""

import argparse
import contextlib
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from ground import Ground, ground, running

from local.python import PythonServer

SERVER_CORE, LOAD_CORE = 0, 1


def pin(pid: int | None, core: int) -> None:
    """All threads that a process has now; those it makes later come after their maker."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(thread), {core})


def announce(asked: argparse.Namespace) -> None:
    """Say what is measured where, and keep the logs of this process out of it."""
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    print(json.dumps(vars(asked)), flush=True)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


@contextmanager
def apart(*, kafka: bool = True) -> Iterator[Ground]:
    """The servers that all measurements share, on the loading core with this process; `kafka`: Kafka too. Otherwise it
    has both, as in production: without what makes its start quick and its work slow."""
    with ground(quick=kafka) as servers:
        for server in (servers.kafka, servers.postgres) if kafka else (servers.postgres,):
            pin(server.pid, LOAD_CORE)
        os.sched_setaffinity(0, {LOAD_CORE})
        yield servers


@contextmanager
def alone(server: PythonServer) -> Iterator[None]:
    """Started, with a core to itself, and stopped at the end."""
    with running(server):
        pin(server.pid, SERVER_CORE)
        yield
