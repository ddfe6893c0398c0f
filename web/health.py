"""Is the process alive, and can it serve: `/healthz`, `/readyz`, `/metrics`.

Alive means that its loops make progress where there is work, ready that its dependencies answer. A dependency that is
away never makes a process unhealthy, since a restart would mend nothing. Whether it is away is asked on a line of its
own (`witness`): a process whose own lines are broken is not excused by them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from telemetry import metrics
from web import problems
from web.loops import Check, Loop, Pulse, Question, Stall, Witness, trouble

__all__ = ["Health", "Pulse"]

log = structlog.get_logger()

_PATIENCE = 2.0
"""Seconds a dependency gets to answer."""
_WORTH_A_LINE = 15.0
"""Seconds that a dependency is away before the log says so: at a start each is, and joining a group takes a while."""
_NO_STORE = {"Cache-Control": "no-store"}


class _Dependency:
    def __init__(self, name: str, check: Check) -> None:
        self.name = name
        self.up: bool | None = None
        self.since = datetime.now(UTC)
        self.detail: str | None = None
        self._question = Question(check)
        self._told = False

    async def look(self, patience: float) -> None:
        detail = await trouble(self._question, patience)
        up = detail is None
        if up is not self.up:
            self.up, self.since = up, datetime.now(UTC)
        self.detail = detail
        away = (datetime.now(UTC) - self.since).total_seconds()
        if up is self._told and (up or away >= _WORTH_A_LINE):
            self._told = not up
            if up:
                log.info("dependency_back", dependency=self.name)
            else:
                log.warning("dependency_away", dependency=self.name, detail=detail, seconds=round(away))
        metrics.gauge("dependency_up", float(up), name=self.name)

    def shown(self) -> dict[str, object]:
        shown: dict[str, object] = {"status": "up" if self.up else "down", "since": self.since.isoformat()}
        if self.detail is not None:
            shown["detail"] = self.detail
        return shown


class Health:
    """A process's dependencies and loops.

    health = Health()
    health.depends_on("postgres", database.ping)                       # raises: not ready
    health.witness("postgres", database.reachable)                     # raises: what needs it is not judged
    pulse = health.watch("dispatch", within=10, needs=["postgres"])    # pulse.beat() in the loop, else not alive
    health.stall("outbox", relay.stuck, within=60, needs=["kafka"])    # says for so long what waits: not alive
    group.create_task(health.run(stop, every=5))                       # asks the witnesses and for stalls
    Starlette(routes=[*health.routes(), ...])                          # or serve health.application() alone
    """

    def __init__(self, *, patience: float = _PATIENCE, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._dependencies: dict[str, _Dependency] = {}
        self._witnesses: dict[str, Witness] = {}
        self._loops: dict[str, Loop] = {}
        self._stopping = False

    def depends_on(self, name: str, check: Check) -> None:
        """`check` raises while the dependency is away; it is cut off after the health's patience."""
        self._dependencies[name] = _Dependency(name, check)

    def witness(self, name: str, check: Check, *, close: Callable[[], Awaitable[object]] | None = None) -> None:
        """How `run` asks whether a dependency is away, for loops that need it; on a line that no loop uses.

        `close` is called at the end of `run`, and must not take long.
        """
        self._witnesses[name] = Witness(check, close, self._clock)

    def watch(self, name: str, *, within: float, needs: Sequence[str] = ()) -> Pulse:
        """A loop that must beat every `within` seconds."""
        pulse = Pulse(name, within, [self._witnesses[one] for one in needs], self._clock)
        self._loops[name] = pulse
        return pulse

    def stall(
        self, name: str, ask: Callable[[], Awaitable[str | None]], *, within: float, needs: Sequence[str] = ()
    ) -> None:
        """Work that must not wait without progress for `within` seconds; `run` asks."""
        self._loops[name] = Stall(name, ask, within, [self._witnesses[one] for one in needs], self._clock)

    async def run(self, stop: asyncio.Event, *, every: float) -> None:
        """Look at everything each `every` seconds, until `stop` is set."""
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            while not stop.is_set():
                looking = asyncio.create_task(self.look(), name="health")
                try:
                    await asyncio.wait({looking, stopped}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    looking.cancel()
                await asyncio.wait({stopped}, timeout=every)
        finally:
            stopped.cancel()
            closing = [one.close() for one in self._witnesses.values() if one.close is not None]
            await asyncio.gather(*closing, return_exceptions=True)

    async def look(self) -> None:
        """One look: first who is away, then what stands still."""
        away = [one.look(self._patience) for one in self._witnesses.values()]
        await asyncio.gather(*away, *(one.look(self._patience) for one in self._dependencies.values()))
        await asyncio.gather(*(one.look(self._patience) for one in self._loops.values() if isinstance(one, Stall)))

    def stopping(self) -> None:
        """From now on not ready: no new work, please."""
        self._stopping = True

    def routes(self) -> list[Route]:
        return [
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    def application(self) -> Starlette:
        """Health alone, for processes without any other HTTP."""
        return Starlette(routes=self.routes(), exception_handlers=problems.handlers())

    async def healthz(self, request: Request) -> Response:
        # one that stops is not judged: its end has a time limit
        stalled = not self._stopping and any(loop.stalled for loop in self._loops.values())
        content = {
            "status": "stopping" if self._stopping else "stalled" if stalled else "alive",
            "loops": {name: _shown(loop) for name, loop in self._loops.items()},
        }
        return JSONResponse(content, 503 if stalled else 200, _NO_STORE)

    async def readyz(self, request: Request) -> Response:
        await asyncio.gather(*(one.look(self._patience) for one in self._dependencies.values()))
        ready = not self._stopping and all(one.up for one in self._dependencies.values())
        content = {
            "status": "stopping" if self._stopping else "ready" if ready else "not_ready",
            "dependencies": {name: one.shown() for name, one in self._dependencies.items()},
        }
        return JSONResponse(content, 200 if ready else 503, _NO_STORE)

    async def metrics(self, request: Request) -> Response:
        for name, loop in self._loops.items():
            metrics.gauge("loop_age_seconds", loop.age, name=name)
        return Response(metrics.of_process().render(), headers={"Content-Type": metrics.CONTENT_TYPE, **_NO_STORE})


def _shown(loop: Loop) -> dict[str, object]:
    shown: dict[str, object] = {
        "status": "stalled" if loop.stalled else "running",
        "idle_seconds": round(loop.age, 3),
    }
    if loop.why is not None:
        shown["detail"] = loop.why
    return shown
