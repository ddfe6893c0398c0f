"""The composition root of the simulator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, Route

from local.modelslab.calls import CallLog
from local.modelslab.clock import Clock
from local.modelslab.control import Control
from local.modelslab.director import Director
from local.modelslab.gallery import Gallery
from local.modelslab.jobs import JobBook
from local.modelslab.journal import Journal
from local.modelslab.provider import Provider
from local.modelslab.settings import SimulatorSettings
from local.modelslab.webhooks import Postman


def build(
    settings: SimulatorSettings,
    *,
    clock: Clock | None = None,
    gallery: Gallery | None = None,
    webhook_transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """The simulator as an ASGI application. It works without its lifespan too (a test's in-process transport has none):
    that only draws what `prerender` asks for, and ends webhooks and threads at the end. `app.state.postman` can be
    awaited for webhooks under way.
    """
    clock = clock or Clock()
    gallery = gallery or Gallery(budget=settings.picture_cache_mb * 1_000_000)
    director = Director(settings)
    journal = Journal(Path(settings.journal)) if settings.journal else None
    jobs = JobBook(clock, journal)
    calls = CallLog()
    postman = Postman(clock, director, calls, webhook_transport)
    provider = Provider(
        settings, clock=clock, director=director, jobs=jobs, calls=calls, gallery=gallery, postman=postman
    )
    control = Control(clock=clock, director=director, jobs=jobs, calls=calls, gallery=gallery)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await gallery.prerender(settings.prerender)
        yield
        await postman.close()
        gallery.close()
        if journal is not None:
            journal.close()

    app = Starlette(
        routes=[
            Route("/api/v7/images/text-to-image", provider.text_to_image, methods=["POST"]),
            Route("/api/v7/images/fetch/{id}", provider.fetch, methods=["POST"]),
            Route("/api/v7/images/image-to-image", provider.image_to_image, methods=["POST"]),
            Route("/generations/{name}", provider.generation, methods=["GET"]),
            Route("/proxy/{name}", provider.proxied, methods=["GET"]),
            Mount(
                "/simulator",
                routes=[
                    Route("/script", control.read_script, methods=["GET"]),
                    Route("/script", control.write_script, methods=["PUT"]),
                    Route("/words", control.words, methods=["GET"]),
                    Route("/calls", control.calls, methods=["GET"]),
                    Route("/counters", control.counters, methods=["GET"]),
                    Route("/jobs", control.jobs, methods=["GET"]),
                    Route("/reset", control.reset, methods=["POST"]),
                ],
                # of the studio's panel; the provider's own side has no CORS, as the provider has none
                middleware=[
                    Middleware(
                        CORSMiddleware,
                        allow_origins=_origins(settings.allowed_origins),
                        allow_methods=["GET", "PUT", "POST"],
                        allow_headers=["Content-Type"],
                    )
                ],
            ),
            Route("/healthz", control.alive, methods=["GET"]),
            Route("/readyz", control.alive, methods=["GET"]),
            Route("/", control.front, methods=["GET"]),
        ],
        lifespan=lifespan,
    )
    app.state.postman = postman
    return app


def _origins(listed: str | None) -> list[str]:
    """`http://host:8701/studio, *` -> [`http://host:8701`, `*`]."""
    parts = ((one, urlsplit(one)) for one in (part.strip() for part in (listed or "").split(",")) if one)
    return [one if one == "*" else f"{url.scheme}://{url.netloc}" for one, url in parts]
