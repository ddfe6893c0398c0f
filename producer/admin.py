"""`/admin/dead-letters`: what is not tried again by itself, for whoever holds the scope `admin`.

A call ends within seconds: it works on so many letters at most, and says how many are left for the next one.
"""

import time
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.letters import (
    DeadLetterDetail,
    DeadLetters,
    LetterChoice,
    LetterFilters,
    LetterQuery,
    PurgeOutcome,
    PurgeRequest,
    ReplayOutcome,
    ReplayRequest,
)
from storage import deadletters, letters, replaying
from storage.database import Database
from storage.deadletters import Purge
from web import body, problems
from web.auth import ADMIN, Caller, Verifier, must_have
from web.openapi import Answer, Operation, Parameter
from web.parameters import must_be_json

log = structlog.get_logger()

PATH = "/admin/dead-letters"
_ID = "letter_id"
_LARGEST = 2**63 - 1
_LISTS = ("error_class", "error_code", "model_id")
_SECONDS = 5.0
"""After so long no further transaction is begun; what is left is for the next call."""
_PURGED_TOGETHER = 1_000

_SCOPE = "Needs a token with the scope `admin`: the claim `scope`, words in one string (RFC 8693) or a list."


def _parameter(name: str, schema: dict[str, Any]) -> Parameter:
    # in a query what is null is not there
    (kind,) = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    described = {part: value for part, value in kind.items() if part not in ("title", "description", "default")}
    return Parameter(name, "query", schema.get("description", ""), described)


_QUERY = tuple(_parameter(name, schema) for name, schema in LetterQuery.model_json_schema()["properties"].items())

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "get",
        PATH,
        "listDeadLetters",
        "List dead letters, or count them in groups",
        {200: Answer("a page, the newest first, or the groups", DeadLetters)},
        description=f"{_SCOPE} Parameters of several values are given once for each.",
        parameters=_QUERY,
        problems=(401, 403, 422, 503),
    ),
    Operation(
        "get",
        f"{PATH}/{{{_ID}}}",
        "showDeadLetter",
        "Everything about one dead letter, with all that was tried",
        {200: Answer("the letter", DeadLetterDetail)},
        description=_SCOPE,
        parameters=(Parameter(_ID, "path", "its number", {"type": "integer", "minimum": 1}, required=True),),
        problems=(401, 403, 404, 422, 503),
    ),
    Operation(
        "post",
        f"{PATH}/replay",
        "replayDeadLetters",
        "Try dead letters again",
        {200: Answer("what was replayed and skipped, and how many are left for the next call", ReplayOutcome)},
        description=(
            f"{_SCOPE} A failed image generation is `pending` again, with all its retries and a new deadline, and "
            "tells so by a status; an event is sent again to where it was read, byte for byte. What is not failed any "
            "more, or was tried again since, is skipped. A call that is repeated replays nothing twice."
        ),
        body=ReplayRequest,
        problems=(400, 401, 403, 408, 413, 415, 422, 503),
    ),
    Operation(
        "post",
        f"{PATH}/purge",
        "purgeDeadLetters",
        "Delete dead letters",
        {200: Answer("how many were deleted, and how many are left for the next call", PurgeOutcome)},
        description=(
            f"{_SCOPE} Deletes what was replayed; with `older_than` what died so long ago, with `all` whatever fits. "
            "The image generations and what was tried for them stay."
        ),
        body=PurgeRequest,
        problems=(400, 401, 403, 408, 413, 415, 422, 503),
    ),
)


