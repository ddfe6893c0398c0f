"""Dispatch: claims a second with their sending marks, and what one dispatch takes with many waiting."""

import asyncio
import time
from uuid import UUID, uuid4

from ground import Figure, Ground, Site, connected, cpu_of, percentile, wait_for_dispatch

from consumer.dispatch import _CLAIM_LIMIT
from consumer.drafts import Drafts
from consumer.models import Catalogue
from schemas.words import Lane
from storage import workers
from storage.database import Database
from storage.dispatching import Dispatcher
from storage.sending import Mark, Sending, SendingMarks

FIGURES = {
    "claims, with their sending marks": Figure("/s", 2_000, most=False),
    "claims, Postgres' CPU": Figure("us"),
    "claims, the dispatcher's own CPU": Figure("us"),
    "one dispatch for 5 slots, median": Figure("ms", 10),
    "one dispatch for 5 slots, p99": Figure("ms"),
    "one dispatch without a free slot, median": Figure("ms"),
}
_LIFE = 86_400.0
_SLOTS = 5
_DISPATCHES = 200


async def measure(ground: Ground, *, claims: int, waiting: int) -> dict[str, float]:
    """`claims` records for as many slots; then `waiting` records of 1,000 users in all lanes for five."""
    async with ground.site() as site, site.database() as database:
        found = await _rate(site, database, claims)
    async with ground.site() as site, site.database() as database:
        given, nothing = await _with_many_waiting(site, database, waiting)
    return found | {
        "one dispatch for 5 slots, median": percentile(given, 0.5),
        "one dispatch for 5 slots, p99": percentile(given, 0.99),
        "one dispatch without a free slot, median": percentile(nothing, 0.5),
    }


async def _rate(site: Site, database: Database, count: int) -> dict[str, float]:
    """A second, from the first dispatch to the last mark; marks go on beside the next dispatch, as in a consumer."""
    worker, dispatcher = await _worker(database, slots=count)
    marks = SendingMarks(database)
    await wait_for_dispatch(database, count)
    marking: list[asyncio.Task[Mark]] = []
    (postgres,), own = cpu_of(site.postgres), time.process_time()
    began = time.perf_counter()
    while len(marking) < count:
        for claimed in await dispatcher.claim(worker, limit=_CLAIM_LIMIT):
            sending = Sending(claimed.claim_token, claimed.attempt_id)
            marking.append(asyncio.create_task(marks.mark(sending)))
    made = await asyncio.gather(*marking)
    took = time.perf_counter() - began
    assert set(made) == {Mark.SENT}, set(made)
    return {
        "claims, with their sending marks": count / took,
        "claims, Postgres' CPU": (cpu_of(site.postgres)[0] - postgres) / count * 1e6,
        "claims, the dispatcher's own CPU": (time.process_time() - own) / count * 1e6,
    }


async def _with_many_waiting(site: Site, database: Database, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each dispatch that gives all slots away, and of each that finds none free."""
    worker, dispatcher = await _worker(database, slots=_SLOTS)
    await wait_for_dispatch(database, count, users=1_000, lanes=list(Lane))
    given: list[float] = []
    nothing: list[float] = []
    async with connected(site) as connection:
        # the first is planned
        for _ in range(1 + _DISPATCHES):
            for taken, expected in ((given, _SLOTS), (nothing, 0)):
                began = time.perf_counter()
                claims = await dispatcher.claim(worker, limit=_CLAIM_LIMIT)
                taken.append((time.perf_counter() - began) * 1000)
                assert len(claims) == expected, len(claims)
            await connection.execute("UPDATE provider_slots SET attempt_id = NULL")
    return given[1:], nothing[1:]


async def _worker(database: Database, *, slots: int) -> tuple[UUID, Dispatcher]:
    """A worker on record, and the dispatcher it would have."""
    worker = uuid4()
    await workers.register(database, worker, "bench", life=_LIFE)
    await workers.provide_slots(database, slots)
    drafts = Drafts(Catalogue.load(None))
    return worker, Dispatcher(database, drafts.next, run_deadline=900.0, bulk_deadline=_LIFE, models=drafts.models)
