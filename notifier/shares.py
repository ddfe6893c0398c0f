"""`POST /chapters/{chapter_id}/share`: a token with which another service's page may watch one's chapter."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from web.auth import Verifier
from web.parameters import uuid_of
from web.shares import Shares

SHARE = "/chapters/{chapter_id}/share"


class Sharing:
    """The endpoint. `life`: seconds that a token is good for."""

    def __init__(self, shares: Shares, verifier: Verifier, *, life: float) -> None:
        self._shares = shares
        self._verifier = verifier
        self._life = life

    def routes(self) -> list[Route]:
        return [Route(SHARE, self.post, methods=["POST"])]

    async def post(self, request: Request) -> Response:
        # one's own token alone: what was shared is not shared on
        caller = await self._verifier.of_headers(request.headers.get("authorization"))
        chapter_id = uuid_of(request.path_params, "chapter_id")
        share = self._shares.issue(caller.user_id, chapter_id, life=self._life)
        return Response(share.model_dump_json(), media_type="application/json", headers={"Cache-Control": "no-store"})
