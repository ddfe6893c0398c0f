"""Events in: requests are admitted, retries wake dispatch, what cannot be read or is not valid is buried (B)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TypeVar
from uuid import UUID

import structlog
from pydantic import ValidationError
from pydantic_core import from_json

from consumer.patience import Stopped, patiently
from messaging.deliveries import Delivery
from messaging.subscribe import Stopping
from schemas.errors import ErrorClass
from schemas.events import RequestedEvent, RetryEvent
from schemas.words import Lane
from storage import admitting, deadletters
from storage.admitting import Asked
from storage.database import Database
from storage.deadletters import DeadEvent
from storage.originals import Original
from telemetry import metrics, traces

log = structlog.get_logger(__name__)
T = TypeVar("T")

_FAULTS_TOLD = 5
_FIRST_PART, _PART = 200, 600
"""Events: Postgres waits for the first to be read, and has the others before it asks for them."""
_TURN = 50


class Handlers:
    """Always short: one statement for a whole batch. Returning acknowledges the batch."""

    def __init__(
        self,
        *,
        database: Database,
        stop: asyncio.Event,
        deadline: float,
        wake: Callable[[], None],
        wake_in: Callable[[float], None],
    ) -> None:
        self._database = database
        self._stop = stop
        self._deadline = deadline
        self._wake = wake
        self._wake_in = wake_in

    def on_requested(self, lane: Lane) -> Callable[[list[Delivery]], Awaitable[None]]:
        """The handler of one lane's topic."""

        async def handle(batch: list[Delivery]) -> None:
            # while Postgres works on one part of a large batch the next is read: its time is half of it all
            putting: asyncio.Task[None] | None = None
            try:
                for first, end in pairwise((0, *range(_FIRST_PART, len(batch), _PART), len(batch))):
                    part = await _read(batch[first:end], lane)
                    if putting is not None:
                        await putting
                    putting = asyncio.create_task(self._put(part))
                if putting is not None:
                    await putting
            finally:
                if putting is not None:
                    putting.cancel()

        return handle

    async def _put(self, part: Sequence[tuple[Delivery, Asked | DeadEvent]]) -> None:
        if dead := [read for _, read in part if isinstance(read, DeadEvent)]:
            await self._bury(dead)
        if asked := [(delivery, read) for delivery, read in part if isinstance(read, Asked)]:
            await self._admit(asked)
            self._wake()

    async def on_retry(self, batch: list[Delivery]) -> None:
        """Wake dispatch when the retry is due, if its record still waits for that very attempt (B3)."""
        told: set[tuple[UUID, int]] = set()
        dead: list[DeadEvent] = []
        for delivery in batch:
            try:
                event = RetryEvent.model_validate_json(delivery.value)
            except ValidationError as error:
                dead.append(_dead(delivery, ErrorClass.POISON, "unreadable_retry", _first_faults(error)))
                continue
            told.add((event.data.record_id, event.data.attempt))
        if dead:
            await self._bury(dead)
        if not told:
            return
        # the time to wait is asked of Postgres, whose clock decides what is due: by ours somebody might look too early,
        # find nothing, and look again only a second later
        due_in = await self._patiently(lambda: admitting.still_waiting(self._database, sorted(told)))
        metrics.count("events", len(due_in), topic=batch[0].topic, outcome="woken")
        for seconds in due_in:
            self._wake_in(seconds)

    async def _admit(self, asked: Sequence[tuple[Delivery, Asked]]) -> None:
        metrics.observe("admit_batch", len(asked))
        topic = asked[0][0].topic
        try:
            done = await self._patiently(
                lambda: admitting.admit(self._database, [one for _, one in asked], deadline=self._deadline)
            )
        except Stopping:
            raise
        except Exception as error:
            # one bad row must not hold up the others (B2)
            if len(asked) > 1:
                for one in asked:
                    await self._admit([one])
                return
            log.exception("event_not_storable", topic=topic)
            delivery = asked[0][0]
            await self._bury([_dead(delivery, ErrorClass.POISON, "not_storable", type(error).__name__)])
            return
        metrics.count("events", done.known + done.created, topic=topic, outcome="admitted")
        metrics.count("events", done.ignored, topic=topic, outcome="ignored")

    async def _bury(self, dead: Sequence[DeadEvent]) -> None:
        for one in dead:
            metrics.count("events", topic=one.topic, outcome=one.error_class.value)
            if one.error_class is ErrorClass.POISON:
                metrics.count("poison", topic=one.topic)
            log.warning(
                "event_buried",
                error_class=one.error_class.value,
                code=one.code,
                topic=one.topic,
                partition=one.partition,
                offset=one.offset,
                detail=one.message,
            )
        await self._patiently(lambda: deadletters.bury(self._database, dead))

    async def _patiently(self, statement: Callable[[], Awaitable[T]]) -> T:
        """Repeat while Postgres is away, so that membership and batch are kept; at a stop leave without ack (B2)."""
        try:
            return await patiently(statement, stop=self._stop)
        except Stopped:
            raise Stopping from None


async def _read(deliveries: Sequence[Delivery], lane: Lane) -> list[tuple[Delivery, Asked | DeadEvent]]:
    """Some at a time: what else the loop has to do, the statement of the part before among it, is not kept waiting."""
    read: list[tuple[Delivery, Asked | DeadEvent]] = []
    for first in range(0, len(deliveries), _TURN):
        read += [(one, _requested(one, lane)) for one in deliveries[first : first + _TURN]]
        await asyncio.sleep(0)
    return read


def _requested(delivery: Delivery, lane: Lane) -> Asked | DeadEvent:
    try:
        event = RequestedEvent.model_validate_json(delivery.value)
    except ValidationError as error:
        return _refused(delivery, error)
    return Asked(event.data, lane, traces.parse(event.traceparent))


def _refused(delivery: Delivery, error: ValidationError) -> DeadEvent:
    """`invalid` when it is an event that names a record or carries a request; else `poison`."""
    try:
        body = from_json(delivery.value)
    except ValueError:
        return _dead(delivery, ErrorClass.POISON, "unreadable", "The event is not JSON in UTF-8.")
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict) or not ("record_id" in data or "scene_description" in data):
        return _dead(delivery, ErrorClass.POISON, "not_a_request", "The event names no record and carries no request.")
    return _dead(
        delivery,
        ErrorClass.INVALID,
        "invalid_request",
        _first_faults(error),
        record_id=_uuid(data.get("record_id")),
        user_id=_uuid(data.get("user_id")),
        chapter_id=_uuid(data.get("chapter_id")),
    )


def _dead(
    delivery: Delivery,
    error_class: ErrorClass,
    code: str,
    message: str,
    *,
    record_id: UUID | None = None,
    user_id: UUID | None = None,
    chapter_id: UUID | None = None,
) -> DeadEvent:
    return DeadEvent(
        error_class=error_class,
        code=code,
        message=message,
        topic=delivery.topic,
        partition=delivery.partition,
        offset=delivery.offset,
        # Postgres holds no NUL in text
        key=None if delivery.key is None else delivery.key.replace("\x00", ""),
        body=delivery.value,
        original=Original(delivery.original_key, delivery.original_headers),
        received_at=datetime.fromtimestamp(max(0, delivery.timestamp_ms) / 1000, UTC),
        record_id=record_id,
        user_id=user_id,
        chapter_id=chapter_id,
    )


def _first_faults(error: ValidationError) -> str:
    """Where and what, without the values: they are somebody's words."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    told = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in faults[:_FAULTS_TOLD]]
    return "; ".join(told).replace("\x00", "")[:1000]


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
