"""The consumer's side of the breakers: what an outcome means to them, and telling those who wait (PIPELINE K)."""

import time
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import structlog

from consumer.patience import patiently
from consumer.settings import ConsumerSettings
from schemas.errors import ErrorClass
from storage import breakers, pausing
from storage.breakers import PROVIDER, Failing, Noted, Rules
from storage.database import Database
from telemetry import metrics

log = structlog.get_logger(__name__)

_FAILING = {
    ErrorClass.AUTH: Failing.AUTH,
    ErrorClass.QUOTA: Failing.QUOTA,
    ErrorClass.NETWORK: Failing.OUTAGE,
    ErrorClass.TIMEOUT: Failing.OUTAGE,
    ErrorClass.UNAVAILABLE: Failing.OUTAGE,
    ErrorClass.MODEL_UNAVAILABLE: Failing.MODEL,
}
_ANSWERS = frozenset({ErrorClass.RATE_LIMITED, ErrorClass.INVALID, ErrorClass.CONTENT})
"""Refusals of this one request: the provider works."""


def rules_of(settings: ConsumerSettings) -> Rules:
    return Rules(
        denials=settings.breaker_denials,
        outages=settings.breaker_outages,
        span=settings.breaker_span,
        records=settings.breaker_records,
        probe=settings.probe,
    )


class Breaker:
    """Notes outcomes, and carries an opening and a closing to the records that wait."""

    def __init__(self, settings: ConsumerSettings, *, database: Database) -> None:
        self._database = database
        self._rules = rules_of(settings)
        # told to all who wait at this time, and the time open that all deadlines allow for
        self._told_at: float | None = None
        self._moved: float | None = None
        self._open: set[str] = set()

    async def stands(self) -> Noted:
        """What is open now."""
        return await patiently(lambda: breakers.stands(self._database))

    async def failed(self, attempt_id: UUID, error_class: ErrorClass) -> Noted:
        """Note how the provider failed an attempt; tells what is open now."""
        failing = _FAILING.get(error_class)
        if failing is None:
            if error_class in _ANSWERS:
                await patiently(lambda: breakers.answered(self._database, attempt_id, model=False))
            return Noted(paused=False)
        noted = await patiently(lambda: breakers.failed(self._database, attempt_id, failing, self._rules))
        for scope in noted.opened:
            metrics.count("breaker_opened", scope=kind(scope))
            log.error("breaker_opened", scope=scope, error_class=error_class.value, probe_seconds=self._rules.probe)
        return noted

    async def sweep(self) -> None:
        """Carry what is open or closed to those who wait; a few hundred records at a time. Raises `Unavailable`."""
        states = await breakers.states(self._database)
        provider = states[PROVIDER]
        self._tell({scope for scope, state in states.items() if state.open})
        if provider.open:
            now = time.monotonic()
            # who came meanwhile is told at the next round: a look at everybody is not for each second
            if self._told_at is None or now - self._told_at > self._rules.probe:
                await self._each(await pausing.untold(self._database), pausing.pause)
                self._told_at = now
        else:
            self._told_at = None
            await self._each(await pausing.told(self._database), pausing.go_on)
        if provider.total != self._moved:
            await self._each(await pausing.late(self._database), pausing.move_deadlines)
            self._moved = provider.total

    async def _each(self, records: Sequence[UUID], step: Callable[[Database, Sequence[UUID]], Awaitable[int]]) -> None:
        for first in range(0, len(records), pausing.BATCH):
            await step(self._database, records[first : first + pausing.BATCH])

    def _tell(self, open_scopes: set[str]) -> None:
        for scope in open_scopes - self._open:
            log.warning("breaker_open", scope=scope)
        for scope in self._open - open_scopes:
            log.info("breaker_closed", scope=scope)
        self._open = open_scopes
        metrics.gauge("breakers_open", float(PROVIDER in open_scopes), scope=PROVIDER)
        metrics.gauge("breakers_open", float(len(open_scopes - {PROVIDER})), scope="model")


def kind(scope: str) -> str:
    """`provider` or `model`: a label's values are a closed set."""
    return scope.partition(":")[0]
