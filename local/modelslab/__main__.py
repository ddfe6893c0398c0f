"""`python -m local.modelslab`: the simulator as a process of its own."""

import argparse
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import uvicorn
from pydantic import SecretStr, ValidationError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from local.modelslab.app import build
from local.modelslab.provider import CUT
from local.modelslab.settings import ProfileName, SimulatorSettings

_METAVARS = {"public_url": "URL", "journal": "FILE", "allowed_origins": "ORIGINS"}


class CuttingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a way for the application to cut its connection as a broken network does."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CUT: {"abort": self._cut}}

    def _cut(self) -> None:
        # lingering for 0 s turns the close into a reset, which no client can mistake for an end of the answer
        if (sock := self.transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's server, whose process ends with 0 after SIGTERM or Ctrl-C: uvicorn itself raises the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("must be a number from 0 to 65535")
    return int(text)


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    fields = SimulatorSettings.model_fields
    parser = argparse.ArgumentParser(
        prog="python -m local.modelslab",
        description="A simulator of ModelsLab's image API. Every option can also come as SCENEWIRE_SIMULATOR_<NAME>.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8703, help="port to listen on (default: %(default)s)")
    kinds: dict[str, Any] = {"slots": int, "seed": int, "prerender": int, "picture_cache_mb": int, "retry_after": float}
    for name, field in fields.items():
        choices = get_args(ProfileName) if name == "profile" else None
        shown = "" if field.default is None else f" (default: {field.default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kinds.get(name, str),
            choices=choices,
            metavar=None if choices else "N" if name in kinds else _METAVARS.get(name),
            default=None,
            help=f"{field.description}{shown}",
        )
    return parser.parse_args(arguments)


def main() -> None:
    given = {name: value for name, value in vars(options()).items() if value is not None}
    host, port = given.pop("host"), given.pop("port")
    if "key" in given:
        given["key"] = SecretStr(given["key"])
    try:
        settings = SimulatorSettings(**given)
    except ValidationError as refused:
        for fault in refused.errors(include_input=False, include_url=False, include_context=False):
            sys.stderr.write(f"--{str(fault['loc'][0]).replace('_', '-')}: {fault['msg']}\n")
        sys.exit(2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses, and a webhook's address holds a token
    try:
        listener = socket.create_server((host, port), backlog=4096)
    except OSError as refused:
        why = os.strerror(refused.errno) if refused.errno else str(refused)
        sys.exit(f"Cannot listen on {host}:{port} ({why}): end what listens there or choose another --port.")
    config = uvicorn.Config(
        build(settings),
        loop="uvloop",
        http=CuttingProtocol,
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    port = listener.getsockname()[1]
    print(
        f"ModelsLab simulator on http://{host}:{port}, profile {settings.profile}, {settings.slots} slots", flush=True
    )
    Server(config).run(sockets=[listener])
    # a picture that is being drawn is nobody's any more, and the interpreter would wait for its thread
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
