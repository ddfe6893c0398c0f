"""The storage rooms worked by hand, step by step, as the processes do, and what stands in Postgres afterwards."""

import itertools
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel
from sqlalchemy import Row
from uuid_utils.compat import uuid7

from schemas import events, topics
from schemas.errors import ErrorClass
from schemas.events import RequestedData
from schemas.requests import SceneImageRequest
from schemas.words import Lane, Tier
from storage import abandoned, admitting, kept, replaying, settling, takeovers, workers
from storage.accepting import Accepted, Acceptor, NewRequest
from storage.admitting import Admitted, Asked
from storage.answers import Answer, Answers, Stored
from storage.database import Database
from storage.dispatching import Claimed, Dispatcher, Draft, Waiting
from storage.fragments import STATUS_JSON
from storage.replaying import Replayed
from storage.sending import Mark, Sending, SendingMarks
from storage.settings import DatabaseSettings
from storage.settling import Claim, Failure

LIFE = 3_600.0
RUN_DEADLINE, BULK_DEADLINE = 900.0, 86_400.0
FACTS: dict[str, Any] = {"content_type": "image/png", "bytes": 3, "sha256": "ab", "width": 16, "height": 9}
BUSY = Failure(ErrorClass.UNAVAILABLE, "provider_unavailable", "The image service is busy.", "HTTP 503: later")
SILENT = Failure(ErrorClass.TIMEOUT, "no_answer", "The image service did not answer.")

_MODELS: dict[str, type[BaseModel]] = {
    events.REQUESTED_TYPE: events.RequestedEvent,
    events.RETRY_TYPE: events.RetryEvent,
    events.STATUS_TYPE: events.StatusEvent,
    events.COMPLETED_TYPE: events.CompletedEvent,
    events.FAILED_TYPE: events.FailedEvent,
    events.DEAD_TYPE: events.DeadEvent,
}


@dataclass(frozen=True, slots=True)
class Told:
    """One row of the outbox; `event` is its CloudEvent, already held against its model."""

    topic: str
    key: str
    headers: dict[str, str]
    event: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = self.event["data"]
        return data


def request(
    user: UUID | None = None,
    *,
    chapter: UUID | None = None,
    scene: int = 1,
    tier: Tier = Tier.FREE,
    text: str = "A mad tea party",
    key: str | None = None,
    fingerprint: str | None = "same",
    record_id: UUID | None = None,
) -> NewRequest:
    return NewRequest(
        record_id or uuid7(),
        user or uuid4(),
        chapter or uuid4(),
        scene,
        SceneImageRequest.model_validate_json(json.dumps({"scene_description": text})),
        tier,
        idempotency_key=key,
        fingerprint=fingerprint if key is not None else None,
    )


def asked(new: NewRequest, *, lane: Lane | None = None, user: UUID | None = None) -> Asked:
    """The event of a request, as a consumer reads it."""
    data = RequestedData.model_validate_json(
        json.dumps(
            {
                "record_id": str(new.record_id),
                "user_id": str(user or new.user_id),
                "chapter_id": str(new.chapter_id),
                "scene_number": new.scene_number,
                "scene_description": new.body.scene_description,
                "user_tier": new.tier.value,
            }
        )
    )
    return Asked(data, lane or new.tier.lane, None)


def draft(waiting: Waiting, without: Collection[str] = (), model: str = "first-model") -> Draft | None:
    if model in without:
        return None
    prompt = f"{model}: {waiting.scene_description}"
    payload: dict[str, object] = {"model_id": model, "prompt": prompt}
    return Draft(model, prompt, "/api/v7/images/text-to-image", payload, 0.033, webhook_token=uuid4().hex)


