"""The supervisor, on small stand-ins for the real servers: order, restarts, stops in time, nothing left behind."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from local import leftovers
from local.console import Console
from local.lineup import Farewell, Lineup
from local.server import Command, Server
from local.supervisor import Supervisor

pytestmark = pytest.mark.connected

# says in a file that it is up; ends when asked to, or does not
_UP = """
import pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
pathlib.Path(sys.argv[1]).touch()
"""
_OBEDIENT = _UP + "signal.sigwait({signal.SIGTERM})"
_STUBBORN = _UP + "signal.sigwait({signal.SIGUSR1})"
_FAILING = "import sys; sys.exit('the settings are wrong')"


@dataclass(eq=False)
class Standin(Server):
    script: str = field(default=_OBEDIENT, kw_only=True)

    @property
    def mark(self) -> Path:
        return self.log.with_suffix(".up")

    def command(self) -> Command:
        self.mark.unlink(missing_ok=True)
        return Command([sys.executable, "-c", self.script, str(self.mark)], {"PATH": os.defpath})

    def is_ready(self) -> bool:
        return self.mark.exists()


@dataclass(eq=False)
class Step(Standin):
    script: str = field(default="print('done')", kw_only=True)


class Recorder(Console):
    """Keeps the lines, and wakes who waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def _write(self, words: str) -> None:
        self.lines.append(words)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


class Run:
    """A supervisor at work on stand-ins."""

    def __init__(self, lineup: Lineup) -> None:
        self.console = Recorder()
        self.ready = 0
        self.lineup = lineup
        self.supervisor = Supervisor(
            lineup=lineup, console=self.console, on_ready=self._on_ready, on_started=lambda servers: None
        )
        self.task = asyncio.create_task(self.supervisor.run())

    def _on_ready(self) -> None:
        assert all(server.is_running for server in self.lineup.servers)
        self.ready += 1

    async def stop(self) -> int:
        self.supervisor.stop.set()
        async with asyncio.timeout(15):
            return await self.task


def lineup(first: Server, steps: Sequence[Server], then: Server, *, seconds: float = 5.0) -> Lineup:
    return Lineup([first], steps, [then], [Farewell([then], seconds), Farewell([first], seconds)])


async def test_starts_in_order_and_stops_in_order(tmp_path: Path) -> None:
    first, step, then = (
        Standin("first", tmp_path / "1.log"),
        Step("step", tmp_path / "2.log"),
        Standin("then", tmp_path / "3.log"),
    )
    run = Run(lineup(first, [step], then))
    await until(lambda: run.ready == 1)
    assert await run.stop() == 0
    events = [line.split(maxsplit=1)[1] for line in run.console.lines]
    assert [event.split()[0] for event in events] == ["first", "step", "then", "then", "first"]
    assert not first.is_running
    assert not then.is_running


async def test_what_dies_is_started_again_and_said(tmp_path: Path) -> None:
    first, then = Standin("first", tmp_path / "1.log"), Standin("then", tmp_path / "3.log")
    run = Run(lineup(first, [], then))
    await until(lambda: run.ready == 1)
    before = then.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    await until(lambda: run.ready == 2)
    assert then.pid != before
    assert any("was ended by signal 9; starting it again in 0.2 s" in line for line in run.console.lines)
    assert await run.stop() == 0


async def test_a_server_that_cannot_start_is_one_clear_line(tmp_path: Path) -> None:
    first, then = Standin("first", tmp_path / "1.log"), Standin("then", tmp_path / "3.log", script=_FAILING)
    run = Run(lineup(first, [], then))
    async with asyncio.timeout(15):
        assert await run.task == 1
    assert run.console.lines.count(
        f"Could not start: then ended with 1: the settings are wrong. Its log: {tmp_path / '3.log'}"
    )
    assert not first.is_running
    assert run.ready == 0


async def test_a_step_that_fails_ends_the_start(tmp_path: Path) -> None:
    first, then = Standin("first", tmp_path / "1.log"), Standin("then", tmp_path / "3.log")
    run = Run(lineup(first, [Step("migrate", tmp_path / "2.log", script=_FAILING)], then))
    async with asyncio.timeout(15):
        assert await run.task == 1
    assert any("migrate ended with 1: the settings are wrong" in line for line in run.console.lines)
    assert then.pid is None


async def test_stops_in_the_middle_of_a_start(tmp_path: Path) -> None:
    first = Standin("first", tmp_path / "1.log")
    never = Standin("never", tmp_path / "3.log", script="import signal; signal.pause()")
    run = Run(lineup(first, [], never))
    await until(lambda: never.pid is not None)
    assert await run.stop() == 0
    assert not first.is_running
    assert not never.is_running


async def test_a_late_one_takes_no_time_from_the_next(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    first = Standin("first", tmp_path / "1.log", script=f"{_OBEDIENT}\npathlib.Path({str(asked)!r}).touch()")
    # leaves no earlier than the next one has been asked
    late = f"{_OBEDIENT}\nwhile not pathlib.Path({str(asked)!r}).exists(): signal.sigtimedwait([], 0.01)"
    then = Standin("then", tmp_path / "3.log", script=late)
    run = Run(Lineup([first], [], [then], [Farewell([then], 0.2), Farewell([first], 8.0)]))
    await until(lambda: run.ready == 1)
    assert await run.stop() == 0
    assert (first.exit_code, then.exit_code) == (0, 0)
    assert sum(line.endswith(" stopped") for line in run.console.lines) == 2


async def test_who_does_not_leave_in_time_is_ended(tmp_path: Path) -> None:
    first, then = Standin("first", tmp_path / "1.log"), Standin("then", tmp_path / "3.log", script=_STUBBORN)
    # the other has the time that a process takes to end
    run = Run(Lineup([first], [], [then], [Farewell([then], 0.3), Farewell([first], 4.0)]))
    await until(lambda: run.ready == 1)
    assert await run.stop() == 0
    assert then.exit_code == -signal.SIGKILL
    assert first.exit_code == 0


async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    first, then = Standin("first", tmp_path / "1.log"), Standin("then", tmp_path / "3.log", script=_STUBBORN)
    run = Run(lineup(first, [], then, seconds=600))
    await until(lambda: run.ready == 1)
    run.supervisor.hurry.set()
    assert await run.stop() == 0
    assert not then.is_running


def test_leftovers_are_ended_by_number_and_command(tmp_path: Path) -> None:
    left = Standin("left", tmp_path / "1.log")
    left.start()
    note = tmp_path / "processes.json"
    leftovers.record(note, [left])
    assert leftovers.end(note) == ["left"]
    assert left.wait_stopped(5)
    assert not note.exists()


def test_a_number_that_is_now_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    note = tmp_path / "processes.json"
    note.write_text(json.dumps([{"name": "left", "pid": os.getpid(), "command": ["java", "kafka.Kafka"]}]))
    assert leftovers.end(note) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_a_killed_parent_leaves_nothing_behind(tmp_path: Path) -> None:
    parent_script = f"""
import pathlib, signal, sys
sys.path.insert(0, {str(Path.cwd())!r})
from local.server import Command, Server
class Child(Server):
    def command(self):
        return Command([sys.executable, "-c", "import signal; signal.pause()"], {{}})
child = Child("child", pathlib.Path({str(tmp_path / "child.log")!r}))
child.launch()
print(child.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", parent_script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        watch = os.pidfd_open(child)
        parent.kill()
        parent.wait()
    with os.fdopen(watch):
        assert _ended(watch)


def _ended(watch: int) -> bool:
    readable, _, _ = select.select([watch], [], [], 10)
    return bool(readable)
