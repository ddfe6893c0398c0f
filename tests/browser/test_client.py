"""client/ in Chromium, on the real service: its network cut and silent, its tabs asleep, closed and many."""

import subprocess
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
import pytest_asyncio
from playwright.async_api import Browser, Route, expect

from local import node
from tests.browser.client_page import Pages
from tests.browser.conftest import launched
from tests.browser.tunnel import Tunnel

# one browser for all of them: it takes longer to start than some of the tests
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

_HTML = """<!doctype html>
<link rel="icon" href="data:,">
<main></main>
<script type="module" src="page.js"></script>
"""

PICTURE_MS = 60_000
BACK_MS = 15_000


@pytest.fixture(scope="module")
def script(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page's script, with React and the client in it."""
    folder = tmp_path_factory.mktemp("client-page")
    command = [str(node.executable()), "scripts/page.js", str(folder)]
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return (folder / "page.js").read_text(encoding="utf-8")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with launched(chromium) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def pages(browser: Browser, line: dict[str, Any], script: str) -> AsyncIterator[Pages]:
    push = urlsplit(line["push"])
    assert push.hostname is not None
    assert push.port is not None
    user = str(uuid.uuid4())
    async with Tunnel(push.hostname, push.port).listening() as tunnel, await browser.new_context() as context:
        await context.route("**/client-test/*", _serving(script))
        pages = Pages(context, tunnel, line, str(uuid.uuid4()), token_of(line, user, 3600))
        yield pages
        assert pages.errors == []


def _serving(script: str) -> Any:
    async def serve(route: Route) -> None:
        if route.request.url.endswith(".js"):
            await route.fulfill(body=script, content_type="text/javascript")
        else:
            await route.fulfill(body=_HTML, content_type="text/html")

    return serve


def token_of(line: dict[str, Any], user: str, seconds: float) -> str:
    claims: dict[str, Any] = {"sub": user, "exp": time.time() + seconds, "jti": str(uuid.uuid4())}
    if line["jwt_audience"]:
        claims["aud"] = line["jwt_audience"]
    return jwt.encode(claims, line["jwt_secret"], algorithm="HS256")


@asynccontextmanager
async def service(pages: Pages) -> AsyncIterator[httpx.AsyncClient]:
    """The notifier itself, beside the tunnel."""
    headers = {"Authorization": f"Bearer {pages.token}"}
    async with httpx.AsyncClient(base_url=pages.line["push"], headers=headers, trust_env=False, timeout=70) as http:
        yield http


async def done(pages: Pages, number: int) -> None:
    """Wait until the service has a scene's picture."""
    async with service(pages) as http:
        path = f"/chapters/{pages.chapter_id}/images/scenes/{number}/status"
        while (await http.get(path, headers={"Prefer": "wait=60"})).json()["status"] != "completed":
            pass


async def truth(pages: Pages) -> dict[str, Any]:
    """What the service says of each scene."""
    async with service(pages) as http:
        images = (await http.get(f"/chapters/{pages.chapter_id}/images")).json()["images"]
    return {str(image["scene_number"]): [image["version"], image["image_url"]] for image in images}


async def test_a_chapter_comes_over_one_socket_in_strict_mode_and_once_a_frame(pages: Pages) -> None:
    tab = await pages.tab()
    await expect(tab.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    for number in (1, 2, 3):
        await tab.request(number)
    for number in (1, 2, 3):
        await expect(tab.scene(number, "completed")).to_be_visible(timeout=PICTURE_MS)
    assert await tab.pictures() == await truth(pages)
    drawn = tab.page.locator("li img").first
    await expect(drawn).to_be_visible()
    assert await drawn.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert len(tab.sockets) == 1

    last = await tab.burst(1, changes=40)
    await expect(tab.page.locator(f"li[data-scene='1'][data-version='{last}']")).to_be_visible()
    frames = await tab.frames()
    assert max(frame["messages"] for frame in frames) > 1
    # React's StrictMode renders all that it draws exactly twice in development. A page that is painted no frame for
    # 250 ms, as on a machine that has no time for it, is drawn once for each 250 ms all the same.
    assert [frame for frame in frames if frame["renders"] % 2 or frame["renders"] > 2 * (1 + frame["ms"] // 250)] == []
    assert sum(frame["renders"] for frame in frames) > 0


async def test_what_happens_while_the_network_is_cut_is_made_good(pages: Pages) -> None:
    tab = await pages.tab()
    await expect(tab.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    await tab.request(1)
    pages.tunnel.cut()
    await expect(tab.page.locator("output[data-status=live]")).to_be_hidden()
    await tab.request(2)
    await done(pages, 1)
    await done(pages, 2)
    await expect(tab.page.locator("output[data-status=offline]")).to_be_visible(timeout=BACK_MS)
    pages.tunnel.mend()
    await tab.page.evaluate("dispatchEvent(new Event('online'))")
    await expect(tab.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    await expect(tab.scene(2, "completed")).to_be_visible()
    assert await tab.pictures() == await truth(pages)


async def test_a_line_that_fell_silent_is_found_out_when_the_network_returns(pages: Pages) -> None:
    tab = await pages.tab()
    await expect(tab.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    pages.tunnel.silence()
    await tab.request(1)
    await done(pages, 1)
    assert await tab.pictures() == {}
    await pages.context.set_offline(True)
    await pages.context.set_offline(False)
    await expect(tab.scene(1, "completed")).to_be_visible(timeout=BACK_MS)
    assert len(tab.sockets) == 2
    assert await tab.pictures() == await truth(pages)


async def test_a_page_that_slept_shows_what_happened_meanwhile(pages: Pages) -> None:
    tab = await pages.tab()
    await expect(tab.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    async with tab.asleep(), service(pages) as http:
        url = f"{pages.line['api']}/chapters/{pages.chapter_id}/images/scenes/1"
        (await http.post(url, json={"scene_description": "A table."})).raise_for_status()
        await done(pages, 1)
    await expect(tab.scene(1, "completed")).to_be_visible(timeout=BACK_MS)
    assert await tab.pictures() == await truth(pages)


async def test_two_tabs_have_one_socket_and_the_second_goes_on_when_the_first_is_closed(pages: Pages) -> None:
    first = await pages.tab(share=True)
    await expect(first.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    second = await pages.tab(share=True)
    await expect(second.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    await expect(second.page.locator("ol[data-ready=true]")).to_be_attached(timeout=BACK_MS)
    await second.request(1)
    for tab in (first, second):
        await expect(tab.scene(1, "completed")).to_be_visible(timeout=PICTURE_MS)
    assert len(first.sockets + second.sockets) == 1

    await first.page.close()
    await second.request(2)
    await expect(second.scene(2, "completed")).to_be_visible(timeout=PICTURE_MS)
    await expect(second.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    assert len(second.sockets) == 1
    assert await second.pictures() == await truth(pages)


async def test_a_tab_that_is_looked_at_relieves_one_that_sleeps_of_the_socket(pages: Pages) -> None:
    first = await pages.tab(share=True)
    await expect(first.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    second = await pages.tab(share=True)
    await expect(second.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    async with first.asleep():
        await second.request(1)
        await second.page.evaluate("dispatchEvent(new Event('pageshow'))")
        await expect(second.scene(1, "completed")).to_be_visible(timeout=PICTURE_MS)
        assert len(second.sockets) == 1
    await expect(first.scene(1, "completed")).to_be_visible(timeout=BACK_MS)
    assert len(first.sockets) == 1
    assert await first.pictures() == await second.pictures() == await truth(pages)


async def test_where_no_socket_gets_through_another_way_does_and_sockets_come_back(pages: Pages) -> None:
    tab = await pages.tab(blocked=True)
    await expect(tab.badge("live", "sse")).to_be_visible(timeout=BACK_MS)
    await tab.request(1)
    await expect(tab.scene(1, "completed")).to_be_visible(timeout=PICTURE_MS)
    assert await tab.pictures() == await truth(pages)

    # behind a proxy that lets no stream through either, for the requests that come from now on
    await tab.page.route("**/events", lambda route: route.fulfill(status=502))
    pages.tunnel.cut()
    pages.tunnel.mend()
    await expect(tab.badge("polling", "poll")).to_be_visible(timeout=BACK_MS)
    await tab.request(2)
    await expect(tab.scene(2, "completed")).to_be_visible(timeout=PICTURE_MS)

    tab.blocked = False
    await tab.page.evaluate("scenewire.reconnect()")
    await expect(tab.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    await tab.request(3)
    await expect(tab.scene(3, "completed")).to_be_visible(timeout=PICTURE_MS)
    assert await tab.pictures() == await truth(pages)


async def test_a_token_is_renewed_on_the_line_before_it_ends(pages: Pages) -> None:
    user = jwt.decode(pages.token, options={"verify_signature": False})["sub"]
    # a short one, whose renewal is due at half its life
    tab = await pages.tab(tokens=[token_of(pages.line, user, 10), pages.token])
    await expect(tab.badge("live", "websocket")).to_be_visible(timeout=BACK_MS)
    await tab.page.wait_for_function("scenewireTest.tokens.length === 1", timeout=BACK_MS)
    await tab.request(1)
    await expect(tab.scene(1, "completed")).to_be_visible(timeout=PICTURE_MS)
    assert len(tab.sockets) == 1
