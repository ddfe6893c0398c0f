"""What the chaos tests start their processes with."""

import contextlib
import os
from pathlib import Path

import pytest

from local import ports
from tests.chaos.nursery import Nursery, NurseryServer

pytestmark = pytest.mark.chaos


def test_a_process_is_followed_to_its_end_whatever_else_is_open(nursery: Nursery, tmp_path: Path) -> None:
    # more than select() takes
    with contextlib.ExitStack() as held:
        for _ in range(1100):
            held.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        (port,) = ports.free(1)
        server = NurseryServer(
            "modelslab",
            tmp_path / "modelslab.log",
            module="local.modelslab",
            port=port,
            environment={"PATH": os.environ["PATH"]},
            arguments=["--slots", "2", "--prerender", "1"],
            ready_path="/healthz",
            nursery=nursery,
        )
        try:
            server.start()
            assert server.is_running
            assert server.stop()
            assert server.exit_code == 0
        finally:
            server.kill()
