"""Between the sending mark and the call the machine may sleep: then nothing is sent under that mark (PIPELINE S4)."""

from pathlib import Path

import httpx
import pytest

from consumer.breaker import Breaker
from consumer.drafts import Drafts
from consumer.generation import Generation
from consumer.models import Catalogue
from consumer.modelslab import ModelsLab
from consumer.settlement import Settlement
from consumer.storing import Storing
from consumer.work import Work
from media.store import Media
from schemas.errors import ErrorClass
from storage import settling
from tests.connected.steps import SILENT, Steps, claim_of
from tests.flow.working import Pictures, Provider, settings_of

pytestmark = pytest.mark.connected


class Clock:
    """Gives these readings, then the last one for ever."""

    def __init__(self, *readings: float) -> None:
        self._readings = list(readings)

    def __call__(self) -> float:
        return self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]


@pytest.fixture
async def provider() -> Provider:
    return Provider()


async def _run(steps: Steps, provider: Provider, folder: Path, url: str, clock: Clock, work: Work) -> None:
    settings = settings_of(url, "nowhere:1", "", folder)
    async with httpx.AsyncClient(transport=Pictures().transport) as client:
        settlement = Settlement(
            settings,
            database=steps.database,
            drafts=Drafts(Catalogue.load()),
            breaker=Breaker(settings, database=steps.database),
            slot_freed=lambda: None,
        )
        generation = Generation(
            settings,
            database=steps.database,
            provider=ModelsLab(
                base_url="https://modelslab.com",
                api_key="the-key",
                submit_timeout=5,
                fetch_timeout=5,
                transport=provider.transport,
            ),
            settlement=settlement,
            storing=Storing(settings, media=Media(settings), client=client),
            slot_freed=lambda: None,
            clock=clock,
        )
        await generation.run(work)


async def test_a_mark_that_grew_old_is_taken_back_and_made_anew(
    steps: Steps, provider: Provider, tmp_path: Path, database_url: str
) -> None:
    claimed = await steps.claimed()
    await _run(steps, provider, tmp_path, database_url, Clock(0.0, 2.5, 10.0, 12.5, 20.0, 20.1), Work(claimed))
    row = await steps.record(claimed.record_id)
    assert (row.status, row.attempt, len(provider.submits)) == ("completed", 1, 1)
    await steps.check()


async def test_a_task_whose_claim_is_gone_asks_the_provider_for_nothing(
    steps: Steps, provider: Provider, tmp_path: Path, database_url: str
) -> None:
    claimed = await steps.claimed()
    await steps.sql("UPDATE image_generations SET claim_token = gen_random_uuid()")
    before = await steps.record(claimed.record_id)
    await _run(steps, provider, tmp_path, database_url, Clock(0.0), Work(claimed))
    assert (provider.submits, await steps.record(claimed.record_id)) == ([], before)


async def test_past_its_deadline_a_record_ends_unsent(
    steps: Steps, provider: Provider, tmp_path: Path, database_url: str
) -> None:
    claimed = await steps.claimed()
    await steps.sql("UPDATE image_generations SET deadline_at = now()")
    await _run(steps, provider, tmp_path, database_url, Clock(0.0), Work(claimed))
    row = await steps.record(claimed.record_id)
    assert (row.status, row.error_code, provider.submits) == ("failed", "deadline_exceeded", [])
    await steps.check()


async def test_beside_an_attempt_that_got_its_id_late_that_one_is_followed(
    steps: Steps, provider: Provider, tmp_path: Path, database_url: str
) -> None:
    first = await steps.sent()
    await steps.retry(first, SILENT, uncertain=True)
    await steps.due(first.record_id)
    (second,) = await steps.claim(await steps.worker())
    await steps.named(first, "late-job")
    await steps.sql("UPDATE generation_attempts SET eta = 0")
    await _run(steps, provider, tmp_path, database_url, Clock(0.0), Work(second))
    row = await steps.record(first.record_id)
    assert (row.status, row.retry_count) == ("completed", 1)
    assert ([call.job for call in provider.fetches], provider.submits) == (["late-job"], [])
    outcomes = [one.outcome for one in await steps.attempts(first.record_id)]
    assert outcomes == ["late_success", "superseded"]
    await steps.check()


async def test_a_picture_that_killed_three_workers_is_not_opened_again(
    steps: Steps, provider: Provider, tmp_path: Path, database_url: str
) -> None:
    claimed = await steps.sent()
    await steps.generated(claimed)
    await steps.sql("UPDATE image_generations SET takeovers = 2")
    await steps.sql("UPDATE workers SET alive_until = now() - interval '1 min'")
    (resumed,) = (await steps.take_over(await steps.worker())).resumed
    await _run(steps, provider, tmp_path, database_url, Clock(0.0), Work(resumed))
    row = await steps.record(claimed.record_id)
    assert (row.status, row.error_class, row.error_code) == ("failed", "unexpected", "kills_workers")
    assert row.image_key is None
    assert await steps.used() == 0


async def test_a_failure_after_the_end_of_its_record_closes_the_attempt_and_frees_the_slot(
    steps: Steps, provider: Provider, tmp_path: Path, database_url: str
) -> None:
    claimed = await steps.claimed()
    ended = settling.Failure(ErrorClass.DEADLINE, "deadline_exceeded", "too late")

    async def end_meanwhile(call: object) -> Exception:
        # as the sweep does with a sent attempt: it keeps its slot
        await steps.sql("UPDATE image_generations SET status = 'failed', stage = 'done', claim_token = NULL")
        return httpx.ReadTimeout(ended.message)

    provider.scripted(end_meanwhile)
    await _run(steps, provider, tmp_path, database_url, Clock(0.0), Work(claimed))
    (attempt,) = await steps.attempts(claimed.record_id)
    assert attempt.outcome == "uncertain"
    await steps.check()
    assert await steps.used() == 0
    assert not await settling.retry(steps.database, claim_of(claimed), SILENT, delay=1)
