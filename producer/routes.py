"""`POST /chapters/{chapter_id}/images/scenes/{scene_number}`: the HTTP side of a request."""

from opentelemetry.trace import SpanKind
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from producer.requests import Requests
from schemas.requests import ImageGenerationQueuedResponse, SceneImageRequest
from storage.accepting import KeyReused, UnknownReference
from storage.database import Unavailable
from telemetry import traces
from web import body, problems
from web.auth import Verifier
from web.openapi import CHAPTER_ID, SCENE_NUMBER, TRACEPARENT, Answer, Operation, Parameter
from web.parameters import idempotency_key_of, must_be_json, scene_number_of, uuid_of

PATH = "/chapters/{chapter_id}/images/scenes/{scene_number}"

DESCRIPTION = (
    "Requests are put on record here and made in the background: their statuses and pictures are the notifier's, at "
    "`status_url`. Errors are problem details with a stable `code`."
)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "post",
        PATH,
        "requestSceneImage",
        "Request the picture of a scene",
        {
            202: Answer(
                "on record and queued",
                ImageGenerationQueuedResponse,
                headers={
                    "Location": "the status's address, absolute",
                    "Idempotency-Replayed": "`true` when an earlier call with this Idempotency-Key was answered",
                },
            )
        },
        description=(
            "Answered once the request is on record. Without an Idempotency-Key each call is a new request; with one, "
            "the same body gives the same answer again for at least 24 hours."
        ),
        parameters=(
            CHAPTER_ID,
            SCENE_NUMBER,
            Parameter(
                "Idempotency-Key",
                "header",
                "up to 200 printable ASCII characters, yours to choose, per user",
                {"type": "string", "minLength": 1, "maxLength": 200},
            ),
            TRACEPARENT,
        ),
        body=SceneImageRequest,
        problems=(400, 401, 403, 408, 413, 415, 422, 503),
    ),
)


class SceneImages:
    """The endpoint, with what it needs."""

    def __init__(self, requests: Requests, verifier: Verifier, *, retry_after: int) -> None:
        self._requests = requests
        self._verifier = verifier
        self._retry_after = retry_after

    def routes(self) -> list[Route]:
        return [Route(PATH, self.post, methods=["POST"])]

    async def post(self, request: Request) -> Response:
        headers = request.headers
        caller = await self._verifier.of_headers(headers.get("authorization"))
        chapter_id = uuid_of(request.path_params, "chapter_id")
        scene_number = scene_number_of(request.path_params)
        key = idempotency_key_of(headers.get("idempotency-key"))
        must_be_json(headers.get("content-type"))
        raw = await body.read(request)
        try:
            wanted = SceneImageRequest.model_validate_json(raw)
        except ValidationError as error:
            return problems.invalid_model(error).response()
        with traces.span("request scene image", headers.get("traceparent"), kind=SpanKind.SERVER) as traceparent:
            try:
                queued = await self._requests.accept(
                    caller, chapter_id, scene_number, wanted, idempotency_key=key, traceparent=traceparent
                )
            except UnknownReference as error:
                field = error.field or "chapter_id"
                return problems.invalid(field, "names nothing that exists: create it first").response()
            except KeyReused:
                return problems.problem(
                    422,
                    "idempotency_key_reused",
                    "This Idempotency-Key was used for another request: send a new key for a new request.",
                    errors=[problems.field("Idempotency-Key", "was used with another path or body")],
                )
            except Unavailable:
                return problems.unavailable(
                    "The request could not be confirmed as stored. Repeat it, with the same Idempotency-Key if you "
                    "sent one; without one the first call may still be carried out.",
                    retry_after=self._retry_after,
                )
        answer = {"Location": queued.response.status_url}
        if queued.replayed:
            answer["Idempotency-Replayed"] = "true"
        return Response(queued.response.model_dump_json(), 202, answer, "application/json")
