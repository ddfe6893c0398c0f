"""Errors over HTTP: problem details (RFC 9457) with a stable `code`, whatever went wrong where.

Refused                    raised by a route: status, code and a sentence the caller can act on
  auth.Unauthorized        401
starlette HTTPException    404, 405
pydantic ValidationError   422 with one entry per field
what `unavailable` names   503 with Retry-After
anything else              500, logged in full, answered without a word of it
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schemas.problems import FieldError

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
_MOST_ERRORS = 20
_LONGEST_FIELD = 100

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 415: "not_json"}
_DETAILS = {
    404: "There is nothing at this address.",
    405: "This address does not know the method; the Allow header names those it knows.",
}

Handler = Callable[[Request, Exception], Awaitable[Response]]


class Refused(Exception):
    """The request is answered with a problem."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers

    def response(self) -> Response:
        return problem(self.status, self.code, self.detail, errors=self.errors, headers=self.headers)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response. `detail` and `errors` are shown to the caller: no secret, no traceback, no SQL."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if errors is not None:
        content["errors"] = [{"field": one.field, "message": one.message} for one in errors]
    # ASCII escapes: any text of a caller's, lone surrogates too, can be sent back
    return Response(json.dumps(content), status, headers, MEDIA_TYPE)


def field(name: str, message: str) -> FieldError:
    return FieldError(field=name, message=message)


def invalid(name: str, message: str) -> Refused:
    """422 for one field."""
    return invalid_fields([field(name, message)])


def invalid_fields(errors: Sequence[FieldError]) -> Refused:
    """422 that names each field; what is beyond the first 20 is counted only, so that an answer stays small."""
    shown = list(errors[:_MOST_ERRORS])
    detail = "; ".join(f"{one.field}: {one.message}" for one in shown[:3])
    if len(errors) > 3:
        detail += f"; and {len(errors) - 3} more"
    return Refused(422, "invalid", detail, errors=shown)


def invalid_model(error: ValidationError) -> Refused:
    """422 from a model's verdict on a body; no input is quoted."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return invalid_fields([field(_field(fault["loc"]), _message(fault)) for fault in faults])


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)[:_LONGEST_FIELD] or "body"


def _message(fault: Any) -> str:
    match fault["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a field of this request"
    text = str(fault["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


async def on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response()


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    code = _CODES.get(error.status_code) or HTTPStatus(error.status_code).name.lower()
    detail = _DETAILS.get(error.status_code, error.detail)
    return problem(error.status_code, code, detail, headers=error.headers)


async def on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    return invalid_model(error).response()


def unavailable(detail: str = "The service cannot do this now; please try again.", *, retry_after: int = 1) -> Response:
    """503; `retry_after` in whole seconds."""
    return problem(503, "unavailable", detail, headers={"Retry-After": str(retry_after)})


def unexpected() -> Response:
    """500 without a word about the cause."""
    return problem(500, "unexpected", "Something went wrong on our side; it has been logged.")


def handlers(away: Sequence[type[Exception]] = ()) -> dict[Any, Handler]:
    """Exception handlers for Starlette. What `away` names is 503: it says nothing about the request."""

    async def on_away(request: Request, error: Exception) -> Response:
        log.warning("unavailable", cause=type(error).__name__, detail=str(error))
        return unavailable()

    return {
        HTTPException: on_http_exception,
        Refused: on_refused,
        ValidationError: on_invalid,
        **dict.fromkeys(away, on_away),
    }