class Admin:
    """The endpoints, with what they need. `deadline`: seconds that a replayed request may take."""

    def __init__(self, database: Database, verifier: Verifier, *, deadline: float) -> None:
        self._database = database
        self._verifier = verifier
        self._deadline = deadline

    def routes(self) -> list[Route]:
        return [
            Route(f"{PATH}/replay", self.replay, methods=["POST"]),
            Route(f"{PATH}/purge", self.purge, methods=["POST"]),
            Route(f"{PATH}/{{{_ID}}}", self.show, methods=["GET"]),
            Route(PATH, self.list, methods=["GET"]),
        ]

    async def list(self, request: Request) -> Response:
        await self._caller(request)
        query = _query(request)
        filters = LetterFilters.model_validate(query.model_dump(include=set(LetterFilters.model_fields)))
        if query.group:
            return _answer(DeadLetters(groups=await letters.grouped(self._database, filters)))
        try:
            page, cursor = await letters.listed(self._database, filters, limit=query.limit, cursor=query.cursor)
        except letters.NotACursor:
            raise problems.invalid("cursor", "must be `cursor` of the page before") from None
        return _answer(DeadLetters(letters=page, cursor=cursor))

    async def show(self, request: Request) -> Response:
        await self._caller(request)
        text = str(request.path_params[_ID])
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
        if not 1 <= number <= _LARGEST:
            raise problems.invalid(_ID, "must be a letter's number")
        letter = await letters.one(self._database, number)
        if letter is None:
            raise problems.Refused(404, "not_found", "There is no such dead letter.")
        return _answer(letter)

    async def replay(self, request: Request) -> Response:
        caller = await self._caller(request)
        asked = ReplayRequest.model_validate_json(await _body(request))
        choice = _choice(asked)
        limit = asked.limit if asked.ids is None else None
        plan = await replaying.plan(self._database, choice, ids=asked.ids, limit=limit)
        if asked.dry_run:
            return _answer(replaying.would(plan, limit=limit))
        chosen = (
            await replaying.candidates(self._database, choice, limit=limit)
            if asked.ids is None
            else sorted(set(asked.ids))
        )
        replayed = replaying.Replayed()
        left = plan.replayable if asked.ids is None else len(chosen)
        until = time.monotonic() + _SECONDS
        for start in range(0, len(chosen), replaying.TOGETHER):
            some = chosen[start : start + replaying.TOGETHER]
            replayed.add(await replaying.replay(self._database, some, deadline=self._deadline))
            left -= len(some)
            if time.monotonic() > until:
                break
        outcome = replaying.outcome(plan, replayed, named=asked.ids is not None, left=max(0, left))
        log.info(
            "dead_letters_replayed",
            by=str(caller.user_id),
            replayed=outcome.replayed,
            skipped=outcome.skipped,
            left=outcome.left,
        )
        return _answer(outcome)

    async def purge(self, request: Request) -> Response:
        caller = await self._caller(request)
        asked = PurgeRequest.model_validate_json(await _body(request))
        purge = Purge(_choice(asked), asked.ids, asked.older_than, asked.all)
        groups, may_go = await deadletters.purgeable(self._database, purge, limit=asked.limit)
        most = min(asked.limit, may_go)
        if asked.dry_run:
            return _answer(PurgeOutcome(dry_run=True, purged=most, left=may_go - most, groups=groups))
        gone = 0
        until = time.monotonic() + _SECONDS
        while gone < most and time.monotonic() < until:
            some = await deadletters.purged(self._database, purge, limit=min(_PURGED_TOGETHER, most - gone))
            gone += some
            if not some:
                break
        log.info("dead_letters_purged", by=str(caller.user_id), purged=gone)
        return _answer(PurgeOutcome(dry_run=False, purged=gone, left=max(0, may_go - gone), groups=[]))

    async def _caller(self, request: Request) -> Caller:
        caller = await self._verifier.of_headers(request.headers.get("authorization"))
        must_have(caller, ADMIN)
        return caller


async def _body(request: Request) -> bytes:
    must_be_json(request.headers.get("content-type"))
    return await body.read(request)


def _query(request: Request) -> LetterQuery:
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in _LISTS:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise problems.invalid(name, "is given more than once")
        else:
            given[name] = value
    try:
        # all of a query is text
        return LetterQuery.model_validate(given, strict=False)
    except ValidationError as error:
        raise problems.invalid_model(error) from None


def _choice(asked: ReplayRequest | PurgeRequest) -> LetterChoice:
    return LetterChoice.model_validate(asked.model_dump(include=set(LetterChoice.model_fields)))


def _answer(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json", headers={"Cache-Control": "no-store"})
