"""A process as a worker (PIPELINE W): its signs of life, what others may conclude from them, and what it may itself."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
import pytest

from consumer.worker import Worker
from local.postgres import Postgres
from storage import workers
from storage.answers import Answer
from storage.settings import DatabaseSettings
from tests.connected.steps import Steps
from tests.flow.wire import wire_to

pytestmark = pytest.mark.connected

LIFE = 0.6


@asynccontextmanager
async def working(
    url: str,
    *,
    life: float = LIFE,
    held: Callable[[], list[Answer]] = list,
    on_fenced: Callable[[], None] = lambda: None,
) -> AsyncIterator[Worker]:
    worker = Worker(
        DatabaseSettings(database_url=url, database_timeout=5.0),
        name="test",
        beat=0.05,
        life=life,
        held=held,
        on_fenced=on_fenced,
    )
    await worker.start()
    try:
        async with asyncio.timeout(20):
            await worker.registered()
        yield worker
    finally:
        await worker.stop(10)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if holds():
                return
            await asyncio.sleep(0.005)


async def test_it_is_on_record_and_alive_until_it_leaves(steps: Steps, database_url: str) -> None:
    async with working(database_url, life=60) as worker:
        (row,) = await steps.sql("SELECT *, alive_until > now() AS alive FROM workers")
        assert (row.id, row.name, row.alive, row.fenced_at) == (worker.id, "test", True, None)
    (row,) = await steps.sql("SELECT *, alive_until <= now() AS gone FROM workers")
    assert row.gone
    assert row.fenced_at is not None


async def test_fenced_it_goes_on_as_another_that_is_on_record(steps: Steps, database_url: str) -> None:
    told = asyncio.Event()
    async with working(database_url, life=60, on_fenced=told.set) as worker:
        before = worker.id
        await workers.leave(steps.database, before)
        async with asyncio.timeout(20):
            await told.wait()
        assert worker.id != before
        rows = await steps.sql("SELECT id FROM workers WHERE fenced_at IS NULL")
        assert [row.id for row in rows] == [worker.id]


async def test_the_busiest_loop_does_not_cost_it_its_claims(steps: Steps, database_url: str) -> None:
    async with working(database_url) as worker:
        # this is the main loop, and it does not turn until the signs have gone on for far more than a life
        with _goes_on(database_url, 3 * LIFE) as gone_on:
            deadline = time.monotonic() + 20
            while not gone_on.is_set() and time.monotonic() < deadline:
                pass
        assert gone_on.is_set()
        assert [row.id for row in await steps.sql("SELECT id FROM workers")] == [worker.id]


@contextmanager
def _goes_on(url: str, seconds: float) -> Iterator[threading.Event]:
    """Told once the only worker's life reaches so much further than at first; seen from a thread of its own."""
    gone_on, enough = threading.Event(), threading.Event()

    async def watch() -> None:
        connection = await asyncpg.connect(url)
        try:
            first = await connection.fetchval(_ALIVE_UNTIL)
            while not enough.is_set() and not gone_on.is_set():
                if (await connection.fetchval(_ALIVE_UNTIL) - first).total_seconds() > seconds:
                    gone_on.set()
                await asyncio.sleep(0.01)
        finally:
            await connection.close()

    watcher = threading.Thread(target=lambda: asyncio.run(watch()))
    watcher.start()
    try:
        yield gone_on
    finally:
        enough.set()
        watcher.join()


_ALIVE_UNTIL = "SELECT max(alive_until) FROM workers"


async def test_back_from_an_outage_it_first_writes_down_the_ids_it_holds(steps: Steps, database_url: str) -> None:
    claimed = await steps.sent()
    held = [Answer(claimed.claim_token, claimed.attempt_id, "job-1", "https://provider.test/1")]
    async with wire_to(database_url) as wire, working(wire.url, held=lambda: held) as worker:
        await steps.sql("UPDATE generation_attempts SET provider_request_id = NULL")
        # from here on it has a line to lose: a cut that it never notices is no outage
        await _until(lambda: worker.may_judge)
        await wire.cut()
        await _until(lambda: not worker.may_judge)
        await wire.mend()
        async with asyncio.timeout(20):
            while True:
                (attempt,) = await steps.attempts(claimed.record_id)
                if attempt.provider_request_id is not None:
                    break
        assert attempt.provider_request_id == "job-1"


async def test_it_is_known_when_the_next_worker_falls_silent(steps: Steps) -> None:
    assert await workers.next_silence(steps.database) is None
    await steps.die(await steps.worker())
    left = await steps.worker(life=1.0)
    await workers.leave(steps.database, left)
    assert await workers.next_silence(steps.database) is None
    await steps.worker(life=900.0)
    await steps.worker(life=600.0)
    silence = await workers.next_silence(steps.database)
    assert silence is not None
    assert 500.0 < silence <= 600.0


async def test_it_judges_others_only_when_its_own_line_has_held(database_url: str) -> None:
    began = time.monotonic()
    async with working(database_url) as worker:
        await _until(lambda: worker.may_judge)
        assert time.monotonic() - began > LIFE


@pytest.mark.chaos
async def test_after_postgres_stood_still_nobody_is_judged_for_it(private_postgres: Postgres) -> None:
    async with working(private_postgres.url()) as worker:
        await _until(lambda: worker.may_judge)
        private_postgres.pause()
        try:
            await _until(lambda: not worker.may_judge)
        finally:
            resumed = time.monotonic()
            private_postgres.resume()
        await _until(lambda: worker.may_judge)
        assert time.monotonic() - resumed > LIFE * 0.9
