"""The state folder: who we are on this machine, what runs, where data and logs lie. One supervisor at a time."""

import fcntl
import json
import os
import secrets
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import jwt

_TOKEN_LIFE = 30 * 24 * 3600  # seconds


class StateInUse(Exception):
    """Another supervisor works on this state folder."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What scripts and pages are given to call the service with; the same at every start."""

    jwt_secret: str
    user_id: str
    chapter_id: str

    def token(self, *, audience: str | None) -> str:
        """A bearer token of `user_id`, HS256, good for 30 days."""
        now = int(time.time())
        claims: dict[str, object] = {"sub": self.user_id, "iat": now, "exp": now + _TOKEN_LIFE}
        if audience:
            claims["aud"] = audience
        return jwt.encode(claims, self.jwt_secret, algorithm="HS256")


class State:
    """`folder` and what is in it. `open` locks it; a second supervisor gets StateInUse."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.media = folder / "media"
        self._lock: IO[str] | None = None

    def open(self) -> None:
        for folder in (self.folder, self.logs, self.media):
            folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise StateInUse(
                f"{self.folder} is in use by another `python -m local` (process {holder}). "
                "Stop that one, or give this one a folder and ports of its own: --state DIR --ports BASE"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock  # held until this process ends, however it ends

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def turn_logs(self) -> None:
        """Keep the logs of the run before as `*.log.1`."""
        for log in self.logs.glob("*.log"):
            log.replace(log.with_suffix(".log.1"))

    def identity(self) -> Identity:
        """Read, or made up at the first start."""
        file = self.folder / "identity.json"
        if not file.exists():
            fresh = {
                "jwt_secret": secrets.token_urlsafe(48),
                "user_id": str(uuid.uuid4()),
                "chapter_id": str(uuid.uuid4()),
            }
            write_private(file, json.dumps(fresh, indent=2) + "\n")
        known = json.loads(file.read_text())
        return Identity(known["jwt_secret"], known["user_id"], known["chapter_id"])


def write_private(file: Path, text: str) -> None:
    """Write a file that only we may read, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as output:
        output.write(text)
        output.flush()
        os.fsync(output.fileno())
    unfinished.replace(file)
