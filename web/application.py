"""One way to put an HTTP process together: routes, errors, CORS, health, documentation, metrics."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from prometheus_client import Counter, Histogram
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from telemetry import metrics
from web import openapi, problems
from web.cors import Cors
from web.health import Health
from web.openapi import Operation
from web.settings import WebSettings

log = structlog.get_logger()


def application(
    title: str,
    *,
    settings: WebSettings,
    health: Health,
    routes: Sequence[BaseRoute],
    operations: Sequence[Operation],
    server_url: str,
    description: str = "",
    away: Sequence[type[Exception]] = (),
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """The ASGI application of a process.

    `operations` become `/openapi.json` and `/docs`, which `description` opens; exceptions of the types in `away` are
    answered 503.
    """
    document = openapi.document(
        title, server_url=server_url, operations=[*operations, *openapi.HEALTH], description=description
    )
    every = [*routes, *health.routes(), *openapi.routes(document)]
    templates = {route.endpoint: route.path for route in every if isinstance(route, Route)}
    app = Starlette(
        routes=every,
        exception_handlers=problems.handlers(away),
        middleware=[Middleware(Cors, settings=settings), Middleware(Guard, templates=templates)],
        lifespan=lifespan,
    )
    # a redirect to the slashless address would lose the body of a POST and trust the Host header
    app.router.redirect_slashes = False
    return app


class Guard:
    """Counts each request by its route's template, and turns what nobody expected into a 500 inside of CORS."""

    def __init__(self, app: ASGIApp, *, templates: Mapping[Any, str]) -> None:
        self._app = app
        self._templates = templates
        # looked up once: finding a metric's labels costs more than counting
        self._measured: dict[tuple[str, str, int | None], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            # the grace of a stop is over
            if status is None:
                await problems.unavailable("The service is stopping; please try again.")(scope, receive, watched)
            raise
        except Exception:
            # the path is not logged: a picture's address is a capability
            log.exception("request_failed", method=scope["method"], route=self._template(scope))
            if status is not None:
                raise
            await problems.unexpected()(scope, receive, watched)
        finally:
            self._measure(scope["method"], self._template(scope), status, time.perf_counter() - started)

    def _measure(self, method: str, route: str, status: int | None, seconds: float) -> None:
        key = (method if method in _METHODS else "other", route, status)
        known = self._measured.get(key)
        if known is None:
            own = metrics.of_process()
            known = self._measured[key] = (
                own.counter("http_requests", method=key[0], route=route, status=str(status or "none")),
                own.histogram("http_seconds", route=route),
            )
        known[0].inc()
        known[1].observe(seconds)

    def _template(self, scope: Scope) -> str:
        return self._templates.get(scope.get("endpoint"), "unmatched")


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
