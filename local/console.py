"""What a person sees in the terminal: one calm line per event, and the logs' warnings as they are written."""

import json
import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Echo = Literal["all", "warnings", "none"]

_WIDTH = 12
_DIM, _BOLD, _RED, _YELLOW, _PLAIN = "2", "1", "31", "33", "0"
_SEVERE = {"warning": _YELLOW, "error": _RED, "critical": _RED, "exception": _RED}
_SHOWN_BEFORE = ("time", "timestamp", "level", "event", "logger", "service")
_SAID_AGAIN_AFTER = 30.0  # seconds; an outage makes a client repeat one sentence many times a second
# the Kafka client complains at every group's first start; what matters of an outage our processes say themselves
_CLIENT = "aiokafka"
# what Postgres writes before each line differs in every one, though they say the same: time, process, application
_POSTGRES_PREFIX = re.compile(r"\d{4}-\d\d-\d\d [\d:.]+ \w+ \[\d+\] \S* ")
# the JVM warns at every start, and Postgres writes ERROR for each statement a client got wrong
_PLAIN_TROUBLE = (" ERROR ", " FATAL", "FATAL:", "PANIC:", "Exception", "OutOfMemory", "Traceback", "Error: ")


class Console:
    """Writes lines to standard output; a terminal that went away is no reason to stop."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def line(self, name: str, words: str) -> None:
        """One event of one component, with the time of day."""
        self._write(f"  {self._paint(time.strftime('%H:%M:%S'), _DIM)}  {name:<{_WIDTH}} {words}")

    def trouble(self, name: str, words: str) -> None:
        self.line(name, self._paint(words, _YELLOW))

    def text(self, words: str = "") -> None:
        self._write(words)

    def heading(self, words: str) -> None:
        self._write(self._paint(words, _BOLD))

    def echo(self, name: str, line: str, *, severity: str | None) -> None:
        """A line of a process's log."""
        self.line(name, self._paint(line, _SEVERE.get(severity or "", _DIM)))

    def _paint(self, words: str, code: str) -> str:
        return f"\x1b[{code}m{words}\x1b[{_PLAIN}m" if self._colour else words

    def _write(self, words: str) -> None:
        try:
            print(words, flush=True)
        except (BrokenPipeError, OSError):
            # point it elsewhere, or the interpreter complains once more at its own end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(slots=True)
class Follower:
    """Echoes what is appended to one log file since it was last looked at."""

    name: str
    log: Path
    _position: int = 0
    _rest: bytes = b""
    _said: dict[str, float] = field(default_factory=dict)

    def follow(self, console: Console, echo: Echo) -> None:
        try:
            with self.log.open("rb") as file:
                file.seek(self._position)
                fresh = file.read()
        except FileNotFoundError:
            return
        self._position += len(fresh)
        *lines, self._rest = (self._rest + fresh).split(b"\n")
        for raw in lines:
            line = raw.decode(errors="replace").rstrip()
            severity, words = self._read(line)
            if words and (echo == "all" or (severity is not None and self._is_news(words))):
                console.echo(self.name, words, severity=severity)

    def _is_news(self, words: str) -> bool:
        now = time.monotonic()
        if now - self._said.get(words, -_SAID_AGAIN_AFTER) < _SAID_AGAIN_AFTER:
            return False
        self._said = {said: when for said, when in self._said.items() if now - when < _SAID_AGAIN_AFTER}
        self._said[words] = now
        return True

    def _read(self, line: str) -> tuple[str | None, str]:
        """The severity of a line worth a person's attention (else None), and the line as a person reads it."""
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            severity = "error" if any(mark in line for mark in _PLAIN_TROUBLE) else None
            return severity, _POSTGRES_PREFIX.sub("", line, count=1)
        level = str(entry.get("level", "info"))
        if str(entry.get("logger", "")).startswith(_CLIENT):
            level = "info"
        rest = " ".join(f"{name}={value}" for name, value in entry.items() if name not in _SHOWN_BEFORE)
        return (level if level in _SEVERE else None), f"{entry.get('event', '')}  {rest}".strip()
