"""What an owner may look back at over HTTP: the attempts of an image generation, the pictures of a scene."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from notifier.sentences import told
from schemas.history import ImageAttempt, ImageAttempts
from storage import history
from storage.database import Database
from web.auth import Verifier
from web.parameters import scene_number_of, uuid_of
from web.problems import Refused

ATTEMPTS = "/images/{record_id}/attempts"
SCENE_PICTURES = "/chapters/{chapter_id}/images/scenes/{scene_number}/pictures"

_HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Authorization"}


class History:
    def __init__(self, *, database: Database, verifier: Verifier) -> None:
        self._database = database
        self._verifier = verifier

    def routes(self) -> list[Route]:
        return [
            Route(ATTEMPTS, self.attempts, methods=["GET"]),
            Route(SCENE_PICTURES, self.pictures, methods=["GET"]),
        ]

    async def attempts(self, request: Request) -> Response:
        """The calls of the provider that one image generation took."""
        caller = await self._verifier.of_headers(request.headers.get("authorization"))
        record_id = uuid_of(request.path_params, "record_id")
        tried = await history.attempts(self._database, caller.user_id, record_id)
        if tried is None:
            raise Refused(404, "not_found", "There is no such image of yours.")
        attempts = [
            ImageAttempt(**row, message=told(row["outcome"], row["error_class"], row["error_code"]))
            for row in tried.attempts
        ]
        body = ImageAttempts(record_id=record_id, version=tried.version, attempts=attempts).model_dump_json()
        return Response(body, media_type="application/json", headers=_HEADERS)

    async def pictures(self, request: Request) -> Response:
        """The completed images of a scene; none of a scene that has none."""
        caller = await self._verifier.of_headers(request.headers.get("authorization"))
        chapter_id = uuid_of(request.path_params, "chapter_id")
        number = scene_number_of(request.path_params)
        texts = await history.pictures(self._database, caller.user_id, chapter_id, number)
        body = f'{{"images":[{",".join(texts)}]}}'
        return Response(body, media_type="application/json", headers=_HEADERS)
