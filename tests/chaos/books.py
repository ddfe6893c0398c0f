"""The books are closed: what was accepted, what became of it, what was paid, and what each page showed of it.

Postgres, the provider's own count and what the subscribers saw are held against each other. Nothing is asserted here:
`faults` says in words what does not fit.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import ValidationError
from pydantic_core import from_json
from sqlalchemy import Row

from schemas import topics
from schemas.events import StatusEvent
from storage.database import Database, Unavailable
from storage.fragments import STATUS_JSON
from tests.chaos import audit
from tests.chaos.pages import differing
from tests.chaos.people import PATIENCE, Person
from tests.chaos.street import Street

_TERMINAL = ("completed", "failed", "cancelled")
_PROVIDER_SAID_NO = ("failed", "late_failure", "deferred", "handed_over")
_NEVER_SENT = ("not_sent", "superseded", "cancelled", None)
_LOOK_AGAIN = 0.05

_RECORDS = (
    f"SELECT g.id, g.status, g.error_class, {STATUS_JSON} AS body FROM image_generations g WHERE user_id = ANY($1)"
)
_ATTEMPTS = "SELECT * FROM generation_attempts WHERE record_id = ANY($1::uuid[]) ORDER BY record_id, attempt"
_BUSY_SLOTS = (
    "SELECT s.slot, a.id, a.outcome, a.sent_at FROM provider_slots s JOIN generation_attempts a ON a.id = s.attempt_id"
)


@dataclass
class Books:
    """The counts. `duplicates`: pictures paid for beyond one a record, each of them of an attempt that was `uncertain`;
    `again`: marked to be sent though an id of the record was known; `missed`: records whose page differs at the end."""

    accepted: int = 0
    completed: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    submits: int = 0
    uncertain: int = 0
    duplicates: int = 0
    missed: int = 0
    lost: int = 0
    again: int = 0
    faults: list[str] = field(default_factory=list)
    records: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    attempts: dict[UUID, list[Row[Any]]] = field(default_factory=dict)


async def close(
    street: Street,
    database: Database,
    *people: Person,
    within: float = PATIENCE,
    facts: bool = True,
    slots: int | None = None,
) -> Books:
    """Wait until all has ended (`within` seconds) and been shown, then count.

    `facts`: Kafka still has all of them. `slots`: where it were others than the street's.
    """
    books = Books(accepted=sum(len(one.accepted) for one in people))
    await _all_ended(database, books, people, within)
    await _all_shown(books, people)
    await _paid(street, database, books, street.slots if slots is None else slots)
    await _pictures(street, books)
    if facts:
        await _facts(street, database, books)
    return books


async def _all_ended(database: Database, books: Books, people: Sequence[Person], within: float) -> None:
    users = [one.user_id for one in people]
    accepted = {record_id for one in people for record_id in one.accepted}

    async def ended() -> bool:
        rows = await database.fetch(_RECORDS, users)
        books.records = {row.id: {**from_json(row.body), "status": row.status} for row in rows}
        return accepted <= set(books.records) and all(row.status in _TERMINAL for row in rows)

    async def slots_free() -> bool:
        return not await database.fetch(_BUSY_SLOTS)

    await until(ended, within)
    for record_id in accepted - set(books.records):
        books.faults.append(f"{record_id} was accepted and is not there")
    for record_id, record in books.records.items():
        if record["status"] not in _TERMINAL:
            books.faults.append(f"{record_id} has not ended: {record}")
    books.lost = len(books.faults)
    books.completed = sum(record["status"] == "completed" for record in books.records.values())
    books.failed = Counter(r["error_code"] for r in books.records.values() if r["status"] == "failed")
    if not await until(slots_free, within):
        books.faults += [f"a slot is not free: {row}" for row in await database.fetch(_BUSY_SLOTS)]
    reopened = await database.fetch(audit.REOPENED, list(books.records))
    books.faults += [f"{row.record_id} left its terminal status at {row.at}" for row in reopened]


async def _all_shown(books: Books, people: Sequence[Person]) -> None:
    for one in people:
        mine = {str(i): record for i, record in books.records.items() if record["user_id"] == str(one.user_id)}

        def missed(page: dict[str, Any] = one.watcher.seen, mine: dict[str, Any] = mine) -> dict[str, Any]:
            return {i: wrong for i, record in mine.items() if (wrong := differing(record, page.get(i)))}

        await one.watcher.until(lambda missed=missed: not missed(), PATIENCE)  # type: ignore[misc]
        books.missed += len(missed())
        books.faults += [f"{i} at version {mine[i]['version']}: {wrong}" for i, wrong in missed().items()]
        books.faults += one.watcher.faults


async def _paid(street: Street, database: Database, books: Books, slots: int) -> None:
    records = list(books.records)
    attempts = await database.fetch(_ATTEMPTS, records)
    known = {str(row.id) for row in attempts}
    submits = Counter(c["track_id"] for c in await street.calls() if c["kind"] == "submit" and c["track_id"] in known)
    charged = Counter(job["track_id"] for job in await street.jobs() if job["charged"])
    books.submits = submits.total()
    books.faults += [f"attempt {i} was submitted {n} times" for i, n in submits.items() if n > 1]
    books.faults += [f"attempt {i} was charged {n} times" for i, n in charged.items() if n > 1 and i in known]
    grouped: defaultdict[UUID, list[Row[Any]]] = defaultdict(list)
    for row in attempts:
        grouped[row.record_id].append(row)
    books.attempts = dict(grouped)
    for record_id, mine in grouped.items():
        paid = [row for row in mine if charged[str(row.id)]]
        books.faults += [
            f"{row.id} of {record_id} was charged and is {row.outcome}" for row in paid if row.outcome in _NEVER_SENT
        ]
        # what the provider itself called off is paid or not as it sees fit
        kept = [row for row in paid if row.outcome not in _PROVIDER_SAID_NO]
        unsure = [row for row in mine if row.outcome == "uncertain" or str(row.outcome).startswith("late_")]
        books.uncertain += len(unsure)
        books.duplicates += max(0, len(kept) - 1)
        if len(kept) > 1 + len(unsure):
            books.faults.append(f"{record_id} was paid {len(kept)} times: {[(r.attempt, r.outcome) for r in mine]}")
    beside = await database.fetch(audit.SENT_BESIDE, records)
    books.again = len(beside)
    books.faults += [f"submitted again after an id was known: {row}" for row in beside]
    most = slots + books.uncertain
    if street.in_flight_max > most:
        books.faults.append(f"{street.in_flight_max} in flight at the provider, with {most} slots and uncertain ones")


async def _pictures(street: Street, books: Books) -> None:
    """Each completed picture can be read, from whichever notifier there is."""
    notifiers = street.urls("notifier")
    urls = [record["image_url"] for record in books.records.values() if record["status"] == "completed"]
    limit = asyncio.Semaphore(8)
    async with httpx.AsyncClient(timeout=30.0) as client:

        async def look(url: str) -> None:
            async with limit:
                for attempt in range(4 * len(notifiers)):
                    try:
                        answer = await client.get(url.replace(notifiers[0], notifiers[attempt % len(notifiers)]))
                    except httpx.TransportError as error:
                        problem = type(error).__name__
                        continue
                    if answer.status_code == 200 and answer.headers["content-type"].startswith("image/"):
                        return
                    problem = str(answer.status_code)
            books.faults.append(f"no picture at {url}: {problem}")

        await asyncio.gather(*(look(url) for url in urls))


async def _facts(street: Street, database: Database, books: Books) -> None:
    """One fact at least for each end. Events of other tests are passed over."""

    async def all_sent() -> bool:
        return not await database.fetch("SELECT id FROM outbox LIMIT 1")

    if not await until(all_sent, PATIENCE):
        books.faults.append("the outbox does not drain")
    told: set[tuple[UUID, str]] = set()
    client = AIOKafkaConsumer(bootstrap_servers=street.kafka.servers, auto_offset_reset="earliest")
    await client.start()
    try:
        parts = [
            TopicPartition(topic, number)
            for topic in (topics.COMPLETED, topics.FAILED)
            for number in range(topics.BY_NAME[topic].partitions)
        ]
        client.assign(parts)
        ends = await client.end_offsets(parts)
        for part in parts:
            while await client.position(part) < ends[part]:
                for record in (await client.getmany(part, timeout_ms=200)).get(part, []):
                    # among them what a test has put there for nobody to read
                    with contextlib.suppress(ValidationError):
                        fact = StatusEvent.model_validate_json(record.value or b"").data
                        told.add((fact.record_id, fact.status))
    finally:
        await client.stop()
    for record_id, record in books.records.items():
        if record["status"] in ("completed", "failed") and (record_id, record["status"]) not in told:
            books.faults.append(f"{record_id} is {record['status']} and no event says so")


async def until(holds: Callable[[], Awaitable[bool]], within: float) -> bool:
    """Whether it came to hold within so many seconds, Postgres being away or not."""
    try:
        async with asyncio.timeout(within):
            while True:
                try:
                    if await holds():
                        return True
                except Unavailable:
                    pass
                await asyncio.sleep(_LOOK_AGAIN)
    except TimeoutError:
        return False
