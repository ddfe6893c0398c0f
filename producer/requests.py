"""One request for a scene's picture: checked, named, put on record, answered."""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from uuid import UUID

import uuid_utils.compat as uuids

from producer.settings import ProducerSettings
from schemas.requests import ImageGenerationQueuedResponse, SceneImageRequest
from storage.accepting import Acceptor, KeyReused, NewRequest, UnknownReference
from storage.database import Unavailable
from telemetry import metrics
from web.auth import Caller


@dataclass(frozen=True, slots=True)
class Queued:
    """The answer to a request; `replayed` when an earlier call with the same key was given it first."""

    response: ImageGenerationQueuedResponse
    replayed: bool


class Requests:
    """Accepts. The acceptor commits together what arrives together."""

    def __init__(self, settings: ProducerSettings, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._timeout = settings.accept_timeout
        self._estimate = settings.estimated_time
        self._push_url = settings.push_url

    async def accept(
        self,
        caller: Caller,
        chapter_id: UUID,
        scene_number: int,
        body: SceneImageRequest,
        *,
        idempotency_key: str | None,
        traceparent: str | None,
    ) -> Queued:
        """On record when this returns.

        Raises `KeyReused`, `UnknownReference`, and `Unavailable` when Postgres is away or slow: then the request may be
        on record all the same, which only a repetition with the same Idempotency-Key can tell.
        """
        request = NewRequest(
            # time-ordered, so that neighbours in time are neighbours in the index
            record_id=uuids.uuid7(),
            user_id=caller.user_id,
            chapter_id=chapter_id,
            scene_number=scene_number,
            body=body,
            tier=caller.tier,
            idempotency_key=idempotency_key,
            fingerprint=None if idempotency_key is None else fingerprint(chapter_id, scene_number, body),
            traceparent=traceparent,
        )
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                accepted = await self._acceptor.accept(request)
        except TimeoutError:
            metrics.count("accept_refused", reason="unavailable")
            raise Unavailable(f"no commit within {self._timeout:g} s") from None
        except Unavailable:
            metrics.count("accept_refused", reason="unavailable")
            raise
        except KeyReused:
            metrics.count("accept_refused", reason="key_reused")
            raise
        except UnknownReference:
            metrics.count("accept_refused", reason="unknown_reference")
            raise
        if accepted.replayed:
            metrics.count("accept_refused", reason="replayed")
        else:
            metrics.observe("accept_seconds", time.perf_counter() - started)
            metrics.count("accepted", lane=caller.tier.lane.value)
        return Queued(self._response(accepted.record_id, chapter_id, scene_number), accepted.replayed)

    def _response(self, record_id: UUID, chapter_id: UUID, scene_number: int) -> ImageGenerationQueuedResponse:
        chapter = f"{self._push_url}/chapters/{chapter_id}"
        # nothing in it comes from the clock or the record's state: a replay gives the same bytes
        return ImageGenerationQueuedResponse(
            task_id=record_id,
            record_id=record_id,
            message=f"Scene {scene_number} is queued.",
            estimated_time_seconds=self._estimate,
            scene_number=scene_number,
            status_url=f"{chapter}/images/scenes/{scene_number}/status",
            events_url=f"{chapter}/events",
        )


def fingerprint(chapter_id: UUID, scene_number: int, body: SceneImageRequest) -> str:
    """SHA-256 (hex) over the path and the validated body: white space, order of fields, spelled-out defaults and
    nulls make no difference, nor do optional fields that a later version adds."""
    canonical = body.model_dump_json(exclude_none=True)
    path = f"/chapters/{chapter_id}/images/scenes/{scene_number}"
    return hashlib.sha256(f"POST {path}\n{canonical}".encode()).hexdigest()
