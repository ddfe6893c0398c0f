"""What becomes of a record whose attempt failed: the verdict asked for, and carried out in one transaction."""

import random
from collections.abc import Callable
from dataclasses import replace

import structlog

from consumer import verdicts
from consumer.answers import ProviderFailure
from consumer.breaker import Breaker
from consumer.drafts import Drafts
from consumer.patience import patiently
from consumer.settings import ConsumerSettings
from consumer.taxonomy import PHASES
from schemas.errors import ErrorClass
from storage import kept, settling, takeovers
from storage.database import Database
from storage.dispatching import Claimed, Draft
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
        breaker: Breaker,
        slot_freed: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._drafts = drafts
        self._breaker = breaker
        self._slot_freed = slot_freed

    async def settle(self, claimed: Claimed, failure: ProviderFailure, *, ours: bool = False) -> Claimed | None:
        """Ask for the verdict and carry it out. `ours`: it says nothing of the provider, so no breaker counts it."""
        # of an uncertain attempt that was followed to its end, the failure was counted when it became uncertain
        late = claimed.outcome == "uncertain"
        breaker = self._breaker
        noted = await (breaker.stands() if ours else breaker.failed(claimed.attempt_id, failure.error_class))
        draft: Draft | None = None
        if failure.error_class is ErrorClass.MODEL_UNAVAILABLE:
            tried = await patiently(lambda: settling.tried_models(self._database, claimed.claim_token))
            draft = self._drafts.next(claimed, {*tried, claimed.model_id, *noted.shut})
        pauses = [noted.shut.get(model) for model in self._drafts.models(claimed)]
        settings = self._settings
        verdict = verdicts.judge(
            verdicts.Failure(failure.error_class, failure.code, failure.message, failure.retry_after),
            verdicts.Facts(
                retry_count=max(0, claimed.retry_count - int(late)),
                uncertain_policy=settings.uncertain,
                models_left=draft is not None,
                retry_delays=settings.retry_delays,
                jitter=random.random(),
                rate_limit_default=settings.rate_limit_default,
                paused=noted.paused,
                models_shut_for=min(pause for pause in pauses if pause is not None) if None not in pauses else None,
            ),
        )
        claim = claim_of(claimed)
        why = Failure(failure.error_class, failure.code, failure.message, failure.detail or None)
        # with an id it is known: the job itself is over
        uncertain = failure.error_class is ErrorClass.TIMEOUT and claimed.provider_request_id is None
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
        held = True
        if late and not isinstance(verdict, verdicts.Dead):
            held = await patiently(lambda: settling.back_to_retry(self._database, claim, why))
        elif isinstance(verdict, verdicts.NextModel) and draft is not None:
            following = await patiently(lambda: settling.next_model(self._database, claim, why, draft))
            held = following is not None
        elif isinstance(verdict, verdicts.Retry):
            delay = verdict.delay
            if uncertain and claimed.webhook_token is not None:
                delay = max(delay, settings.uncertain_grace)
            metrics.count("retries", error_class=failure.error_class.value)
            held = await patiently(lambda: settling.retry(self._database, claim, why, delay=delay, uncertain=uncertain))
        elif isinstance(verdict, verdicts.Defer):
            deferral = verdict.delay
            metrics.count("deferrals", reason=failure.error_class.value)
            held = await patiently(lambda: settling.defer(self._database, claim, why, delay=deferral))
        elif isinstance(verdict, verdicts.PutOff):
            delay = verdict.delay
            if uncertain and claimed.webhook_token is not None:
                delay = max(delay, settings.uncertain_grace)
            metrics.count("deferrals", reason="breaker")
            held = await patiently(
                lambda: settling.put_off(self._database, claim, why, delay=delay, uncertain=uncertain)
            )
        elif isinstance(verdict, verdicts.Dead):
            why = replace(why, code=verdict.code, message=verdict.message)
            held = await self._die(claimed, why, verdict.error_class, uncertain=uncertain)
        if not held:
            await self._let_go(claimed, "uncertain" if uncertain else "failed", why)
        self._slot_freed()
        return following

    async def _let_go(self, claimed: Claimed, outcome: str, why: Failure) -> None:
        """The claim did not hold: either the record has ended or goes on without this attempt, and it is ours to close,
        or the verdict is on record and only its answer was lost, or the attempt has got an id and is followed."""
        metrics.count("fenced")
        if not await patiently(lambda: kept.close(self._database, claim_of(claimed), outcome, why)):
            await patiently(lambda: takeovers.hand_back(self._database, [claimed.claim_token]))

    async def give_up_unanswered(self, claimed: Claimed) -> None:
        """A submit that is still open when the grace of a stop ends, or whose worker died: its outcome is unknown."""
        metrics.count("uncertain")
        await self.settle(claimed, unanswered("no answer before the worker stopped"), ours=True)

    async def end(self, claimed: Claimed, error_class: ErrorClass, code: str, message: str) -> None:
        """End the record without asking for a verdict."""
        why = Failure(error_class, code, message)
        if not await self._die(claimed, why, error_class):
            await self._let_go(claimed, "failed", why)
        self._slot_freed()

    async def _die(self, claimed: Claimed, why: Failure, dead_class: ErrorClass, *, uncertain: bool = False) -> bool:
        held = await patiently(
            lambda: settling.die(self._database, claim_of(claimed), why, dead_class=dead_class, uncertain=uncertain)
        )
        if held:
            metrics.count("failed", error_class=dead_class.value)
        return held


def claim_of(claimed: Claimed) -> Claim:
    """What a write for this claim is fenced with."""
    return Claim(claimed.claim_token, claimed.attempt_id)


def unanswered(detail: str) -> ProviderFailure:
    """A submit was sent, and nobody waits for its answer any more."""
    error_class, code, message = PHASES["no_answer"]
    return ProviderFailure(error_class, code, message, detail=detail)
