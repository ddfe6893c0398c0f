"""Everything that still waits, brought to its end: workers that live, and a provider that answers at once and truly."""

from dataclasses import replace
from uuid import UUID, uuid4

from schemas.errors import ErrorClass
from storage import abandoned, admitting, deadlines, hooks, kept, settling, takeovers, workers
from storage.answers import Answer
from storage.dispatching import Claimed
from storage.hooks import Refuted
from storage.sending import Mark
from storage.settling import Failure
from tests.connected.steps import SILENT, Steps, claim_of

LATE = Failure(ErrorClass.DEADLINE, "deadline_exceeded", "too late")


class Jobs:
    """Which attempt each of the provider's ids is of; whoever forges one names no job."""

    def __init__(self) -> None:
        self._of: dict[str, UUID] = {}

    def taken(self, claimed: Claimed) -> str:
        """The provider takes the attempt: its id."""
        job = f"job-{uuid4()}"
        self._of[job] = claimed.attempt_id
        return job

    def said(self, claimed: Claimed) -> Answer:
        """The same as an answer."""
        return Answer(claimed.claim_token, claimed.attempt_id, self.taken(claimed))

    def knows(self, claimed: Claimed) -> bool:
        return self._of.get(claimed.provider_request_id or "") == claimed.attempt_id


async def confirm(steps: Steps, jobs: Jobs, claimed: Claimed) -> Claimed | None:
    """What a webhook named is looked for; None: it is no job of this attempt, and forgotten."""
    assert claimed.unconfirmed
    assert claimed.provider_request_id is not None
    if jobs.knows(claimed):
        said = Answer(claimed.claim_token, claimed.attempt_id, claimed.provider_request_id)
        await steps.answers.answered(said)
        return replace(claimed, unconfirmed=False)
    refuted = await hooks.refute(steps.database, claimed.claim_token, claimed.attempt_id, claimed.provider_request_id)
    if refuted is Refuted.UNANSWERED:
        await settling.retry(steps.database, claim_of(claimed), SILENT, delay=0, uncertain=True)
    elif refuted is Refuted.LOST:
        await takeovers.hand_back(steps.database, [claimed.claim_token])
    return None


async def resume(steps: Steps, jobs: Jobs, claimed: Claimed) -> None:
    """A claim with an id or addresses is brought to its picture."""
    known = await confirm(steps, jobs, claimed) if claimed.unconfirmed else claimed
    if known is not None:
        assert known.output_urls or await steps.generated(known)
        assert await steps.stored(known)


async def follow(steps: Steps, jobs: Jobs, claimed: Claimed) -> None:
    """An attempt whose record has ended."""
    known = await confirm(steps, jobs, claimed) if claimed.unconfirmed else claimed
    if known is not None:
        assert await steps.made_late(known)
        assert await steps.kept(known)


async def send(steps: Steps, jobs: Jobs, claimed: Claimed) -> None:
    """A claim that was just given is sent and made, or gives way."""
    mark = await steps.mark(claimed)
    if mark is Mark.SENT:
        await resume(steps, jobs, claimed)
    elif mark is Mark.SUPERSEDED:
        other = await settling.supersede(steps.database, claim_of(claimed), SILENT)
        if other is not None:
            await resume(steps, jobs, other)
    elif mark is Mark.DEADLINE:
        await settling.die(steps.database, claim_of(claimed), LATE, dead_class=ErrorClass.DEADLINE)
    else:
        await takeovers.hand_back(steps.database, [claimed.claim_token])


async def sweep(steps: Steps, jobs: Jobs, worker: UUID) -> None:
    """As a consumer sweeps, with everything done at once."""
    database = steps.database
    await kept.complete_replayed(database)
    for resumed in (await steps.take_over(worker)).resumed:
        await resume(steps, jobs, resumed)
    await workers.fence_silent(database, after=20)
    for lost in await abandoned.unanswered(database, after=20):
        await settling.retry(database, claim_of(lost), SILENT, delay=0, uncertain=True)
    for orphan in await steps.adopt(worker):
        await follow(steps, jobs, orphan)
    await deadlines.end_overdue(database, claimed_grace=0)
    await admitting.admit_overdue(database, after=0)
    # time passes
    await steps.sql("UPDATE image_generations SET retry_at = now() WHERE retry_at > now()")


async def everything_ends(steps: Steps, jobs: Jobs) -> None:
    """One worker is left, and nothing fails any more: soon nothing is open."""
    worker = await steps.worker()
    for _ in range(30):
        await sweep(steps, jobs, worker)
        for claimed in await steps.claim(worker):
            await send(steps, jobs, claimed)
        left = await steps.sql(
            "SELECT id::text, status, stage, attempt, claim_token::text, retry_at::text FROM image_generations"
            " WHERE status NOT IN ('completed', 'failed', 'cancelled')"
        )
        open_ = await steps.sql(
            "SELECT a.id::text, a.record_id::text, a.attempt, a.outcome, a.sent_at::text, g.status"
            " FROM generation_attempts a JOIN image_generations g ON g.id = a.record_id"
            " WHERE (a.outcome IS NULL OR a.outcome = 'uncertain') AND (a.provider_request_id IS NOT NULL"
            " OR a.webhook_request_id IS NOT NULL OR a.output_urls IS NOT NULL)"
        )
        if not left and not open_ and not await steps.used():
            return
    raise AssertionError(f"not ended: {left}; still open: {open_}; slots: {await steps.slots()}")