class Steps:
    """Each method is one step of a request's way; `check` holds the rules that no step may break."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.acceptor = Acceptor(database, deadline=86_400.0)
        self.dispatcher = dispatcher_of(database)
        self.marks = SendingMarks(database)
        self.answers = Answers(database)
        self._versions: dict[UUID, int] = {}
        self._terminal: dict[UUID, str] = {}
        self._ids = itertools.count(1)

    async def worker(self, *, life: float = LIFE) -> UUID:
        worker_id = uuid4()
        await workers.register(self.database, worker_id, "test", life=life)
        return worker_id

    async def die(self, worker_id: UUID, *, ago: float = 1.0) -> None:
        """The worker's last sign of life was good until `ago` seconds ago."""
        await self.sql(
            "UPDATE workers SET alive_until = clock_timestamp() - make_interval(secs => $2) WHERE id = $1",
            worker_id,
            ago,
        )

    async def accept(self, *new: NewRequest) -> list[Accepted]:
        return [await self.acceptor.accept(one) for one in new]

    async def admit(self, *events_in: Asked) -> Admitted:
        return await admitting.admit(self.database, events_in, deadline=86_400.0)

    async def waiting(self, *new: NewRequest) -> list[UUID]:
        """Requests accepted and admitted."""
        made = new or (request(),)
        await self.accept(*made)
        await self.admit(*(asked(one) for one in made))
        return [one.record_id for one in made]

    async def claim(self, worker_id: UUID, limit: int = 50) -> list[Claimed]:
        claims = await self.dispatcher.claim(worker_id, limit=limit)
        await self.check()
        return claims

    async def claimed(self, worker_id: UUID | None = None, *new: NewRequest) -> Claimed:
        """One request, accepted, admitted and claimed."""
        await self.waiting(*new)
        (one,) = await self.claim(worker_id or await self.worker())
        return one

    async def mark(self, claimed: Claimed, *, again: bool = False) -> Mark:
        mark = await self.marks.mark(Sending(claimed.claim_token, claimed.attempt_id, again=again))
        await self.check()
        return mark

    async def sent(self, worker_id: UUID | None = None, *new: NewRequest) -> Claimed:
        """The same, and marked as sending."""
        claimed = await self.claimed(worker_id, *new)
        assert await self.mark(claimed) is Mark.SENT
        return claimed

    async def named(self, claimed: Claimed, provider_request_id: str | None = None) -> bool:
        """The provider gave an id."""
        said = provider_request_id or f"job-{next(self._ids)}"
        held = await self.answers.answered(
            Answer(claimed.claim_token, claimed.attempt_id, said, f"https://provider.test/fetch/{said}", 4.0)
        )
        await self.check()
        return held

    async def generated(self, claimed: Claimed) -> bool:
        """The provider gave the picture's addresses."""
        held = await self.answers.answered(
            Answer(
                claimed.claim_token,
                claimed.attempt_id,
                None,
                output_urls=["https://pictures.test/1.png"],
                proxy_urls=["https://proxy.test/1.png"],
            )
        )
        await self.check()
        return held

    async def stored(self, claimed: Claimed) -> bool:
        held = await self.answers.stored(
            Stored(claimed.claim_token, claimed.attempt_id, "aa/picture.png", "https://push.test/p.png", FACTS)
        )
        await self.check()
        return held

    async def retry(
        self, claimed: Claimed, why: Failure = BUSY, *, delay: float = 5.0, uncertain: bool = False
    ) -> bool:
        held = await settling.retry(self.database, claim_of(claimed), why, delay=delay, uncertain=uncertain)
        await self.check()
        return held

    async def dead(self, claimed: Claimed, why: Failure = BUSY, *, of: ErrorClass = ErrorClass.EXHAUSTED) -> int:
        """The claim's record ends as failed; the id of its letter."""
        assert await settling.die(self.database, claim_of(claimed), why, dead_class=of)
        await self.check()
        return (await self.letters(claimed.record_id))[-1].id

    async def letters(self, record_id: UUID) -> Sequence[Row[Any]]:
        return await self.sql("SELECT * FROM dead_letters WHERE record_id = $1 ORDER BY id", record_id)

    async def replay(self, *letters: int, deadline: float = 86_400.0) -> Replayed:
        replayed = await replaying.replay(self.database, letters, deadline=deadline)
        # the one thing that ends the end
        for row in await self.sql("SELECT record_id FROM dead_letters WHERE id = ANY($1::bigint[])", replayed.done):
            self._terminal.pop(row.record_id, None)
        await self.check()
        return replayed

    async def due(self, *records: UUID) -> None:
        """Their retries are due now."""
        await self.sql("UPDATE image_generations SET retry_at = now() WHERE id = ANY($1::uuid[])", list(records))

    async def take_over(self, worker_id: UUID, *, judge: bool = True) -> takeovers.Taken:
        taken = await takeovers.take_over(self.database, worker_id, judge=judge)
        await self.check()
        return taken

    async def adopt(self, worker_id: UUID, *held: Claimed, keep_trying: float = LIFE) -> list[Claimed]:
        """Attempts of ended records that nobody follows; `held` are those that this worker's tasks follow."""
        tokens = [one.claim_token for one in held]
        orphans = await abandoned.adopt_orphans(self.database, worker_id, tokens, keep_trying=keep_trying)
        await self.check()
        return orphans

    async def made_late(self, claimed: Claimed) -> bool:
        """The provider gave the addresses of an ended record's picture."""
        held = await kept.made(
            self.database,
            claim_of(claimed),
            provider_request_id=claimed.provider_request_id,
            output_urls=["https://pictures.test/1.png"],
            proxy_urls=[],
        )
        await self.check()
        return held

    async def kept(self, claimed: Claimed) -> bool:
        """The picture of an ended record is stored."""
        picture = Stored(claimed.claim_token, claimed.attempt_id, "aa/late.png", "https://push.test/late.png", FACTS)
        held = await kept.stored(self.database, picture)
        await self.check()
        return held

    async def again(self, record_id: UUID) -> None:
        """A record that has failed is replayed by its dead letter."""
        (row,) = await self.sql(
            "SELECT max(id) AS letter FROM dead_letters WHERE record_id = $1 AND replayed_at IS NULL", record_id
        )
        assert (await self.replay(row.letter)).done == [row.letter]

    async def sql(self, statement: str, *args: object) -> Sequence[Row[Any]]:
        return await self.database.fetch(statement, *args)

    async def record(self, record_id: UUID) -> Row[Any]:
        (row,) = await self.sql("SELECT * FROM image_generations WHERE id = $1", record_id)
        return row

    async def attempts(self, record_id: UUID) -> Sequence[Row[Any]]:
        return await self.sql("SELECT * FROM generation_attempts WHERE record_id = $1 ORDER BY attempt", record_id)

    async def slots(self) -> dict[int, UUID | None]:
        return {row.slot: row.attempt_id for row in await self.sql("SELECT * FROM provider_slots ORDER BY slot")}

    async def used(self) -> int:
        return sum(attempt_id is not None for attempt_id in (await self.slots()).values())

    async def told(self, *of: str) -> list[Told]:
        """What the outbox holds (of these topics), each event held against its model; the outbox is emptied."""
        rows = await self.sql("DELETE FROM outbox RETURNING *")
        found: list[Told] = []
        for row in sorted(rows, key=lambda row: row.id):
            event = json.loads(row.body)
            if event.get("type") in _MODELS:
                _MODELS[event["type"]].model_validate_json(row.body)
            headers = json.loads(row.headers) if row.headers else {}
            found.append(Told(row.topic, row.key, headers, event))
        return [one for one in found if not of or one.topic in of]

    async def status(self, record_id: UUID) -> dict[str, Any]:
        """The status as every reader sees it."""
        (row,) = await self.sql(f"SELECT {STATUS_JSON} AS status FROM image_generations g WHERE id = $1", record_id)
        status: dict[str, Any] = json.loads(row.status)
        return status

    async def check(self) -> None:
        """Used slots are exactly the attempts claimed or sent, without outcome or output URLs; versions only rise; a
        terminal status never changes."""
        rows = await self.sql(
            "SELECT id FROM generation_attempts WHERE (claim_token IS NOT NULL OR sent_at IS NOT NULL)"
            " AND outcome IS NULL AND output_urls IS NULL"
        )
        held = {one for one in (await self.slots()).values() if one is not None}
        assert held == {row.id for row in rows}
        for row in await self.sql("SELECT id, version, status, claim_token FROM image_generations"):
            assert row.version >= self._versions.get(row.id, 0)
            self._versions[row.id] = row.version
            if row.id in self._terminal:
                assert row.status == self._terminal[row.id]
            if row.status in ("completed", "failed", "cancelled"):
                self._terminal[row.id] = row.status
                assert row.claim_token is None


def dispatcher_of(database: Database) -> Dispatcher:
    return Dispatcher(database, draft, run_deadline=RUN_DEADLINE, bulk_deadline=BULK_DEADLINE)


def claim_of(claimed: Claimed) -> Claim:
    return Claim(claimed.claim_token, claimed.attempt_id)


def statuses(told: Sequence[Told]) -> list[dict[str, Any]]:
    return [one.data for one in told if one.topic == topics.STATUS]


@asynccontextmanager
async def database_of(url: str, **settings: Any) -> AsyncIterator[Database]:
    database = Database(DatabaseSettings(database_url=url, **settings), application="test")
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def steps_of(url: str, *, slots: int = 3, **settings: Any) -> AsyncIterator[Steps]:
    async with database_of(url, **settings) as database:
        await workers.provide_slots(database, slots)
        yield Steps(database)
