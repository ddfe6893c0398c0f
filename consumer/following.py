"""Looking after a job the provider has taken: fetch until it is done, and tell progress meanwhile. Never a submit."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from consumer.answers import Processing, ProviderFailure, Succeeded
from consumer.modelslab import ModelsLab
from consumer.settings import ConsumerSettings
from schemas.errors import ErrorClass
from storage.database import Unavailable
from storage.dispatching import Claimed

log = structlog.get_logger(__name__)

_FIRST_PROGRESS, _LAST_PROGRESS = 15, 80
_STEP_PERCENT = 5
_JITTER = 0.2
_ETA_UNKNOWN = 10.0
_SHORTEST_SHARE = 0.1
"""Of the interval; an eta of 0 must not become a loop without rest."""
_NOT_DONE = "The image service did not finish this picture in time. Please request it again."


class NeverFinished(ProviderFailure):
    """The job was not done by its record's deadline and the grace."""


class Follower:
    """Follows jobs by fetch. `progress(claim_token, percent)` tells a rise; `longest(model_id)` is the seconds after
    which a job of that model is no longer expected soon.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        provider: ModelsLab,
        progress: Callable[[UUID, int], Awaitable[bool]],
        longest: Callable[[str], float] = lambda _: math.inf,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._provider = provider
        self._progress = progress
        self._longest = longest
        self._sleep = sleep
        self._clock = clock

    async def follow(self, claimed: Claimed, *, grace: float = 0.0) -> Succeeded:
        """Wait for the job of `claimed`. Raises ProviderFailure when the provider says that it failed, `NeverFinished`
        when it was not done `grace` seconds after its record's deadline.

        Failures of a fetch itself (the line, 5xx, 429) are not the job's: it is asked again until then. A job that
        somebody else sent has been at it since then.
        """
        assert claimed.provider_request_id is not None
        give_up_at = self._clock() + max(0.0, claimed.seconds_left) + grace
        began = self._clock() - (claimed.sent_for or 0.0)
        late_at = began + self._longest(claimed.model_id)
        eta = claimed.eta
        fetch_url = claimed.fetch_url
        # taken over: its estimate is of an unknown age, and who waits has waited for the takeover already
        wait = 0.0 if claimed.sent else min(self._first_wait(eta), max(0.0, give_up_at - self._clock()))
        told = _FIRST_PROGRESS
        while True:
            told = await self._wait(claimed, wait, began, eta, told)
            try:
                answer = await self._provider.fetch(claimed.provider_request_id, fetch_url)
            except ProviderFailure as failure:
                if failure.terminal:
                    raise
                log.info("fetch_failed", attempt_id=str(claimed.attempt_id), code=failure.code)
                wait = max(self._interval(), failure.retry_after or 0.0)
            else:
                if isinstance(answer, Succeeded):
                    return answer
                fetch_url = answer.fetch_url or fetch_url
                wait = self._next_wait(answer)
            now = self._clock()
            if now >= late_at:
                wait = max(wait, self._settings.poll_late)
            if now >= give_up_at:
                raise NeverFinished(ErrorClass.UNEXPECTED, "never_finished", _NOT_DONE, terminal=True)
            # a last look, rather than an end that is told half a minute late
            wait = min(wait, give_up_at - now)

    async def fresh_urls(self, claimed: Claimed) -> list[str]:
        """The picture's addresses as the provider gives them now; empty when it does not."""
        if claimed.provider_request_id is None:
            return []
        try:
            answer = await self._provider.fetch(claimed.provider_request_id, claimed.fetch_url)
        except ProviderFailure as failure:
            log.info("fetch_failed", attempt_id=str(claimed.attempt_id), code=failure.code)
            return []
        return [*answer.output_urls, *answer.proxy_urls] if isinstance(answer, Succeeded) else []

    def _first_wait(self, eta: float | None) -> float:
        settings = self._settings
        wait = settings.poll_interval if eta is None else max(eta, _SHORTEST_SHARE * settings.poll_interval)
        return min(wait, settings.poll_first_longest)

    def _interval(self) -> float:
        return self._settings.poll_interval * random.uniform(1 - _JITTER, 1 + _JITTER)

    def _next_wait(self, answer: Processing) -> float:
        interval = self._interval()
        # a short estimate is worth an earlier look
        return min(interval, max(answer.eta, _SHORTEST_SHARE * interval)) if answer.eta is not None else interval

    async def _wait(self, claimed: Claimed, seconds: float, began: float, eta: float | None, told: int) -> int:
        """Sleep `seconds`, telling progress every few seconds by how much of the eta has passed."""
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            await self._sleep(min(left, self._settings.progress_interval))
            percent = _estimate(self._clock() - began, eta)
            if percent >= told + _STEP_PERCENT and until - self._clock() > 0:
                try:
                    await self._progress(claimed.claim_token, percent)
                    told = percent
                except Unavailable:
                    # a picture of progress is not worth waiting for Postgres
                    continue
        return told


def _estimate(elapsed: float, eta: float | None) -> int:
    """Percent: most of the way when the eta has passed, and never quite there."""
    share = 1 - math.exp(-1.5 * elapsed / max(eta if eta is not None else _ETA_UNKNOWN, 0.1))
    return _FIRST_PROGRESS + int((_LAST_PROGRESS - _FIRST_PROGRESS) * share)
