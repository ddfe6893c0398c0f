"""One claim from its sending mark to its end (PIPELINE S, T, X).

A task owns its claim's token and nothing else: every write names it, and a write that finds it gone ends the task. Our
own Postgres being away is not a failure of the attempt: what must be written is written when it is back.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import structlog

from consumer.answers import Processing, ProviderFailure, Succeeded, flagged
from consumer.following import Follower, NeverFinished
from consumer.late import NO_PICTURE, Late, not_a_picture
from consumer.modelslab import ModelsLab
from consumer.patience import patiently
from consumer.pictures import NotAPicture
from consumer.settings import ConsumerSettings
from consumer.settlement import Settlement, claim_of, unanswered
from consumer.storing import Storing, TooLate
from consumer.work import Phase, Work, boot_clock
from schemas.errors import ErrorClass
from storage import deadlines, kept, settling, takeovers
from storage.answers import Answer, Answers
from storage.database import Database
from storage.dispatching import Claimed
from storage.hooks import Refuted
from storage.sending import Mark, Sending, SendingMarks
from storage.settling import Failure
from telemetry import metrics, traces

log = structlog.get_logger(__name__)

_LATE = "This image could not be made in time. Please request it again."
_OUR_FAULT = "Something went wrong on our side. Please try again; if it happens again, contact support."


def _since(began: float, claimed: Claimed) -> Claimed:
    """With the time that has passed taken from what its record has left."""
    return replace(claimed, seconds_left=claimed.seconds_left - (time.monotonic() - began))


class Generation:
    """Works on claims. `slot_freed` wakes dispatch; `held` (attempt id -> answer) is what is learned and unwritten;
    `longest` as in `Follower`.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        database: Database,
        provider: ModelsLab,
        settlement: Settlement,
        storing: Storing,
        slot_freed: Callable[[], None],
        clock: Callable[[], float] = boot_clock,
        longest: Callable[[str], float] = lambda _: math.inf,
    ) -> None:
        self._settings = settings
        self._database = database
        self._provider = provider
        self._settlement = settlement
        self._storing = storing
        self._slot_freed = slot_freed
        self._clock = clock
        self._marks = SendingMarks(database)
        self._answers = Answers(database)
        self._follower = Follower(settings, provider=provider, progress=self._answers.progress, longest=longest)
        self.late = Late(
            settings,
            database=database,
            provider=provider,
            follower=self._follower,
            storing=storing,
            slot_freed=slot_freed,
        )
        self.held: dict[UUID, Answer] = {}

    async def run(self, work: Work) -> None:
        """Bring one claim as far as it goes; never raises but for cancellation."""
        claimed: Claimed | None = work.claimed
        pause = self._settings.storing_retry
        while claimed is not None:
            work.claimed = claimed
            began = time.monotonic()
            try:
                claimed = await self._step(work)
                pause = self._settings.storing_retry
            except ProviderFailure as failure:
                work.phase = Phase.SETTLING
                claimed = await self._settlement.settle(work.claimed, failure)
            except Exception as error:
                # a bug of ours, its traceback is in the log
                log.exception("generation_broken", record_id=str(work.claimed.record_id))
                if work.claimed.provider_request_id is not None or work.claimed.output_urls:
                    # what the provider has taken is not submitted again for that (T2): the deadline ends it
                    work.phase = Phase.POLLING
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, self._settings.storing_retry_longest)
                    claimed = _since(began, work.claimed)
                    if claimed.seconds_left <= 0 and (claimed := await self._end_late(work.claimed)) is None:
                        # to whoever sweeps next, who may have no such bug
                        await patiently(lambda: kept.let_go(self._database, claim_of(work.claimed)))
                    continue
                work.phase = Phase.SETTLING
                claimed = await self._settlement.settle(
                    work.claimed,
                    ProviderFailure(ErrorClass.UNEXPECTED, "internal_error", _OUR_FAULT, detail=type(error).__name__),
                )

    async def _step(self, work: Work) -> Claimed | None:
        claimed = work.claimed
        if claimed.output_urls:
            if claimed.takeovers >= takeovers.MOST_TAKEOVERS:
                log.error("picture_kills_workers", record_id=str(claimed.record_id), takeovers=claimed.takeovers)
                await self._settlement.end(claimed, ErrorClass.UNEXPECTED, "kills_workers", NO_PICTURE)
                return None
            return await self._store(work, claimed.output_urls, claimed.proxy_urls)
        if claimed.provider_request_id is None:
            return await self._send(work)
        work.phase = Phase.POLLING
        if claimed.unconfirmed:
            return await self._confirm(work)
        began = time.monotonic()
        try:
            answer = await self._follower.follow(claimed)
        except NeverFinished:
            more = await self._end_late(claimed)
            if more is None:
                # it may be done yet: only then is its slot free, and its picture there for a replay (F3)
                await self.late.follow_ended(replace(claimed, seconds_left=0.0))
            return more
        work.claimed = _since(began, claimed)
        return await self._made(work, answer)

    async def _confirm(self, work: Work) -> Claimed | None:
        """A webhook named the job: only what the provider itself says of it counts."""
        began = time.monotonic()
        answer = await self.late.confirm(work.claimed)
        work.claimed = claimed = _since(began, work.claimed)
        if isinstance(answer, Succeeded):
            return await self._made(work, answer)
        if answer is not None:
            return await self._accepted(work, answer)
        refuted = await self.late.refute(claimed)
        if refuted is Refuted.UNANSWERED:
            work.claimed = claimed = replace(claimed, provider_request_id=None, unconfirmed=False)
            work.phase = Phase.SUBMITTING
            return await self._named(claimed, unanswered("the job that a webhook named is not ours"))
        if refuted is Refuted.LOST:
            await patiently(lambda: takeovers.hand_back(self._database, [claimed.claim_token]))
        self._slot_freed()
        return None

    async def _named(self, claimed: Claimed, failure: ProviderFailure) -> Claimed:
        """A submit was not answered: perhaps a webhook names its job. Raises `failure` where none does."""
        named = await self.late.named(claimed) if failure.error_class is ErrorClass.TIMEOUT else None
        if named is None:
            raise failure
        return replace(claimed, provider_request_id=named, unconfirmed=True)

    async def _send(self, work: Work) -> Claimed | None:
        claimed = work.claimed
        work.phase = Phase.STARTING
        marked_at, mark = await self._mark(claimed)
        if mark is Mark.DEADLINE:
            await self._settlement.end(claimed, ErrorClass.DEADLINE, "deadline_exceeded", _LATE)
            return None
        if mark is Mark.SUPERSEDED:
            why = Failure(ErrorClass.TIMEOUT, "superseded", _LATE)
            other = await patiently(lambda: settling.supersede(self._database, claim_of(claimed), why))
            # None: that other attempt has just ended, or our claim has; the next mark tells which
            return other or claimed
        if mark is Mark.LOST:
            metrics.count("fenced")
            # a claim lives only while its task lives (W1); where it has gone to another this writes nothing
            await patiently(lambda: takeovers.hand_back(self._database, [claimed.claim_token]))
            return None
        # later the world may have judged us dead (S4)
        if self._clock() - marked_at > self._settings.mark_life:
            log.warning("sending_mark_expired", record_id=str(claimed.record_id))
            sending = Sending(claimed.claim_token, claimed.attempt_id)
            return claimed if await patiently(lambda: self._marks.unmark(sending)) else None
        work.phase = Phase.SUBMITTING
        began = time.monotonic()
        try:
            with traces.span("provider.submit", claimed.traceparent):
                answer = await self._provider.submit(
                    claimed.payload,
                    path=claimed.path,
                    track_id=str(claimed.attempt_id),
                    webhook=self._webhook(claimed),
                )
        except ProviderFailure as failure:
            return await self._named(_since(began, claimed), failure)
        metrics.observe("provider_seconds", time.monotonic() - began, model=claimed.model_id)
        work.claimed = _since(began, claimed)
        if isinstance(answer, Succeeded):
            return await self._made(work, answer)
        return await self._accepted(work, answer)

    async def _mark(self, claimed: Claimed) -> tuple[float, Mark]:
        """The mark, and our clock before it was asked for (S4)."""
        again = False

        async def mark() -> tuple[float, Mark]:
            nonlocal again
            sending = Sending(claimed.claim_token, claimed.attempt_id, again)
            # a mark whose answer was lost with the connection may stand: it is ours, and nothing was sent under it
            again = True
            asked_at = self._clock()
            return asked_at, await self._marks.mark(sending)

        return await patiently(mark)

    async def _accepted(self, work: Work, answer: Processing) -> Claimed | None:
        """The provider gave an id: it is written down before anything else happens (S3)."""
        claimed = work.claimed
        said = Answer(claimed.claim_token, claimed.attempt_id, answer.provider_request_id, answer.fetch_url, answer.eta)
        known = replace(
            claimed,
            provider_request_id=answer.provider_request_id,
            unconfirmed=False,
            fetch_url=answer.fetch_url,
            eta=answer.eta,
        )
        # before anything can go wrong: whatever does, this record is followed and not submitted again
        work.claimed = known
        if await self._write_down(said):
            return known
        work.phase = Phase.POLLING
        await self.late.follow_ended(known)
        return None

    async def _made(self, work: Work, answer: Succeeded) -> Claimed | None:
        claimed = work.claimed
        if answer.nsfw:
            raise flagged(answer.provider_request_id)
        said = Answer(
            claimed.claim_token,
            claimed.attempt_id,
            answer.provider_request_id or claimed.provider_request_id,
            output_urls=answer.output_urls,
            proxy_urls=answer.proxy_urls,
        )
        made = replace(
            claimed,
            provider_request_id=said.provider_request_id,
            unconfirmed=False,
            output_urls=answer.output_urls,
            proxy_urls=answer.proxy_urls,
        )
        work.claimed = made
        if not await self._write_down(said):
            await self._keep(work)
            return None
        self._slot_freed()
        return made

    async def _write_down(self, said: Answer) -> bool:
        self.held[said.attempt_id] = said
        try:
            # shielded: a stop in this very moment must not lose what only we know
            return await asyncio.shield(patiently(lambda: self._answers.answered(said)))
        finally:
            self.held.pop(said.attempt_id, None)

    async def _store(self, work: Work, urls: list[str], proxies: list[str]) -> Claimed | None:
        claimed = work.claimed
        work.phase = Phase.STORING

        async def fresh() -> list[str]:
            return await self._follower.fresh_urls(claimed)

        try:
            stored = await self._storing.store(claimed, urls, proxies, fresh)
        except TooLate:
            more = await self._end_late(claimed)
            if more is None:
                await self._keep(work)
            return more
        except NotAPicture as error:
            raise not_a_picture(error) from None
        if await patiently(lambda: self._answers.stored(stored)):
            metrics.count("completed", lane=claimed.lane)
            metrics.count("attempts", model=claimed.model_id, outcome="success")
        elif not await self.late.keep(stored):
            metrics.count("fenced")
        return None

    async def _end_late(self, claimed: Claimed) -> Claimed | None:
        """End a record whose time is over, by the time that was known when it was claimed. An open breaker may have
        moved its deadline since (K2): then it goes on. None: it has ended, or is not ours any more.
        """
        overdue = await patiently(lambda: deadlines.end_claimed(self._database, claimed.claim_token))
        if overdue is not None and not overdue.ended:
            return replace(claimed, seconds_left=overdue.seconds_left)
        if overdue is not None:
            metrics.count("failed", error_class=ErrorClass.DEADLINE.value)
        return None

    async def _keep(self, work: Work) -> None:
        """The record has ended, and its picture is made: it is for a replay then."""
        work.phase = Phase.POLLING
        await self.late.follow_ended(replace(work.claimed, seconds_left=self._settings.late_storing))

    def _webhook(self, claimed: Claimed) -> str | None:
        if self._settings.public_url is None or claimed.webhook_token is None:
            return None
        return f"{self._settings.public_url}/hooks/modelslab/{claimed.webhook_token}"
