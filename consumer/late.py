"""Answers that come late: the job that a webhook names, the picture of a record that has ended (PIPELINE S1, W6, F3).

A webhook's word is nobody's until the provider itself, asked by fetch, knows the job. What comes after a record's end
is written on its attempt alone, under the attempt's own claim.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from consumer.answers import Processing, ProviderFailure, Succeeded, flagged
from consumer.following import Follower
from consumer.modelslab import ModelsLab
from consumer.patience import patiently
from consumer.settings import ConsumerSettings
from consumer.settlement import claim_of
from consumer.storing import NotAPicture, Storing, TooLate
from schemas.errors import ErrorClass
from storage import answers, hooks, kept
from storage.answers import Answer
from storage.database import Database
from storage.dispatching import Claimed
from storage.settling import Failure
from storage.takeovers import MOST_TAKEOVERS
from telemetry import metrics

log = structlog.get_logger(__name__)

NO_PICTURE = "The image service gave something that is no picture. Please try again."

_JITTER = 0.2
_TRIES_AFTER_THE_END = 100
"""About as often a picture is tried to be stored after its record's end: nobody waits for it."""
# of the account, not of the job: they pass, and nothing may be submitted beside the id until they have
_NOT_THE_JOBS = frozenset({ErrorClass.AUTH, ErrorClass.QUOTA, ErrorClass.RATE_LIMITED})
_UNKNOWN_THERE = frozenset({"request_not_found", "no_such_endpoint"})


def not_a_picture(error: NotAPicture) -> ProviderFailure:
    """Every address gave something else."""
    return ProviderFailure(ErrorClass.UNEXPECTED, "not_a_picture", NO_PICTURE, detail=str(error), terminal=True)


class Late:
    """Finds out what is behind ids that only webhooks know, and follows attempts past their records' ends."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        database: Database,
        provider: ModelsLab,
        follower: Follower,
        storing: Storing,
        slot_freed: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._provider = provider
        self._follower = follower
        self._storing = storing
        self._slot_freed = slot_freed

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

    async def follow_ended(self, claimed: Claimed) -> None:
        """Follow an attempt whose record has ended until its slot is free and its picture kept; never raises but for
        cancellation, which gives the attempt up to whoever sweeps next."""
        try:
            await self._follow_ended(claimed)
        except ProviderFailure as failure:
            log.info("ended_attempt_failed", attempt_id=str(claimed.attempt_id), code=failure.code)
            await self._close(claimed, "failed", failure)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1.0):
                    await kept.let_go(self._database, claim_of(claimed))
            raise
        except Exception:
            log.exception("following_broken", attempt_id=str(claimed.attempt_id))
            # adopted again at the next sweep: not more often than this
            await asyncio.sleep(self._settings.storing_retry_longest)
        self._slot_freed()

    async def _follow_ended(self, claimed: Claimed) -> None:
        if claimed.output_urls is None:
            answer = await self._answer(claimed)
            if answer is None:
                return
            claimed = replace(
                claimed,
                provider_request_id=answer.provider_request_id or claimed.provider_request_id,
                output_urls=answer.output_urls,
                proxy_urls=answer.proxy_urls,
                seconds_left=self._settings.late_storing,
            )
        urls, proxies = claimed.output_urls or [], claimed.proxy_urls
        if not await patiently(
            lambda: kept.made(
                self._database,
                claim_of(claimed),
                provider_request_id=claimed.provider_request_id,
                output_urls=urls,
                proxy_urls=proxies,
            )
        ):
            return
        self._slot_freed()
        if claimed.takeovers >= MOST_TAKEOVERS:
            raise ProviderFailure(ErrorClass.UNEXPECTED, "kills_workers", NO_PICTURE, terminal=True)
        await self._keep(claimed, urls)

    async def _answer(self, claimed: Claimed) -> Succeeded | None:
        """The made picture of an ended record; None: the job that a webhook named is not ours. Raises as `confirm`."""
        # a job is given the time that a record has, and no more: it holds a slot
        claimed = replace(claimed, seconds_left=min(claimed.seconds_left, self._settings.run_deadline))
        answer: Succeeded | Processing | None = None
        if claimed.unconfirmed:
            answer = await self.confirm(claimed)
            if answer is None:
                await self.refute(claimed)
                return None
            said = Answer(claimed.claim_token, claimed.attempt_id, claimed.provider_request_id)
            await patiently(lambda: answers.learn(self._database, [said]))
        if not isinstance(answer, Succeeded):
            answer = await self._follower.follow(claimed, grace=self._settings.submit_timeout)
        if answer.nsfw:
            raise flagged(answer.provider_request_id)
        return answer

    async def _keep(self, claimed: Claimed, urls: list[str]) -> None:
        async def fresh() -> list[str]:
            return await self._follower.fresh_urls(claimed)

        longest = max(self._settings.storing_retry_longest, self._settings.late_storing / _TRIES_AFTER_THE_END)
        try:
            stored = await self._storing.store(claimed, urls, claimed.proxy_urls, fresh, longest=longest)
        except TooLate:
            log.warning("late_picture_not_stored", attempt_id=str(claimed.attempt_id))
            metrics.count("late_answers", outcome="addresses")
            await self._close(claimed, "late_success")
        except NotAPicture as error:
            raise not_a_picture(error) from None
        else:
            await self.keep(stored)

    async def keep(self, stored: answers.Stored) -> bool:
        """Keep a stored picture on its attempt, for a replay; False: its record has not ended, or it is in other
        hands."""
        held = await patiently(lambda: kept.stored(self._database, stored))
        if held:
            metrics.count("late_answers", outcome="kept")
        return held

    async def _close(self, claimed: Claimed, outcome: str, failure: ProviderFailure | None = None) -> None:
        why = None
        if failure is not None:
            why = Failure(failure.error_class, failure.code, failure.message, failure.detail or None)
        await patiently(lambda: kept.close(self._database, claim_of(claimed), outcome, why))
