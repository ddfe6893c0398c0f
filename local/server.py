"""A program that serves: a direct child in its own session; waited for until ready, stopped, started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

_TETHER = Path(__file__).with_name("tether.py")


@dataclass(frozen=True, slots=True)
class Account:
    """The system user a program runs as."""

    user_id: int
    group_id: int


@dataclass(frozen=True, slots=True)
class Command:
    """How a program is started. `environment` is all of it: nothing is inherited."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    account: Account | None = None
    folder: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM


class NotReady(Exception):
    """The server did not become ready; its log says why."""


class Child(Protocol):
    """What is asked of a process that was started, as of a `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int, /) -> None: ...


@dataclass(eq=False)
class Server:
    """One child process. Start it from a thread that lives as long as it should: see `local.tether`.

    Subclasses say how it is prepared, started and asked whether it is ready. All calls block; none needs an event loop.
    """

    name: str
    log: Path
    _process: Child | None = field(default=None, init=False, repr=False)

    def prepare(self) -> None:
        """Bring the server's data into being. Does nothing when they exist."""

    def command(self) -> Command:
        raise TypeError(f"{type(self).__name__} does not say how it is started")

    def is_ready(self) -> bool:
        """Ask the running server once whether it can serve; takes a second at most."""
        return True

    @property
    def http_url(self) -> str | None:
        """Where it speaks HTTP, without trailing slash; None where it does not."""
        return None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs and before it was started; negative for a signal's number."""
        return self._process.poll() if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process without waiting for it. Its output is appended to `log`."""
        if self.is_running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = self._spawn(output)

    def _spawn(self, output: IO[bytes]) -> Child:
        return spawn(self.command(), output)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Raises NotReady when the process ends, or after `timeout` seconds."""
        process = self._process
        if process is None:
            raise NotReady(f"{self.name} was not started")
        until = time.monotonic() + timeout
        while not self.is_ready():
            if not self._alive_for(0.02):
                raise NotReady(f"{self.name} ended with {process.returncode} before it was ready; see {self.log}")
            if time.monotonic() > until:
                raise NotReady(f"{self.name} was not ready within {timeout:g} s; see {self.log}")

    def start(self, timeout: float = 60.0) -> None:
        """Prepare, launch and wait until ready."""
        self.prepare()
        self.launch()
        self.wait_ready(timeout)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process runs; SIGSTOP and SIGCONT reach its whole session."""
        if not self.is_running:
            return
        assert self._process is not None
        if number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL):
            _signal_group(self._process.pid, number)
        else:
            self._process.send_signal(number)

    def ask_to_stop(self) -> None:
        self.signal(self.command().stop_signal)

    def wait_stopped(self, timeout: float) -> bool:
        """Whether it ended within `timeout` seconds."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, timeout: float = 10.0) -> bool:
        """Ask it to stop, and end it after `timeout` seconds. False when it had to be ended."""
        self.ask_to_stop()
        if self.wait_stopped(timeout):
            return True
        self.kill()
        return False

    def kill(self, *, wait: float = 5.0) -> None:
        """SIGKILL to its whole session, waited for."""
        self.signal(signal.SIGKILL)
        self.wait_stopped(wait)

    def pause(self) -> None:
        """Stop it in its tracks: connections stay open and nothing answers."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def _alive_for(self, seconds: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False


def _signal_group(process_id: int, number: signal.Signals) -> None:
    # a child leads its own session, so its process group has its number; by the group a paused postmaster's children
    # are paused too, and a killed one leaves nothing behind
    try:
        os.killpg(process_id, number)
    except (ProcessLookupError, PermissionError):
        try:
            os.kill(process_id, number)
        except ProcessLookupError:
            return


def tethered(command: Command) -> list[str]:
    """The command line that starts `command` so that it dies with this process (Linux) and as its own user."""
    account = command.account
    user = [str(account.user_id), str(account.group_id)] if account else ["-", "-"]
    return [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *user, *command.arguments]


def spawn(command: Command, output: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        tethered(command),
        env=dict(command.environment),
        cwd=command.folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def run_once(command: Command, *, step: str, given: str = "") -> str:
    """Run a preparing program to its end and return its output; raises NotReady with its last lines when it fails.

    `given` is its standard input.
    """
    done = subprocess.run(
        tethered(command),
        env=dict(command.environment),
        cwd=command.folder,
        input=given.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise NotReady(f"{step} failed ({done.returncode}): {' / '.join(text.strip().splitlines()[-3:])}")
    return text
