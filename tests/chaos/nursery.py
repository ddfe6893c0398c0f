"""Our processes, forked from one that has imported all they need: 0.05 s of CPU each in place of two seconds.

Each is a process of its own, in its own session, with its own environment and log, and runs the same `__main__`; it can
be killed, paused and stopped as any. The nursery itself is started with this very module and asked over a socket.
"""

import ctypes
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from local.python import CHECKOUT, PythonServer, PythonStep
from local.server import Child, Command, Server

# not what is run: it runs anew in each, and runpy warns of one that is there already
_PRELOADED = (
    "consumer.app",
    "local.modelslab.app",
    "messaging.provision",
    "notifier.app",
    "producer.app",
    "producer.relay_settings",
    "storage.migrate",
    "storage.outbox",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)
_LONGEST = 1_000_000
_PR_SET_PDEATHSIG = 1


@dataclass(eq=False)
class _Forked:
    """One process of the nursery, whose end comes over `line`."""

    pid: int
    line: socket.socket = field(repr=False)
    returncode: int | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def poll(self) -> int | None:
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def _look(self, timeout: float | None) -> int | None:
        # whoever comes second finds what the first was told
        if self.returncode is None and self._has_news(timeout):
            with self._turn:
                if self.returncode is None:
                    said = self.line.recv(_LONGEST)
                    # nothing: the nursery has gone, and its processes with it
                    self.returncode = json.loads(said)["code"] if said else -signal.SIGKILL
                    self.line.close()
        return self.returncode

    def _has_news(self, timeout: float | None) -> bool:
        # select() takes no descriptor above 1023, and hundreds of pages may be open beside this
        poll = select.poll()
        try:
            poll.register(self.line, select.POLLIN)
        except ValueError:
            # closed by whoever was told first
            return True
        return bool(poll.poll(None if timeout is None else timeout * 1000))


@dataclass(eq=False)
class Nursery(Server):
    """Launch it from a thread that outlives what it starts; whoever asks first waits until it has imported all."""

    def command(self) -> Command:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)}
        return Command([sys.executable, "-u", "-m", __name__, str(self._path)], environment, folder=CHECKOUT)

    @property
    def _path(self) -> Path:
        return self.log.with_suffix(".sock")

    def is_ready(self) -> bool:
        return self._path.exists()

    def fork(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> Child:
        self.wait_ready()
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.connect(str(self._path))
        asked = {"module": module, "arguments": list(arguments), "environment": dict(environment)}
        socket.send_fds(line, [json.dumps(asked).encode()], [output.fileno()])
        return _Forked(json.loads(line.recv(_LONGEST))["pid"], line)


@dataclass(eq=False)
class NurseryServer(PythonServer):
    """A `PythonServer` that a nursery starts."""

    nursery: Nursery = field(kw_only=True, repr=False)

    def _spawn(self, output: IO[bytes]) -> Child:
        listener = ["--host", "127.0.0.1", "--port", str(self.port)]
        return self.nursery.fork(self.module, [*listener, *self.arguments], self.environment, output)


@dataclass(eq=False)
class NurseryStep(PythonStep):
    """A `PythonStep` that a nursery starts."""

    nursery: Nursery = field(kw_only=True, repr=False)

    def _spawn(self, output: IO[bytes]) -> Child:
        return self.nursery.fork(self.module, self.arguments, self.environment, output)


class _Births:
    """The nursery's own loop."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._lines: dict[int, socket.socket] = {}

    def next_child(self) -> dict[str, Any]:
        """Returns in a new child, with what it is to be; never in the nursery."""
        with _children_wake() as woken:
            while True:
                ready, _, _ = select.select([self._listener, woken], [], [])
                if woken in ready:
                    os.read(woken, 4096)
                    self._tell_ends()
                if self._listener in ready and (asked := self._fork(self._listener.accept()[0])):
                    return asked

    def _fork(self, line: socket.socket) -> dict[str, Any] | None:
        """What was asked on `line`, in the child; None in the nursery."""
        said, (output,), _, _ = socket.recv_fds(line, _LONGEST, 1)
        if pid := os.fork():
            os.close(output)
            self._lines[pid] = line
            line.send(json.dumps({"pid": pid}).encode())
            return None
        os.setsid()
        for number in (1, 2):
            os.dup2(output, number)
        os.close(output)
        for other in (line, self._listener, *self._lines.values()):
            other.close()
        asked: dict[str, Any] = json.loads(said)
        return asked

    def _tell_ends(self) -> None:
        for pid in list(self._lines):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with self._lines.pop(pid) as line:
                    line.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())


@contextmanager
def _children_wake() -> Iterator[int]:
    """A pipe that can be read when a child has ended; the child that is forked meanwhile knows nothing of it."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(reading)
        os.close(writing)


def _become(asked: Mapping[str, Any], parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = [asked["module"], *asked["arguments"]]
    module = asked["module"]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main(path: str) -> None:
    for module in _PRELOADED:
        importlib.import_module(module)
    if threading.active_count() > 1:
        sys.exit("a thread was started by an import: a fork would leave it behind")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # there under its name only when it takes calls
    listener.bind(f"{path}.new")
    listener.listen(64)
    os.rename(f"{path}.new", path)
    parent = os.getpid()
    _become(_Births(listener).next_child(), parent)


if __name__ == "__main__":
    main(sys.argv[1])
