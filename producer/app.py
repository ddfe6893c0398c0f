"""The composition root of the accepting process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import time

import httpx
from starlette.applications import Starlette

from producer import admin, hooks, usage
from producer.admin import Admin
from producer.hooks import Hooks
from producer.requests import Requests
from producer.routes import DESCRIPTION, OPERATIONS, SceneImages
from producer.settings import ProducerSettings
from producer.usage import OwnUsage
from storage.accepting import Acceptor
from storage.database import Database, Unavailable
from web.application import application
from web.auth import Verifier
from web.health import Health

TITLE = "Scenewire: requests"


def build(
    settings: ProducerSettings, *, clock: Callable[[], float] = time, jwks: httpx.AsyncBaseTransport | None = None
) -> Starlette:
    """The ASGI application. Its lifespan opens and closes the pool; Postgres may be away meanwhile.

    `clock` tells the time (seconds since 1970) that tokens are judged by; `jwks` takes the place of the network for
    the published keys.
    """
    database = Database(settings, application="scenewire-producer")
    health = Health()
    health.depends_on("postgres", database.ping)
    requests = Requests(settings, Acceptor(database, deadline=settings.deadline))
    verifier = Verifier(settings, clock=clock, jwks=jwks)
    verifier.report(health)
    scene_images = SceneImages(requests, verifier, retry_after=settings.retry_after)
    dead_letters = Admin(database, verifier, deadline=settings.deadline)
    own_usage = OwnUsage(database, verifier)
    webhooks = Hooks(database, timeout=settings.accept_timeout, retry_after=settings.retry_after)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await database.open()
        keys = asyncio.create_task(verifier.run(), name="jwks")
        try:
            yield
        finally:
            keys.cancel()
            await asyncio.wait({keys, asyncio.ensure_future(database.close())})

    return application(
        TITLE,
        settings=settings,
        health=health,
        routes=[*scene_images.routes(), *webhooks.routes(), *own_usage.routes(), *dead_letters.routes()],
        operations=[*OPERATIONS, *hooks.OPERATIONS, *usage.OPERATIONS, *admin.OPERATIONS],
        server_url=settings.api_url,
        description=DESCRIPTION,
        away=(Unavailable,),
        lifespan=lifespan,
    )
