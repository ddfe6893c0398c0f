"""Real Chromium on the real line: a page per test, signed in as a user of its own, with what went wrong on it."""

import json
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from playwright.async_api import Browser, Route, async_playwright, expect

from local import node
from local.server import NotReady
from tests.browser.studio_page import OpenStudio, Studio

# what comes at once on a machine that is free; nothing is measured by it
expect.set_options(timeout=20_000)

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--no-sandbox",  # Chromium's own sandbox does not run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # a page that a test makes up has no address, and would not be let to the service on this machine
    "--disable-features=LocalNetworkAccessChecks",
)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium; without one the tests skip, and fail where CI=true."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    missing = "no Chromium here: apt install chromium to run the browser tests"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def packages() -> Path:
    """client/ with its npm packages; where they cannot be had the tests skip, and fail where CI=true."""
    try:
        node.install()
    except NotReady as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    return node.CLIENT


@asynccontextmanager
async def launched(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@pytest.fixture
def studio_of(chromium: str, line: dict[str, Any]) -> OpenStudio:
    """`async with studio_of(width=390) as studio`: a page of a fresh user, so that no test sees another's pictures."""

    @asynccontextmanager
    async def open_studio(
        *,
        width: int = 1280,
        height: int = 900,
        token_in_config: bool = True,
        **context_options: Any,
    ) -> AsyncIterator[Studio]:
        claims = {"sub": str(uuid.uuid4())}
        if line["jwt_audience"]:
            claims["aud"] = line["jwt_audience"]

        def sign(seconds: float) -> str:
            times = {"iat": int(time.time()), "exp": time.time() + seconds}
            return jwt.encode({**claims, **times}, line["jwt_secret"], algorithm="HS256")

        async def config(route: Route) -> None:
            body = {**await (await route.fetch()).json(), "token": studio.token}
            if not token_in_config:
                del body["token"]
            await route.fulfill(body=json.dumps(body), content_type="application/json")

        async with launched(chromium) as browser:
            context = await browser.new_context(viewport={"width": width, "height": height}, **context_options)
            page = await context.new_page()
            studio = Studio(page, line["studio"].rstrip("/"), line["chapter_id"], sign(3600), sign)
            page.on("pageerror", lambda error: studio.errors.append(str(error)))
            page.on("console", lambda said: studio.errors.append(said.text) if said.type == "error" else None)
            page.on("request", lambda request: studio.hosts.add(urlsplit(request.url).netloc))
            await page.route("**/studio/config.json", config)
            await page.route_web_socket("**/ws", studio.socket)
            yield studio

    return open_studio


@pytest.fixture
async def simulator(line: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """The simulator's own side; its script is empty before and after."""
    async with httpx.AsyncClient(base_url=f"{line['simulator']}/simulator", trust_env=False) as http:
        await http.put("/script", json={})
        yield http
        await http.put("/script", json={})
