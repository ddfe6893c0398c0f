"""Our own processes as servers: `python -m MODULE`, ready when `/readyz` says so."""

import http.client
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.server import Command, Server

CHECKOUT = Path(__file__).resolve().parent.parent
_HOST = "127.0.0.1"


@dataclass(eq=False)
class PythonServer(Server):
    """One of our processes, listening on loopback."""

    module: str = field(kw_only=True)
    port: int = field(kw_only=True)
    environment: Mapping[str, str] = field(kw_only=True, repr=False)
    arguments: Sequence[str] = field(default=(), kw_only=True)
    ready_path: str = field(default="/readyz", kw_only=True)

    @property
    def http_url(self) -> str:
        return f"http://{_HOST}:{self.port}"

    def command(self) -> Command:
        listener = ["--host", _HOST, "--port", str(self.port)]
        return python(self.module, [*listener, *self.arguments], self.environment)

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=1.0)
        try:
            connection.request("GET", self.ready_path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass(eq=False)
class PythonStep(Server):
    """One of our commands that does its work and ends; done when it ends with 0."""

    module: str = field(kw_only=True)
    environment: Mapping[str, str] = field(kw_only=True, repr=False)
    arguments: Sequence[str] = field(default=(), kw_only=True)

    def command(self) -> Command:
        return python(self.module, self.arguments, self.environment)


def python(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Command:
    """`python -m module`, from the checkout, with this interpreter."""
    # unbuffered: what a killed process had printed is in its log
    return Command([sys.executable, "-u", "-m", module, *arguments], environment, folder=CHECKOUT)
