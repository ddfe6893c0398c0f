"""Keeps a line-up of servers alive: starts them in order, restarts what dies, stops them in order and in time."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from local.console import Console, Echo, Follower
from local.lineup import Lineup
from local.server import NotReady, Server

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 5.0
_FORGOTTEN_AFTER = 30.0  # seconds up, after which earlier deaths no longer count
_START_TRIES = 3
_START_TIMEOUT = 90.0
_LOOK = 0.05  # seconds between two looks at a child
_FOLLOW = 0.2  # seconds between two looks at the logs


@dataclass(eq=False)
class Supervisor:
    """Runs until `stop` is set. `on_ready` is called when all are up, and again after every restart.

    `hurry`, once set, ends at once whatever is still stopping. Children are started from the thread that runs the loop:
    they die with it.
    """

    lineup: Lineup
    console: Console
    on_ready: Callable[[], None]
    on_started: Callable[[Sequence[Server]], None]
    echo: Echo = "warnings"
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _all_ready: bool = field(default=False, init=False)

    async def run(self) -> int:
        """The exit code: 0 after a stop that was asked for, 1 when the start failed."""
        followers = asyncio.create_task(self._follow())
        living = asyncio.create_task(self._live())
        stopping = asyncio.create_task(self.stop.wait())
        code = 0
        try:
            await asyncio.wait({living, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                living.result()
        except* NotReady as failures:
            code = 1
            for failure in _leaves(failures):
                self.console.text(f"Could not start: {failure}")
        finally:
            stopping.cancel()
            living.cancel()
            await asyncio.wait({living})
            await self._farewell()
            followers.cancel()
        return code

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as keepers:
            await self._bring_up(keepers, self.lineup.foundations)
            async with asyncio.TaskGroup() as steps:
                for step in self.lineup.steps:
                    steps.create_task(self._run_step(step))
            await self._bring_up(keepers, self.lineup.processes)
            self._all_ready = True
            self.on_ready()

    async def _bring_up(self, keepers: asyncio.TaskGroup, servers: Sequence[Server]) -> None:
        ups = [asyncio.Event() for _ in servers]
        for server, up in zip(servers, ups, strict=True):
            keepers.create_task(self._keep(server, up))
        for up in ups:
            await up.wait()

    async def _keep(self, server: Server, up: asyncio.Event) -> None:
        delay, deaths = _FIRST_DELAY, 0
        while True:
            born = time.monotonic()
            await self._launch(server)
            if await self._until_ready(server, None if up.is_set() else _START_TIMEOUT):
                words = f"{'back' if up.is_set() else 'ready'} ({time.monotonic() - born:.1f} s)"
                up.set()
                if self._all_ready:
                    self.on_ready()  # before it is said: who reads the line may read the file
                self.console.line(server.name, words)
                await _until_ended(server)
            if time.monotonic() - born > _FORGOTTEN_AFTER:
                delay, deaths = _FIRST_DELAY, 0
            deaths += 1
            if not up.is_set() and deaths == _START_TRIES:
                raise NotReady(f"{server.name} {_how_it_ended(server)}{_last_words(server)}. Its log: {server.log}")
            self.console.trouble(
                server.name, f"{_how_it_ended(server)}{_last_words(server)}; starting it again in {delay:g} s"
            )
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    async def _launch(self, server: Server) -> None:
        await asyncio.to_thread(server.prepare)
        server.launch()
        self.on_started(self.lineup.servers)

    async def _until_ready(self, server: Server, timeout: float | None) -> bool:
        """False when it ended first."""
        until = None if timeout is None else time.monotonic() + timeout
        while server.is_running:
            if await asyncio.to_thread(server.is_ready):
                return True
            if until is not None and time.monotonic() > until:
                raise NotReady(f"{server.name} was not ready within {timeout:g} s. Its log: {server.log}")
            await asyncio.sleep(_LOOK)
        return False

    async def _run_step(self, step: Server) -> None:
        born = time.monotonic()
        await self._launch(step)
        await _until_ended(step)
        if step.exit_code != 0:
            raise NotReady(f"{step.name} {_how_it_ended(step)}{_last_words(step)}. Its log: {step.log}")
        self.console.line(step.name, f"done ({time.monotonic() - born:.1f} s)")

    async def _farewell(self) -> None:
        """Stop everything that runs, stage by stage; each stage may use what the ones before it left of their time.

        Whoever is late no longer holds up the next stage, and has until the end of the whole time: on a busy machine
        it is better to stop side by side than to be ended in order.
        """
        for step in self.lineup.steps:
            step.kill(wait=0.5)
        until = time.monotonic()
        leaving: list[Server] = []
        for farewell in self.lineup.farewells:
            until += farewell.seconds
            asked = [server for server in farewell.servers if server.is_running]
            for server in asked:
                server.ask_to_stop()
            leaving = await self._see_off([*leaving, *asked], asked, until)
        late = await self._see_off(leaving, leaving, until)
        for server in late:
            self.console.trouble(server.name, "did not stop in time and was ended")
            server.signal(signal.SIGKILL)
        for server in late:
            server.kill(wait=0.5)

    async def _see_off(self, leaving: Sequence[Server], awaited: Sequence[Server], until: float) -> list[Server]:
        """Wait until all of `awaited` are gone or the time is over; who still runs of `leaving`."""
        leaving = list(leaving)
        while True:
            gone = [server for server in leaving if not server.is_running]
            for server in gone:
                self.console.line(server.name, "stopped")
                leaving.remove(server)
            over = self.hurry.is_set() or time.monotonic() > until
            if over or not any(server in leaving for server in awaited):
                return leaving
            await asyncio.sleep(_LOOK / 2)

    async def _follow(self) -> None:
        if self.echo == "none":
            return
        foundations = [Follower(server.name, server.log) for server in self.lineup.foundations]
        ours = [Follower(server.name, server.log) for server in (*self.lineup.steps, *self.lineup.processes)]
        try:
            while True:
                await asyncio.sleep(_FOLLOW)
                # a broker that is stopped in the middle of its start complains at length, and means nothing
                for follower in ours if self.stop.is_set() else [*foundations, *ours]:
                    follower.follow(self.console, self.echo)
        finally:
            for follower in ours:
                follower.follow(self.console, self.echo)


async def _until_ended(server: Server) -> None:
    while True:
        if not server.is_running:
            return
        await asyncio.sleep(_LOOK)


def _how_it_ended(server: Server) -> str:
    code = server.exit_code
    return f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with {code}"


def _last_words(server: Server) -> str:
    """The last line of its log, which mostly says why it ended by itself."""
    if server.exit_code is None or server.exit_code <= 0:
        return ""
    try:
        lines = server.log.read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return f": {lines[-1].strip()[:300]}" if lines else ""


def _leaves(group: BaseExceptionGroup[NotReady]) -> list[NotReady]:
    found: list[NotReady] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
