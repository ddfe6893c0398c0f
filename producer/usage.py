"""`GET /me/usage`: what one's own image generations have cost."""

from datetime import date

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.usage import LONGEST_PERIOD, Usage
from storage import ledger
from storage.database import Database
from storage.ledger import Period
from web.auth import Verifier
from web.openapi import Answer, Operation, Parameter
from web.parameters import uuid_of
from web.problems import invalid

PATH = "/me/usage"

_DAY = {"type": "string", "format": "date"}
OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "get",
        PATH,
        "getMyUsage",
        "What your image generations have cost, by day, chapter and model",
        {200: Answer("the sums", Usage)},
        description=(
            "Of the image generations asked for within the period, in US dollars by the models' prices. Calls that "
            "were sent and not answered may have been charged: they are counted apart, as uncertain."
        ),
        parameters=(
            Parameter("from", "query", "the first day, UTC; 30 days in all where it is left out", _DAY),
            Parameter("to", "query", f"the last day, included; today by default; {LONGEST_PERIOD} days at most", _DAY),
            Parameter("chapter_id", "query", "of this chapter alone", {"type": "string", "format": "uuid"}),
        ),
        problems=(401, 403, 422, 503),
    ),
)


class OwnUsage:
    def __init__(self, database: Database, verifier: Verifier) -> None:
        self._database = database
        self._verifier = verifier

    def routes(self) -> list[Route]:
        return [Route(PATH, self.get, methods=["GET"])]

    async def get(self, request: Request) -> Response:
        caller = await self._verifier.of_headers(request.headers.get("authorization"))
        asked = Period(_day_of(request, "from"), _day_of(request, "to"))
        chapter_id = uuid_of(request.query_params, "chapter_id") if "chapter_id" in request.query_params else None
        if asked.first is not None and asked.last is not None:
            _check(asked.first, asked.last)
        usage = await ledger.usage(self._database, caller.user_id, asked, chapter_id=chapter_id)
        # with today as its end only now is it known how long the period is
        _check(usage.first, usage.last)
        headers = {"Cache-Control": "private, no-cache", "Vary": "Authorization"}
        return Response(usage.model_dump_json(by_alias=True), media_type="application/json", headers=headers)


def _day_of(request: Request, name: str) -> date | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    # fromisoformat knows more forms than one
    if day is None or day.isoformat() != text or not 2000 <= day.year <= 9998:
        raise invalid(name, "must be a day such as 2026-12-31")
    return day


def _check(first: date, last: date) -> None:
    if first > last:
        raise invalid("from", "must not be after `to`")
    if (last - first).days >= LONGEST_PERIOD:
        raise invalid("from", f"the period must not be longer than {LONGEST_PERIOD} days")
