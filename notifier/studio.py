"""The studio: a page of static files, and what it must know of this deployment."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from notifier.settings import Settings

FOLDER = Path(__file__).resolve().parent.parent / "client" / "studio" / "page"

# revalidated each time by its ETag: a new release is seen at once
_CACHE = "no-cache"


def routes(settings: Settings, folder: Path = FOLDER) -> list[BaseRoute]:
    """`/`, `/studio/config.json` and the page's files below `/studio/`."""
    headers = {
        "Cache-Control": _CACHE,
        "Content-Security-Policy": policy(settings),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    config: dict[str, Any] = {
        "api_url": settings.api_url,
        "push_url": settings.push_url,
        "chapter_id": settings.studio_chapter_id,
        "simulator_url": settings.studio_simulator_url,
    }
    if settings.studio_token is not None:
        config["token"] = settings.studio_token.get_secret_value()

    async def index(request: Request) -> Response:
        return FileResponse(folder / "index.html", media_type="text/html", headers=headers)

    async def config_json(request: Request) -> Response:
        return JSONResponse(config, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})

    files = _Files(directory=folder, check_dir=False)
    files.headers = headers
    return [
        Route("/", index, methods=["GET"]),
        Route("/studio/config.json", config_json, methods=["GET"]),
        Mount("/studio", files),
    ]


def policy(settings: Settings) -> str:
    """The page's Content-Security-Policy: its own code, our two processes (and the simulator, where one runs), and
    pictures from wherever they lie."""
    ours = [settings.api_url, settings.push_url, _socket_url(settings.push_url)]
    if settings.studio_simulator_url is not None:
        ours.append(settings.studio_simulator_url)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "font-src 'self'",
            # rows of the old system keep their own addresses
            "img-src 'self' data: blob: http: https:",
            f"connect-src 'self' {' '.join(_origin(url) for url in ours)}",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _socket_url(url: str) -> str:
    return "ws" + url.removeprefix("http")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class _Files(StaticFiles):
    headers: dict[str, str]

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(self.headers)
        return response
