"""uvicorn inside a process of ours: its own signals, its own stop, its own way to say that a port is taken.

    def main() -> int:
        arguments = serving.parser("producer", "Accepts requests.", port=8700).parse_args()
        return serving.run(lambda stop: serve_it(arguments, stop), stop_within=10)

`run` gives the coroutine an event that SIGTERM and SIGINT set; when the coroutine has not returned `stop_within`
seconds later (Kafka or Postgres gone, a client that never reads), the process leaves all the same.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from web.lines import HttpProtocol

log = structlog.get_logger()

EXIT_LATE = 70
"""Exit code of a process that had to leave without having finished its stop."""
_BACKLOG = 2048
_GC_THRESHOLDS = (5_000, 10, 100)
_GRACE = 5.0
_OPEN_FILES = 65_536
# longer than the idle time of common proxies (nginx 60 s), so that the proxy closes first and no request is lost
_KEEP_ALIVE = 75


class StartFailed(Exception):
    """The process cannot start; the message says why and what to do. `run` prints it and exits with 1."""


def parser(program: str, description: str, *, port: int) -> argparse.ArgumentParser:
    """The command line that every process has."""
    made = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=description,
        epilog="Settings are read from the environment: see docs/configuration.md.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--host", default="127.0.0.1", help="address to listen on")
    made.add_argument("--port", type=_port, default=port, help="port to listen on; 0 takes a free one")
    return made


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("must be a number from 0 to 65535")
    return int(text)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet, so that a taken port is known before anything else is opened.

    Raises `StartFailed`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        # a second binder is only refused once the first one listens
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StartFailed(
            f"Cannot listen on {host}:{port} ({reason}). Stop what uses the port or choose another with --port."
        ) from None
    bound.setblocking(False)
    return bound


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would raise the signal again after a clean stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _not_cancelled(record: logging.LogRecord) -> bool:
    """Requests that are cut off at the end of a stop's grace are no errors worth a traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


async def serve(
    app: ASGIApp,
    bound: socket.socket,
    stop: asyncio.Event,
    *,
    grace: float = _GRACE,
    ws: Callable[..., asyncio.Protocol] | None = None,
    started: Callable[[], None] | None = None,
) -> None:
    """Serve `app` on a socket of `bind` until `stop` is set, beside whatever else runs in this loop.

    At the stop no connection is taken any more, running requests get `grace` seconds, then the application's lifespan
    ends. `ws` makes the protocol of a connection that asks to become a WebSocket, from uvicorn's `config`,
    `server_state` and `app_state`; without it nobody may. Raises `StartFailed` when the lifespan does not start.
    """
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none" if ws is None else ws,  # type: ignore[arg-type]
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=grace,  # type: ignore[arg-type]
    )
    server = _Server(config)

    async def stop_it() -> None:
        await stop.wait()
        server.should_exit = True

    stopper = asyncio.create_task(stop_it())
    startup = server.startup

    async def startup_and_tell(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        host, port = bound.getsockname()[:2]
        log.info("listening", host=host, port=port)
        if started is not None:
            started()

    server.startup = startup_and_tell  # type: ignore[method-assign]
    logging.getLogger("uvicorn.error").addFilter(_not_cancelled)
    try:
        await server.serve(sockets=[bound])
    except SystemExit:
        # uvicorn's word for a lifespan that failed; its cause has been logged
        raise StartFailed("The process could not start; the log says why.") from None
    finally:
        stopper.cancel()
        bound.close()


def open_files() -> int:
    """How many sockets and files this process may hold open, once it has taken what the system allows it.

    A shell gives 1,024 where the hard limit is mostly far above: some thousand sockets or open calls would end there.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS has a lower one of its own beside the hard limit
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]], *, stop_within: float) -> int:
    """Run a process to its end and give its exit code: 0 after a stop that was asked for, 1 when it cannot start."""
    # The modules are never garbage, and hardly anything of a request is: looking for cycles every 700 new objects costs
    # CPU and the slowest percent of requests its time; looking at 20,000 at once stops everything for 12 ms (measured
    # on a slow machine). A full round still comes, only more rarely.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    open_files()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_stopped(main, stop_within))
    except StartFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except Exception as error:
        failures = error.split(StartFailed)[0] if isinstance(error, ExceptionGroup) else None
        if failures is not None:
            sys.stderr.write("".join(f"{one}\n" for one in failures.exceptions))
        else:
            # through the log, where secrets are redacted, and not as a bare traceback
            log.exception("crashed")
        return 1
    finally:
        # the interpreter would look through all that was ever imported for garbage: half a second of a stop (measured)
        gc.freeze()
    return 0


async def _until_stopped(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]], stop_within: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked(name: str) -> None:
        if stop.is_set():
            return
        log.info("stopping", signal=name, within_seconds=stop_within)
        # a thread: the loop itself may be what hangs
        watch = threading.Timer(stop_within, _leave, args=(stop_within,))
        watch.daemon = True
        watch.start()
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, asked, each.name)
    await main(stop)
    log.info("stopped")


def _leave(stop_within: float) -> None:
    log.error("stop_late", within_seconds=stop_within)
    sys.stdout.flush()
    os._exit(EXIT_LATE)
