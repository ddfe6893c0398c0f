"""OpenAPI 3.1 from the contract's models and a declared table of operations; `/openapi.json` and `/docs`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.problems import Problem
from web.problems import MEDIA_TYPE

VERSION = "1.0.0"
"""Of the HTTP contract; changes are additive."""
_DOCS_PAGE = Path(__file__).with_name("docs.html")
_REF = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """`where` is path, query or header; `schema` a JSON Schema."""

    name: str
    where: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: a model as JSON, or another media type, or nothing."""

    description: str
    model: type[BaseModel] | None = None
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `problems` are the statuses answered with problem details."""

    method: str
    path: str
    id: str
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    parameters: Sequence[Parameter] = ()
    body: type[BaseModel] | None = None
    problems: Sequence[int] = ()
    bearer: bool = True


CHAPTER_ID = Parameter("chapter_id", "path", "the chapter", {"type": "string", "format": "uuid"}, required=True)
SCENE_NUMBER = Parameter(
    "scene_number",
    "path",
    "the scene within its chapter",
    {"type": "integer", "minimum": 1, "maximum": 2_147_483_647},
    required=True,
)
RECORD_ID = Parameter("record_id", "path", "the image generation", {"type": "string", "format": "uuid"}, required=True)
TRACEPARENT = Parameter("traceparent", "header", "W3C trace context; made where none is sent")

_JSON = Answer("as JSON", media_type="application/json")
HEALTH: tuple[Operation, ...] = (
    Operation("get", "/healthz", "healthz", "Alive: its loops make progress", {200: _JSON, 503: _JSON}, bearer=False),
    Operation(
        "get",
        "/readyz",
        "readyz",
        "Ready: names each dependency and since when",
        {200: _JSON, 503: _JSON},
        bearer=False,
    ),
    Operation(
        "get", "/metrics", "metrics", "Metrics for Prometheus", {200: Answer("", media_type="text/plain")}, bearer=False
    ),
)

_PROBLEM_MEANINGS = {
    400: "the request cannot be read",
    401: "no token, or one that is not valid",
    403: "the token lacks the scope that this needs, or is a share token, which shows one chapter alone",
    404: "unknown, or not yours",
    405: "the address does not know this method",
    408: "the body did not arrive in time",
    413: "the body is larger than 64 KB",
    415: "the body is not JSON",
    422: "not valid; `errors` names each field",
    503: "not possible now; try again after Retry-After",
}


_PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "`Bearer`"},
    403: {"WWW-Authenticate": "`Bearer`, with the scope where there is one"},
    405: {"Allow": "the methods that the address knows"},
    503: {"Retry-After": "seconds"},
}


def document(title: str, *, server_url: str, operations: Sequence[Operation], description: str = "") -> dict[str, Any]:
    """The OpenAPI document."""
    taken: list[tuple[type[BaseModel], Any]] = [(Problem, "serialization")]
    for one in operations:
        if one.body is not None:
            taken.append((one.body, "validation"))
        taken += [(answer.model, "serialization") for answer in one.answers.values() if answer.model is not None]
    names, definitions = models_json_schema(list(dict.fromkeys(taken)), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method] = _operation(one, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": VERSION,
            "description": description,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server_url}],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(one: Operation, names: Mapping[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": one.id, "summary": one.summary}
    if one.description:
        described["description"] = one.description
    if one.bearer:
        described["security"] = [{"bearer": []}]
    if one.parameters:
        described["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.where,
                "description": parameter.description,
                "required": parameter.required,
                "schema": dict(parameter.schema),
            }
            for parameter in one.parameters
        ]
    if one.body is not None:
        schema = names[(one.body, "validation")]
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    responses: dict[str, Any] = {}
    for status, answer in one.answers.items():
        response: dict[str, Any] = {"description": answer.description or one.summary}
        if answer.model is not None:
            response["content"] = {answer.media_type: {"schema": names[(answer.model, "serialization")]}}
        elif status not in (204, 304, 307):
            response["content"] = {answer.media_type: {}}
        if answer.headers:
            response["headers"] = _headers(answer.headers)
        responses[str(status)] = response
    for status in one.problems:
        response = responses[str(status)] = {
            "description": _PROBLEM_MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": names[(Problem, "serialization")]}},
        }
        if status in _PROBLEM_HEADERS:
            response["headers"] = _headers(_PROBLEM_HEADERS[status])
    described["responses"] = responses
    return described


def _headers(meanings: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": meaning, "schema": {"type": "string"}} for name, meaning in meanings.items()}


def routes(described: Mapping[str, Any]) -> list[Route]:
    """`/openapi.json`, and `/docs`, a page that needs nothing from elsewhere."""
    as_json = json.dumps(described).encode()
    page = _DOCS_PAGE.read_bytes()

    async def openapi_json(request: Request) -> Response:
        return Response(as_json, media_type="application/json")

    async def docs(request: Request) -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": policy})

    return [Route("/openapi.json", openapi_json, methods=["GET"]), Route("/docs", docs, methods=["GET"])]
