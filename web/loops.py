"""What a process is judged by: loops that beat, work that waits, and witnesses that excuse both."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import structlog

from telemetry.redaction import redact

log = structlog.get_logger()

_LONGEST_DETAIL = 200

T = TypeVar("T")
Check = Callable[[], Awaitable[object]]
"""Raises while the dependency is away."""


class Question(Generic[T]):
    """Asked once at a time, and left alone when its answer takes too long: what was cut off may take long to end as
    well (a statement's cancellation waits for the very Postgres that does not answer)."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._asking: asyncio.Future[T] | None = None
        self._cut_off = False

    async def answer(self, patience: float) -> T:
        """Raises what `ask` raises, and TimeoutError."""
        asking = self._asking
        if asking is None:
            asking, self._cut_off = asyncio.ensure_future(self._ask()), False
            self._asking = asking
            asking.add_done_callback(self._ended)
        await asyncio.wait({asking}, timeout=patience)
        if not asking.done() or asking.cancelled():
            if not self._cut_off:
                # once: what it does to end may itself take time
                self._cut_off = asking.cancel()
            raise TimeoutError(f"no answer within {patience:g} s")
        return asking.result()

    def _ended(self, asking: "asyncio.Future[T]") -> None:
        self._asking = None
        if not asking.cancelled():
            # whoever asked may be gone
            asking.exception()


class Witness:
    """What a dependency is asked on a line of its own, now and then."""

    def __init__(self, check: Check, close: Callable[[], Awaitable[object]] | None, clock: Callable[[], float]) -> None:
        self._question = Question(check)
        self._clock = clock
        self.close = close
        self.away = False
        self.away_at = -1e9

    async def look(self, patience: float) -> None:
        self.away = await trouble(self._question, patience) is not None
        if self.away:
            self.away_at = self._clock()


class Loop(ABC):
    """One thing that must go on. It is judged from the last moment on in which a dependency that it needs was away."""

    def __init__(self, name: str, within: float, needs: Sequence[Witness], clock: Callable[[], float]) -> None:
        self.name = name
        self.within = within
        self.why: str | None = None
        self._needs = needs
        self._clock = clock

    @property
    @abstractmethod
    def still_since(self) -> float | None:
        """Since when it makes no progress; None while it does."""

    @property
    def age(self) -> float:
        """Seconds without progress, time without a dependency not counted."""
        since = self.still_since
        return 0.0 if since is None else self._clock() - max([since, *(one.away_at for one in self._needs)])

    @property
    def stalled(self) -> bool:
        return self.age > self.within


class Pulse(Loop):
    """A loop's sign of life: `beat()` after each turn, at least every `within` seconds."""

    def __init__(self, name: str, within: float, needs: Sequence[Witness], clock: Callable[[], float]) -> None:
        super().__init__(name, within, needs, clock)
        self._last = clock()

    def beat(self) -> None:
        """A turn is done. Any thread may call this."""
        self._last = self._clock()
        self.why = None

    def missed(self, error: BaseException) -> None:
        """A turn failed, for this reason: shown when no later one succeeds in time."""
        self.why = told(error)

    @property
    def still_since(self) -> float | None:
        return self._last


class Stall(Loop):
    """Work that waits: `ask` says what, and why it does not go on; None while it goes on, or there is none."""

    def __init__(
        self,
        name: str,
        ask: Callable[[], Awaitable[str | None]],
        within: float,
        needs: Sequence[Witness],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(name, within, needs, clock)
        self._question = Question(ask)
        self._since: float | None = None

    async def look(self, patience: float) -> None:
        if any(one.away for one in self._needs):
            # there is no answer to wait for, and nothing to blame it for
            self.why = self._since = None
            return
        try:
            self.why = await self._question.answer(patience)
        except Exception as error:
            # not to be told is no sign of a stall: the pulses and the witnesses tell more
            log.info("stall_not_known", loop=self.name, error=told(error))
            self.why = None
        if self.why is None:
            self._since = None
        elif self._since is None:
            self._since = self._clock()

    @property
    def still_since(self) -> float | None:
        return self._since


async def trouble(question: Question[object], patience: float) -> str | None:
    """Why the question was not answered well; None when it was."""
    try:
        await question.answer(patience)
    except TimeoutError as error:
        return str(error) or "no answer in time"
    except Exception as error:
        return told(error)
    return None


def told(error: BaseException) -> str:
    """An error in one short line, without secrets."""
    return redact(f"{type(error).__name__}: {error}".replace("\n", " "))[:_LONGEST_DETAIL]
