"""`python -m local`: everything on this machine, until Ctrl-C."""

import argparse
import asyncio
import functools
import gc
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from local import leftovers, ports, readyfile
from local.console import Console
from local.lineup import MOST_CONSUMERS, MOST_NOTIFIERS, Assembly, Options, assemble
from local.modelslab.settings import ProfileName
from local.python import CHECKOUT
from local.server import NotReady
from local.state import State, StateInUse
from local.supervisor import Supervisor

_DEFAULT_STATE = CHECKOUT / ".local"
_PROFILES = ", ".join(get_args(ProfileName))
_SCENE = "A long table under a tree: the March Hare and the Hatter having tea, a Dormouse asleep between them."


def main() -> int:
    arguments = _arguments()
    options = Options(base=arguments.ports, consumers=arguments.consumers, notifiers=arguments.notifiers)
    state = State(arguments.state.resolve())
    ready_file: Path = arguments.ready_file or state.folder / "ready.json"
    console = Console()
    try:
        state.open()
    except (StateInUse, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        readyfile.remove(ready_file)
        for name in leftovers.end(_processes(state)):
            console.trouble(name, "was left over by an earlier run and was ended")
        state.turn_logs()
        assembly = assemble(options, state, os.environ)
        taken = {port: name for port, name in assembly.lineup.ports.items() if ports.is_taken(port)}
        if taken:
            print(_taken(taken, options.base), file=sys.stderr)
            return 1
        return asyncio.run(_run(assembly, state, ready_file, console, arguments.echo))
    except (NotReady, OSError) as error:
        print(f"Could not start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # before anything was started: from then on signals are the supervisor's
    finally:
        readyfile.remove(ready_file)
        state.close()
        # the interpreter would look for garbage in all that was ever imported, with the ten seconds nearly over
        gc.freeze()


async def _run(assembly: Assembly, state: State, ready_file: Path, console: Console, echo: str) -> int:
    born = time.monotonic()
    told = False

    def on_ready() -> None:
        nonlocal told
        assembly.ready_file().write(ready_file)
        if not told:
            told = True
            _tell(assembly, state, ready_file, console, time.monotonic() - born)

    supervisor = Supervisor(
        lineup=assembly.lineup,
        console=console,
        on_ready=on_ready,
        on_started=functools.partial(leftovers.record, _processes(state)),
        echo="all" if echo == "all" else "none" if echo == "none" else "warnings",
    )

    def on_signal() -> None:
        if supervisor.stop.is_set():
            supervisor.hurry.set()
            return
        readyfile.remove(ready_file)
        console.text("\nStopping ... (once more: at once)")
        supervisor.stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    console.heading(f"Scenewire starts; its data and logs are in {_shown(state.folder)}")
    code = await supervisor.run()
    if code == 0:
        console.text("Stopped. The data stay; the next start finds them again.")
    return code


def _tell(assembly: Assembly, state: State, ready_file: Path, console: Console, seconds: float) -> None:
    address = f"{assembly.api}/chapters/{assembly.identity.chapter_id}/images/scenes/1"
    body = f'{{"scene_description": "{_SCENE}"}}'
    kafka = f"{assembly.kafka}"
    profile = os.environ.get("SCENEWIRE_SIMULATOR_PROFILE") or "calm"
    simulated = f"{assembly.simulator} (the simulator, profile {profile})"
    provider = simulated if assembly.simulator else "ModelsLab, with your key"
    console.text()
    console.heading(f"Ready after {seconds:.1f} s")
    console.text(f"  Studio     {assembly.push_all[0]}/")
    console.text(f"  API        {assembly.api}/docs")
    console.text(f"  Push       {assembly.push_all[0]}/docs")
    console.text(f"  Provider   {provider}")
    console.text(f"  Kafka      {kafka}")
    console.text(f"  Logs       {_shown(state.logs)}")
    console.text(f"  For scripts: {_shown(ready_file)}")
    console.text()
    usual = ready_file.resolve() == _DEFAULT_STATE / "ready.json"
    arguments = "" if usual else f' ARGS="--ready-file {_shown(ready_file)}"'
    console.heading(f"Request a picture (or all seven of a chapter: make demo{arguments})")
    console.text(f"curl -sS -w '\\n' -X POST {address} \\")
    console.text(f"  -H 'Authorization: Bearer {assembly.token}' \\")
    console.text("  -H 'Content-Type: application/json' \\")
    console.text(f"  -d {shlex.quote(body)}")
    console.text()
    console.heading("Stop with Ctrl-C")


def _taken(taken: dict[int, str], base: int) -> str:
    listed = ", ".join(f"{port} ({name})" for port, name in sorted(taken.items()))
    word = "Port" if len(taken) == 1 else "Ports"
    return (
        f"{word} {listed} taken by another program. Stop it, or choose other ports: "
        f'make run ARGS="--ports {base + 1000}" (python -m local --ports {base + 1000})'
    ).replace(") taken", ") is taken" if len(taken) == 1 else ") are taken", 1)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _processes(state: State) -> Path:
    return state.folder / "processes.json"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m local",
        description="Run Kafka, Postgres, a simulator of ModelsLab and all of Scenewire on this machine, until Ctrl-C.",
        epilog="With MODELSLAB_API_KEY, SCENEWIRE_DATABASE_URL or SCENEWIRE_KAFKA_SERVERS set, those are used and the "
        "simulator, Postgres or Kafka is not started. Every SCENEWIRE_* and MODELSLAB_* variable reaches each process; "
        f"SCENEWIRE_SIMULATOR_PROFILE (make run PROFILE=...) says how the simulator behaves: {_PROFILES}.",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=_DEFAULT_STATE,
        metavar="DIR",
        help="where data and logs are kept (default: .local)",
    )
    parser.add_argument(
        "--ports", type=_base, default=8700, metavar="BASE", help="the first of 100 ports to use (default: 8700)"
    )
    parser.add_argument(
        "--ready-file", type=Path, metavar="FILE", help="written once all is up (default: ready.json in the state)"
    )
    parser.add_argument(
        "--consumers", type=_between(0, MOST_CONSUMERS), default=1, metavar="N", help="consumer processes (default: 1)"
    )
    parser.add_argument(
        "--notifiers", type=_between(1, MOST_NOTIFIERS), default=1, metavar="N", help="notifier processes (default: 1)"
    )
    parser.add_argument(
        "--echo",
        choices=("warnings", "all", "none"),
        default="warnings",
        help="which lines of the logs are shown here too (default: warnings; the files hold all)",
    )
    arguments = parser.parse_args()
    profile = os.environ.get("SCENEWIRE_SIMULATOR_PROFILE")
    if profile and profile not in get_args(ProfileName):
        parser.error(f"SCENEWIRE_SIMULATOR_PROFILE (make run PROFILE=...) is {profile!r}; write one of {_PROFILES}")
    return arguments


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least} to {most}")
        return int(text)

    return number


def _base(text: str) -> int:
    if not text.isdigit() or not 1024 <= int(text) <= 65400:
        raise argparse.ArgumentTypeError("must be a port from 1024 to 65400")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
