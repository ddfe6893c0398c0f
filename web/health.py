"""Is the process alive, and can it serve: `/healthz`, `/readyz`, `/metrics`.

Alive means that its loops make progress, ready that its dependencies answer. A dependency that is away never makes a
process unhealthy: restarting it would mend nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from telemetry import metrics
from telemetry.redaction import redact
from web import problems

log = structlog.get_logger()

_PATIENCE = 2.0
"""Seconds a dependency gets to answer."""
_LONGEST_DETAIL = 200
_WORTH_A_LINE = 15.0
"""Seconds that a dependency is away before the log says so: at a start each is, and joining a group takes a while."""
_NO_STORE = {"Cache-Control": "no-store"}


class Pulse:
    """One loop's sign of life: `beat()` at least every `within` seconds."""

    def __init__(self, name: str, within: float, clock: Callable[[], float]) -> None:
        self.name = name
        self.within = within
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        self._last = self._clock()

    @property
    def age(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._last

    @property
    def stalled(self) -> bool:
        return self.age > self.within


class _Dependency:
    def __init__(self, name: str, check: Callable[[], Awaitable[object]]) -> None:
        self.name = name
        self.up: bool | None = None
        self.since = datetime.now(UTC)
        self.detail: str | None = None
        self._check = check
        self._told = False

    async def look(self, patience: float) -> None:
        detail: str | None = None
        try:
            async with asyncio.timeout(patience):
                await self._check()
        except TimeoutError:
            detail = f"no answer within {patience:g} s"
        except Exception as error:
            detail = redact(f"{type(error).__name__}: {error}".replace("\n", " "))[:_LONGEST_DETAIL]
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
    health.depends_on("postgres", database.ping)     # raises: not ready
    pulse = health.watch("dispatch", within=10)      # pulse.beat() in the loop, else not alive
    Starlette(routes=[*health.routes(), ...])        # or serve health.application() alone
    """

    def __init__(self, *, patience: float = _PATIENCE, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._dependencies: dict[str, _Dependency] = {}
        self._pulses: dict[str, Pulse] = {}
        self._stopping = False

    def depends_on(self, name: str, check: Callable[[], Awaitable[object]]) -> None:
        """`check` raises while the dependency is away; it is cut off after the health's patience."""
        self._dependencies[name] = _Dependency(name, check)

    def watch(self, name: str, *, within: float) -> Pulse:
        """A loop that must beat every `within` seconds."""
        pulse = self._pulses[name] = Pulse(name, within, self._clock)
        return pulse

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
        stalled = any(pulse.stalled for pulse in self._pulses.values())
        loops = {
            name: {"status": "stalled" if pulse.stalled else "running", "idle_seconds": round(pulse.age, 3)}
            for name, pulse in self._pulses.items()
        }
        content = {"status": "stalled" if stalled else "alive", "loops": loops}
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
        for name, pulse in self._pulses.items():
            metrics.gauge("loop_age_seconds", pulse.age, name=name)
        return Response(metrics.of_process().render(), headers={"Content-Type": metrics.CONTENT_TYPE, **_NO_STORE})
