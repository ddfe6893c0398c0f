"""`POST /hooks/modelslab/{token}`: the provider says that a job has ended, or somebody says so in its name.

Its webhooks carry no signature and their senders' addresses are not published (docs.modelslab.com, webhooks), so of
what they say only the job's id is kept, for a consumer to ask the provider about. The token in the address is all that
tells one attempt's webhook from a stranger's call: it is in no log, metric or error.
"""

import asyncio
import re

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas import jobs
from storage import hooks
from storage.database import Database, Unavailable
from telemetry import metrics
from web import body, problems
from web.openapi import Answer, Operation, Parameter

PATH = "/hooks/modelslab/{token}"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "post",
        PATH,
        "modelsLabWebhook",
        "The provider's webhook",
        {200: Answer("taken note of, or nothing that is waited for: the same answer either way")},
        description=(
            "For the provider alone, at the address given with each submit where SCENEWIRE_PUBLIC_URL is set. Of the "
            "body, JSON whatever its content type says, only `id` or `request_id` is read."
        ),
        parameters=(Parameter("token", "path", "of one attempt, unguessable", required=True),),
        problems=(400, 408, 413, 503),
        bearer=False,
    ),
)

# 32 characters as we make them; others are not asked for
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")


class Hooks:
    """The endpoint, with what it needs. `timeout` and `retry_after` in seconds."""

    def __init__(self, database: Database, *, timeout: float, retry_after: int) -> None:
        self._database = database
        self._timeout = timeout
        self._retry_after = retry_after

    def routes(self) -> list[Route]:
        return [Route(PATH, self.post, methods=["POST"])]

    async def post(self, request: Request) -> Response:
        request_id = _named(await body.read(request))
        if request_id is None:
            metrics.count("webhooks", outcome="unreadable")
            return _taken()
        try:
            async with asyncio.timeout(self._timeout):
                noted = await self._note(request.path_params["token"], request_id)
        except (TimeoutError, Unavailable):
            metrics.count("webhooks", outcome="unavailable")
            return problems.unavailable(
                "The webhook could not be noted; please send it again.", retry_after=self._retry_after
            )
        metrics.count("webhooks", outcome="noted" if noted else "ignored")
        return _taken()

    async def _note(self, token: str, request_id: str) -> bool:
        return _TOKEN.fullmatch(token) is not None and await hooks.note(self._database, token, request_id)


def _taken() -> Response:
    # says nothing of whether the token was one
    return Response("{}", media_type="application/json")


def _named(raw: bytes) -> str | None:
    """The id that the body names."""
    try:
        said = from_json(raw)
    except ValueError:
        return None
    return jobs.request_id(said) if isinstance(said, dict) else None
