"""Answers that come late: the job that a webhook names, the picture of a record that has ended (PIPELINE S1, W6, F3).

A webhook's word is nobody's until the provider itself, asked by fetch, knows the job.
"""

import asyncio
import random
import time

import structlog

from consumer.answers import Processing, ProviderFailure, Succeeded
from consumer.modelslab import ModelsLab
from consumer.patience import patiently
from consumer.settings import ConsumerSettings
from schemas.errors import ErrorClass
from storage import hooks
from storage.database import Database
from storage.dispatching import Claimed
from telemetry import metrics

log = structlog.get_logger(__name__)

_JITTER = 0.2
# of the account, not of the job: they pass, and nothing may be submitted beside the id until they have
_NOT_THE_JOBS = frozenset({ErrorClass.AUTH, ErrorClass.QUOTA, ErrorClass.RATE_LIMITED})
_UNKNOWN_THERE = frozenset({"request_not_found", "no_such_endpoint"})


class Late:
    """Finds out what is behind ids that only webhooks know."""

    def __init__(self, settings: ConsumerSettings, *, database: Database, provider: ModelsLab) -> None:
        self._settings = settings
        self._database = database
        self._provider = provider

    async def named(self, claimed: Claimed) -> str | None:
        """The id that a webhook gave to a submit which was not answered.

        Where its record is to end for that (`uncertain=fail`), the webhook gets the grace to come; otherwise it may
        come while the record waits for its retry.
        """
        if self._settings.public_url is None or claimed.webhook_token is None:
            return None
        until = time.monotonic() + self._settings.webhook_grace
        while True:
            request_id = await patiently(lambda: hooks.named(self._database, claimed.attempt_id))
            left = until - time.monotonic()
            if request_id is not None or left <= 0:
                return request_id
            await asyncio.sleep(min(left, self._settings.sweep))

    async def confirm(self, claimed: Claimed) -> Succeeded | Processing | None:
        """What the provider says of an id that only a webhook has named; None: it is not our job's.

        Raises ProviderFailure when the job failed. A look that fails for other reasons is repeated, until the deadline
        and the submit timeout beyond it: then the id counts as not known.
        """
        assert claimed.provider_request_id is not None
        give_up_at = time.monotonic() + max(0.0, claimed.seconds_left) + self._settings.submit_timeout
        while time.monotonic() <= give_up_at:
            try:
                answer = await self._provider.fetch(claimed.provider_request_id, None)
            except ProviderFailure as failure:
                log.info("confirmation_failed", attempt_id=str(claimed.attempt_id), code=failure.code)
                if failure.code in _UNKNOWN_THERE:
                    return None
                if failure.terminal and failure.error_class not in _NOT_THE_JOBS:
                    if failure.provider_request_id == claimed.provider_request_id:
                        metrics.count("late_answers", outcome="failed")
                        raise
                    # it names no job, so it says nothing of ours
                    return None
                pause = self._settings.poll_interval * random.uniform(1 - _JITTER, 1 + _JITTER)
                await asyncio.sleep(max(pause, failure.retry_after or 0.0))
            else:
                if answer.track_id not in (None, str(claimed.attempt_id)):
                    return None
                metrics.count("late_answers", outcome="confirmed")
                return answer
        return None

    async def refute(self, claimed: Claimed) -> hooks.Refuted:
        """Forget the id: a later webhook may name another."""
        metrics.count("late_answers", outcome="refuted")
        log.warning("webhook_refuted", record_id=str(claimed.record_id), attempt_id=str(claimed.attempt_id))
        assert claimed.provider_request_id is not None
        request_id = claimed.provider_request_id
        return await patiently(
            lambda: hooks.refute(self._database, claimed.claim_token, claimed.attempt_id, request_id)
        )
