"""What a killed supervisor left running. On Linux children die with it; elsewhere the next start ends them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from local.server import Server
from local.state import write_private

_PATIENCE = 5.0  # seconds for a killed process to be gone


def record(file: Path, servers: Sequence[Server]) -> None:
    """Note which processes run, and with which command line: a process number alone may later be somebody else's."""
    running = [
        {"name": server.name, "pid": server.pid, "command": list(server.command().arguments)}
        for server in servers
        if server.is_running
    ]
    write_private(file, json.dumps(running) + "\n")


def end(file: Path) -> list[str]:
    """End what is still running of it and return the names. Nothing is done twice: the note is removed."""
    try:
        noted = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return []
    found = [entry for entry in noted if _is_running(entry["pid"], entry["command"])]
    for entry in found:
        try:
            os.killpg(entry["pid"], signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    until = time.monotonic() + _PATIENCE
    while any(_is_running(entry["pid"], entry["command"]) for entry in found) and time.monotonic() < until:
        os.sched_yield()
    file.unlink(missing_ok=True)
    return [entry["name"] for entry in found]


def _is_running(process_id: int, command: list[str]) -> bool:
    """Whether that number still is that command."""
    if sys.platform == "linux":
        try:
            shown = Path(f"/proc/{process_id}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return shown.rstrip(b"\0").split(b"\0") == [os.fsencode(word) for word in command]
    asked = ["ps", "-ww", "-p", str(process_id), "-o", "command="]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == " ".join(command)
