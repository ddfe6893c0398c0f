"""CORS for pages of the allowed origins: on every answer, errors too, and without credentials mode.

Our own 60 lines: a refused preflight is a problem like any other, and a call without an Origin costs nothing.
"""

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.problems import problem
from web.settings import WebSettings

ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Prefer",
    "Last-Event-ID",
    "traceparent",
)
EXPOSED_HEADERS = ("ETag", "Location", "Retry-After", "Preference-Applied")
ALLOWED_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_PREFLIGHT_LASTS = "7200"
_VARY = (b"vary", b"Origin")
_PREFLIGHT_VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


class Cors:
    def __init__(self, app: ASGIApp, *, settings: WebSettings) -> None:
        self._app = app
        self._settings = settings
        self._exposed = (b"access-control-expose-headers", ", ".join(EXPOSED_HEADERS).encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
                break
        extra: list[tuple[bytes, bytes]] = [_VARY]
        if origin is not None:
            allowed = self._settings.allows(origin.decode("latin-1"))
            if scope["method"] == "OPTIONS":
                headers = Headers(scope=scope)
                if "access-control-request-method" in headers:
                    await self._preflight(headers["origin"], allowed)(scope, receive, send)
                    return
            if allowed:
                extra += [(b"access-control-allow-origin", origin), self._exposed]

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        await self._app(scope, receive, with_headers)

    def _preflight(self, origin: str, allowed: bool) -> Response:
        if not allowed:
            return problem(
                403,
                "origin_not_allowed",
                "Pages of this origin may not call: add it to SCENEWIRE_ALLOWED_ORIGINS.",
                headers={"Vary": _PREFLIGHT_VARY},
            )
        headers = {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": ", ".join(ALLOWED_METHODS),
            "Access-Control-Allow-Headers": ", ".join(ALLOWED_HEADERS),
            "Access-Control-Max-Age": _PREFLIGHT_LASTS,
            "Vary": _PREFLIGHT_VARY,
        }
        return Response(status_code=204, headers=headers)
