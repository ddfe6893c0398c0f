"""`python -m local` under a test's hand: started, read, stopped."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local import ports
from local.python import CHECKOUT


class Local:
    """One `python -m local` on a state folder and ports of its own."""

    def __init__(self, folder: Path, base: int) -> None:
        self.state = folder / "state"
        self.base = base
        self.process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    @property
    def ready_file(self) -> Path:
        return self.state / "ready.json"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "local", "--state", str(self.state), "--ports", str(self.base)]

    def start(self) -> None:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("SCENEWIRE_", "MODELSLAB_"))}
        self.process = subprocess.Popen(self.command(), cwd=CHECKOUT, env=plain, stdout=subprocess.PIPE, text=True)
        self._lines = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(self.process, self._lines), daemon=True).start()

    def read_until(self, condition: Callable[[str], bool], timeout: float = 120) -> list[str]:
        """What it says until a line fits; fails when it says nothing for `timeout` seconds or ends."""
        said: list[str] = []
        while not said or not condition(said[-1]):
            line = self._lines.get(timeout=timeout)
            assert line, "".join(said)
            said.append(line)
        return said

    def ready(self) -> dict[str, Any]:
        self.read_until(lambda line: "Stop with Ctrl-C" in line)
        return self.now()

    def now(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.ready_file.read_text())
        return content

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=10)


def _pass_on(process: subprocess.Popen[str], lines: "queue.SimpleQueue[str]") -> None:
    """Each line it says, and an empty one at the end."""
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            lines.put(line)
    lines.put("")


def free_base() -> int:
    """The first of forty ports that nobody listens on."""
    return next(base for base in range(21000, 32000, 100) if not ports.taken(range(base, base + 40)))
