"""What becomes of a record whose attempt failed: the verdict asked for, and carried out in one transaction."""

import random
from collections.abc import Callable
from dataclasses import replace

import structlog

from consumer import verdicts
from consumer.answers import ProviderFailure
from consumer.drafts import Drafts
from consumer.patience import patiently
from consumer.settings import ConsumerSettings
from consumer.taxonomy import PHASES
from schemas.errors import ErrorClass
from storage import settling
from storage.database import Database
from storage.dispatching import Claimed
from storage.settling import Claim, Failure
from telemetry import metrics

log = structlog.get_logger(__name__)


class Settlement:
    """Carries out verdicts; `slot_freed` wakes dispatch."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        database: Database,
        drafts: Drafts,
        slot_freed: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._drafts = drafts
        self._slot_freed = slot_freed

    async def settle(self, claimed: Claimed, failure: ProviderFailure) -> Claimed | None:
        """Ask for the verdict and carry it out."""
        tried: set[str] = set()
        if failure.error_class is ErrorClass.MODEL_UNAVAILABLE:
            tried = await patiently(lambda: settling.tried_models(self._database, claimed.claim_token))
            tried.add(claimed.model_id)
        draft = self._drafts.next(claimed, tried) if tried else None
        settings = self._settings
        verdict = verdicts.judge(
            verdicts.Failure(failure.error_class, failure.code, failure.message, failure.retry_after),
            verdicts.Facts(
                retry_count=claimed.retry_count,
                uncertain_policy=settings.uncertain,
                models_left=draft is not None,
                retry_delays=settings.retry_delays,
                jitter=random.random(),
                rate_limit_default=settings.rate_limit_default,
            ),
        )
        claim = claim_of(claimed)
        why = Failure(failure.error_class, failure.code, failure.message, failure.detail or None)
        uncertain = failure.error_class is ErrorClass.TIMEOUT
        log.info(
            "attempt_failed",
            record_id=str(claimed.record_id),
            attempt=claimed.attempt,
            model=claimed.model_id,
            error_class=failure.error_class.value,
            code=failure.code,
            detail=failure.detail,
            verdict=type(verdict).__name__,
        )
        metrics.count("attempts", model=claimed.model_id, outcome="uncertain" if uncertain else "failed")
        following: Claimed | None = None
        if claimed.outcome == "uncertain" and isinstance(verdict, verdicts.Retry):
            # its failure was counted when it became uncertain: the record only goes back to wait
            verdict = verdicts.Defer(settings.retry_delays[0] if settings.retry_delays else 1.0)
        if isinstance(verdict, verdicts.NextModel) and draft is not None:
            following = await patiently(lambda: settling.next_model(self._database, claim, why, draft))
        elif isinstance(verdict, verdicts.Retry):
            delay = verdict.delay
            if uncertain and claimed.webhook_token is not None:
                delay = max(delay, settings.uncertain_grace)
            metrics.count("retries", error_class=failure.error_class.value)
            await patiently(lambda: settling.retry(self._database, claim, why, delay=delay, uncertain=uncertain))
        elif isinstance(verdict, verdicts.Defer):
            deferral = verdict.delay
            metrics.count("deferrals", reason=failure.error_class.value)
            await patiently(lambda: settling.defer(self._database, claim, why, delay=deferral))
        elif isinstance(verdict, verdicts.Dead):
            await self._die(claimed, replace(why, code=verdict.code, message=verdict.message), verdict.error_class)
        self._slot_freed()
        return following

    async def give_up_unanswered(self, claimed: Claimed) -> None:
        """A submit that is still open when the grace of a stop ends, or whose worker died: its outcome is unknown."""
        metrics.count("uncertain")
        await self.settle(claimed, _unanswered())

    async def end_late(self, claimed: Claimed, code: str, message: str) -> None:
        await self._die(claimed, Failure(ErrorClass.DEADLINE, code, message), ErrorClass.DEADLINE)
        self._slot_freed()

    async def _die(self, claimed: Claimed, why: Failure, dead_class: ErrorClass) -> None:
        metrics.count("failed", error_class=dead_class.value)
        await patiently(
            lambda: settling.die(
                self._database,
                claim_of(claimed),
                why,
                dead_class=dead_class,
                uncertain=why.error_class is ErrorClass.TIMEOUT,
            )
        )


def claim_of(claimed: Claimed) -> Claim:
    """What a write for this claim is fenced with."""
    return Claim(claimed.claim_token, claimed.attempt_id)


def _unanswered() -> ProviderFailure:
    error_class, code, message = PHASES["no_answer"]
    return ProviderFailure(error_class, code, message, detail="no answer before the worker stopped")
