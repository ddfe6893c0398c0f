"""Problems, CORS, bodies, health and the description, around a small application of the tests' own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.requests import SceneImageRequest
from web import body, openapi
from web.application import application
from web.health import Health
from web.problems import MEDIA_TYPE, Refused, invalid_model
from web.settings import WebSettings

SECRET = "0123456789abcdef0123456789abcdef"
PAGE = "https://page.test"


class Away(Exception):
    """A dependency is away."""


async def crashes(request: Request) -> Response:
    raise RuntimeError("the secret is swordfish")


async def is_away(request: Request) -> Response:
    raise Away


async def teapot(request: Request) -> Response:
    raise HTTPException(418, "short and stout")


async def refuses(request: Request) -> Response:
    raise Refused(409, "taken", "Lone \ud800 surrogate.", headers={"X-Why": "1"})


async def reads(request: Request) -> Response:
    return Response(str(len(await body.read(request, limit=1_000, patience=0.05))))


@asynccontextmanager
async def _client(health: Health | None = None, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings = WebSettings.model_validate({"jwt_secret": SECRET, "allowed_origins": PAGE, **changes})
    app = application(
        "A test",
        settings=settings,
        health=health or Health(),
        routes=[
            Route("/crashes", crashes),
            Route("/away", is_away),
            Route("/teapot", teapot),
            Route("/refuses", refuses),
            Route("/reads", reads, methods=["POST"]),
        ],
        operations=[],
        server_url="https://api.test",
        away=(Away,),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://api.test") as client:
        yield client


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/crashes", 500, "unexpected"),
        ("/away", 503, "unavailable"),
        ("/teapot", 418, "im_a_teapot"),
        ("/refuses", 409, "taken"),
        ("/nothing", 404, "not_found"),
        ("/reads", 405, "method_not_allowed"),
    ],
)
async def test_every_error_is_a_problem_with_cors_headers(path: str, status: int, code: str) -> None:
    async with _client() as client:
        response = await client.get(path, headers={"Origin": PAGE})
    assert response.status_code == status
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.json()["code"] == code
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "swordfish" not in response.text
    if status == 503:
        assert int(response.headers["retry-after"]) >= 1


async def test_origins_may_be_anybodys_and_no_origin_costs_nothing() -> None:
    async with _client(allowed_origins="*") as client:
        anybody = await client.get("/healthz", headers={"Origin": "https://anything.test"})
        nobody = await client.get("/healthz")
    assert anybody.headers["access-control-allow-origin"] == "https://anything.test"
    assert "access-control-allow-origin" not in nobody.headers
    assert nobody.headers["vary"] == "Origin"


async def test_options_without_a_preflight_is_an_ordinary_request() -> None:
    async with _client() as client:
        assert (await client.options("/reads", headers={"Origin": PAGE})).status_code == 405


async def _asked(messages: Sequence[dict[str, Any]], headers: dict[str, str] | None = None) -> Any:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": raw}
    try:
        return len(await body.read(Request(scope, receive), limit=1_000, patience=0.05)), left
    except Refused as refused:
        return (refused.status, refused.code), left


def _part(size: int, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


async def test_a_declared_size_is_refused_before_anything_is_read() -> None:
    answer, left = await _asked([_part(1, more=False)], {"content-length": "1001"})
    assert answer == (413, "body_too_large")
    assert len(left) == 1


async def test_a_stream_is_refused_when_it_passes_the_limit() -> None:
    answer, left = await _asked([_part(600, more=True), _part(600, more=True), _part(600, more=False)])
    assert answer == (413, "body_too_large")
    assert len(left) == 1


async def test_bodies_in_one_or_several_parts_are_read() -> None:
    assert (await _asked([_part(1_000, more=False)]))[0] == 1_000
    assert (await _asked([_part(500, more=True), _part(500, more=True), _part(0, more=False)]))[0] == 1_000


async def test_a_body_that_stops_coming_ends_the_wait() -> None:
    assert (await _asked([_part(5, more=True)]))[0] == (408, "body_incomplete")
    assert (await _asked([_part(5, more=True), {"type": "http.disconnect"}]))[0] == (400, "body_incomplete")
    assert (await _asked([{"type": "http.disconnect"}]))[0] == (400, "body_incomplete")


async def test_a_loop_that_stalls_makes_the_process_unhealthy() -> None:
    now = [100.0]
    health = Health(clock=lambda: now[0])
    pulse = health.watch("dispatch", within=10)
    async with _client(health) as client:
        now[0] += 10
        assert (await client.get("/healthz")).status_code == 200
        now[0] += 1
        stalled = await client.get("/healthz")
        assert stalled.status_code == 503
        assert stalled.json()["loops"] == {"dispatch": {"status": "stalled", "idle_seconds": 11.0}}
        pulse.beat()
        assert (await client.get("/healthz")).status_code == 200


async def test_readiness_names_each_dependency_and_since_when() -> None:
    trouble: list[Exception] = []

    async def postgres() -> None:
        if trouble:
            raise trouble[0]

    async def hangs() -> None:
        await asyncio.Event().wait()

    health = Health(patience=0.05)
    health.depends_on("postgres", postgres)
    async with _client(health) as client:
        up = (await client.get("/readyz")).json()
        assert up["status"] == "ready"
        trouble.append(OSError("postgresql://app:hunter2@db refused"))
        down = await client.get("/readyz")
        assert down.status_code == 503
        shown = down.json()["dependencies"]["postgres"]
        assert shown["status"] == "down"
        assert shown["since"] > up["dependencies"]["postgres"]["since"]
        assert "refused" in shown["detail"]
        assert "hunter2" not in down.text
        again = (await client.get("/readyz")).json()["dependencies"]["postgres"]
        assert again["since"] == shown["since"]
        trouble.clear()
        health.depends_on("kafka", hangs)
        slow = (await client.get("/readyz")).json()["dependencies"]
        assert (slow["postgres"]["status"], slow["kafka"]["status"]) == ("up", "down")
        health.depends_on("kafka", postgres)
        health.stopping()
        stopping = await client.get("/readyz")
        assert (stopping.status_code, stopping.json()["status"]) == (503, "stopping")


async def test_health_can_be_served_alone() -> None:
    transport = httpx.ASGITransport(Health().application())
    async with httpx.AsyncClient(transport=transport, base_url="http://relay.test") as client:
        assert (await client.get("/readyz")).json() == {"status": "ready", "dependencies": {}}
        assert "scenewire_" in (await client.get("/metrics")).text
        assert (await client.get("/else")).json()["code"] == "not_found"


def test_a_models_verdict_quotes_no_input() -> None:
    try:
        SceneImageRequest.model_validate_json(b'{"scene_description": 7, "swordfish": "hunter2"}')
    except ValueError as error:
        refused = invalid_model(error)  # type: ignore[arg-type]
    assert [one.field for one in refused.errors or ()] == ["scene_description", "swordfish"]
    assert "hunter2" not in refused.detail


def test_the_description_resolves_and_its_schemas_are_valid() -> None:
    operation = openapi.Operation(
        "post", "/x/{chapter_id}", "x", "X", {204: openapi.Answer("done")}, parameters=(openapi.CHAPTER_ID,),
        body=SceneImageRequest, problems=(401, 422),
    )  # fmt: skip
    document = openapi.document("T", server_url="https://api.test", operations=[operation, *openapi.HEALTH])
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    found = references(document)
    assert "#/components/schemas/Problem" in found
    assert all(reference.removeprefix("#/components/schemas/") in schemas for reference in found)
    post = document["paths"]["/x/{chapter_id}"]["post"]
    assert post["security"] == [{"bearer": []}]
    assert set(post["responses"]) == {"204", "401", "422"}
    assert set(post["responses"]["401"]["headers"]) == {"WWW-Authenticate"}
