"""The studio as a person uses it: in Chromium, on the real producer, consumer and notifier."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.browser.studio_page import OpenStudio

pytestmark = pytest.mark.browser

SCENES = 7
PICTURE_MS = 60_000
LINE_MS = 45_000


def chip(page: Page) -> Locator:
    return page.locator("#chip")


def pictures(page: Page) -> Locator:
    return page.locator(".card .open img")


async def live(page: Page) -> None:
    await expect(chip(page)).to_contain_text("Live", timeout=45_000)


async def is_drawn(picture: Locator) -> bool:
    await expect(picture).to_have_js_property("complete", True)
    return bool(await picture.evaluate("image => image.naturalWidth > 0"))


async def has_sideways_scroll(page: Page) -> bool:
    return bool(await page.evaluate("document.documentElement.scrollWidth > innerWidth"))


@asynccontextmanager
async def refusing(line: dict[str, Any], words: str) -> AsyncIterator[None]:
    """The provider refuses prompts with these words as against its policy."""
    script = {"rules": [{"text": words, "action": {"answer": "error", "fault": "content"}}]}
    url = f"{line['simulator']}/simulator/script"
    async with httpx.AsyncClient(trust_env=False) as http:
        (await http.put(url, json=script)).raise_for_status()
        try:
            yield
        finally:
            await http.put(url, json={})


async def test_a_whole_chapter_is_requested_and_its_pictures_come(studio_of: OpenStudio, line: dict[str, Any]) -> None:
    async with studio_of() as studio:
        page = studio.page
        await studio.open()
        await expect(page.get_by_role("heading", name="A Mad Tea-Party")).to_be_visible()
        await live(page)
        await expect(page.locator(".card")).to_have_count(SCENES)
        await expect(page.locator("#tally-count")).to_have_text("0 of 7")

        await page.get_by_role("button", name="Make all 7 pictures").click()

        await expect(page.get_by_role("progressbar").first).to_be_visible()
        await expect(page.locator(".card[data-phase=ready]")).to_have_count(SCENES, timeout=PICTURE_MS)
        await expect(pictures(page)).to_have_count(SCENES, timeout=PICTURE_MS)
        assert [await is_drawn(picture) for picture in await pictures(page).all()] == [True] * SCENES
        addresses = [await picture.get_attribute("src") or "" for picture in await pictures(page).all()]
        assert len(set(addresses)) == SCENES
        assert ["/thumb/" in address for address in addresses] == [True] * SCENES
        await expect(page.locator("#tally-count")).to_have_text("7 of 7")
        await expect(page).to_have_title("(7/7) A Mad Tea-Party · Scenewire Studio")

        await page.reload()
        await expect(pictures(page)).to_have_count(SCENES, timeout=PICTURE_MS)
        assert studio.errors == []
        assert studio.hosts == {urlsplit(line["push"]).netloc, urlsplit(line["api"]).netloc}


async def no_streams(route: Route) -> None:
    """A proxy that lets none through."""
    await route.fulfill(status=502, body="<h1>Bad gateway</h1>", content_type="text/html")


async def test_a_cut_socket_is_made_good_by_a_stream(studio_of: OpenStudio) -> None:
    async with studio_of() as studio:
        page = studio.page
        await studio.open()
        await live(page)
        await expect(chip(page)).to_have_attribute("data-transport", "websocket")
        await page.locator("#scene-1 .make").click()
        await studio.cut()
        # a lost line is looked for at once, and given up after five seconds
        await expect(chip(page)).to_have_attribute("data-transport", "sse", timeout=LINE_MS)
        await page.locator("#scene-2 .make").click()
        await expect(page.locator(".card[data-phase=ready]")).to_have_count(2, timeout=PICTURE_MS)
        await expect(chip(page)).to_have_attribute("data-transport", "sse")

        studio.mend()
        await expect(chip(page)).to_have_attribute("data-transport", "websocket", timeout=LINE_MS)
        await page.locator("#scene-3 .make").click()
        await expect(page.locator("#scene-3[data-phase=ready]")).to_be_visible(timeout=PICTURE_MS)
        assert studio.errors == []


async def test_where_streams_do_not_get_through_either_it_polls(studio_of: OpenStudio) -> None:
    async with studio_of() as studio:
        page = studio.page
        await page.route("**/chapters/*/events", no_streams)
        await studio.open()
        await live(page)
        await studio.cut()
        await expect(chip(page)).to_contain_text("Polling", timeout=LINE_MS)
        await page.locator("#scene-2 .make").click()
        await expect(page.locator("#scene-2[data-phase=ready]")).to_be_visible(timeout=PICTURE_MS)
        await expect(chip(page)).to_contain_text("Polling")
        studio.mend()
        await page.get_by_role("button", name="Reconnect").click()
        await live(page)


async def test_the_picture_stays_in_view_while_a_new_one_is_made(
    studio_of: OpenStudio, simulator: httpx.AsyncClient
) -> None:
    async with studio_of() as studio:
        page = studio.page
        await studio.open()
        await live(page)
        card = page.locator("#scene-1")
        await card.get_by_role("button", name="Make picture").click()
        await expect(card.locator(".open img")).to_be_visible(timeout=PICTURE_MS)
        first = await card.locator(".open img").get_attribute("src")

        # long enough to be looked at
        slow = {"action": {"answer": "processing", "duration": 5}}
        (await simulator.put("/script", json={"rules": [slow]})).raise_for_status()
        await card.get_by_role("button", name="Make again").click()
        await expect(card.get_by_role("progressbar")).to_be_visible()
        assert await card.locator(".open img").first.get_attribute("src") == first
        await expect(card).to_have_attribute("data-phase", "ready", timeout=PICTURE_MS)
        await expect(card.locator(".open img").last).not_to_have_attribute("src", str(first), timeout=PICTURE_MS)
        await expect(card.locator(".open img")).to_have_count(1)
        assert studio.errors == []


async def test_the_grid_shows_a_thumbnail_and_the_large_view_the_picture(studio_of: OpenStudio) -> None:
    async with studio_of(width=390) as studio:
        page = studio.page
        await studio.open()
        await live(page)
        await page.locator("#scene-2 .make").click()
        small = page.locator("#scene-2 .open img")
        await expect(small).to_be_visible(timeout=PICTURE_MS)
        await expect(small).to_have_js_property("complete", True)
        assert await small.evaluate("image => [image.src.includes('/thumb/'), image.naturalWidth]") == [True, 480]
        await small.click()
        large = page.locator("#gallery-image")
        await expect(large).to_have_js_property("complete", True)
        assert await large.evaluate("image => [image.src.includes('/file/'), image.naturalWidth > 480]") == [True, True]
        assert studio.errors == []


async def test_a_picture_that_cannot_be_made_smaller_is_shown_whole(studio_of: OpenStudio) -> None:
    async def none(route: Route) -> None:
        await route.fulfill(status=404)

    async with studio_of(width=390) as studio:
        page = studio.page
        await page.route("**/thumb/**", none)
        await studio.open()
        await live(page)
        await page.locator("#scene-3 .make").click()
        whole = page.locator("#scene-3 .open img")
        await expect(whole).to_be_visible(timeout=PICTURE_MS)
        await expect(whole).to_have_js_property("complete", True)
        assert await whole.evaluate("image => [image.src.includes('/file/'), image.naturalWidth > 480]") == [True, True]


async def test_a_refused_scene_says_why_and_can_be_tried_again(studio_of: OpenStudio, line: dict[str, Any]) -> None:
    async with studio_of() as studio, refusing(line, "the Jabberwock"):
        page = studio.page
        await studio.open()
        await live(page)
        card = page.locator("#scene-4")
        await card.get_by_role("button", name="Edit").click()
        await page.keyboard.press("Control+A")
        await page.keyboard.type("The Jabberwock comes whiffling through the tulgey wood.")
        await page.keyboard.press("Control+Enter")
        await card.get_by_role("button", name="Make picture").click()
        await expect(card).to_have_attribute("data-phase", "failed", timeout=PICTURE_MS)
        assert await card.locator(".fault").inner_text()
        await expect(page.locator("#announcer")).to_contain_text("Scene 4 failed")

        await card.get_by_role("button", name="Edit").click()
        await card.get_by_role("button", name="Restore the chapter").click()
        await card.get_by_role("button", name="Try again").click()
        await expect(card).to_have_attribute("data-phase", "ready", timeout=PICTURE_MS)
        assert studio.errors == []


@pytest.mark.parametrize("width", [320, 390])
async def test_a_phone_needs_no_sideways_scroll(studio_of: OpenStudio, width: int) -> None:
    poll = asyncio.Event()

    async def hold(route: Route) -> None:
        await poll.wait()
        await route.fallback()

    async with studio_of(width=width, height=780, has_touch=True) as studio:
        page = studio.page
        await studio.open()
        await live(page)
        assert not await has_sideways_scroll(page)
        await page.locator("#scene-1 .make").tap()
        await page.locator("#scene-2 .edit").tap()
        assert not await has_sideways_scroll(page)
        await expect(page.locator("#scene-1 .open img")).to_be_visible(timeout=PICTURE_MS)
        await page.route("**/chapters/*/events", no_streams)
        await page.route("**/chapters/*/images*", hold)
        await studio.cut()
        await expect(chip(page)).to_contain_text("Connecting")  # the widest of the line's words
        assert not await has_sideways_scroll(page)
        poll.set()
        await expect(chip(page)).to_contain_text("Polling", timeout=LINE_MS)
        await expect(page.get_by_role("button", name="Reconnect")).to_be_visible()
        assert not await has_sideways_scroll(page)
        await page.locator("#scene-1 .open").tap()
        await expect(page.get_by_role("dialog")).to_be_visible()
        assert not await has_sideways_scroll(page)


async def test_everything_can_be_done_with_the_keyboard(studio_of: OpenStudio) -> None:
    async with studio_of(reduced_motion="reduce") as studio:
        page = studio.page
        await studio.open()
        await live(page)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the scenes")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(page.locator("#scene-1 .whole")).to_be_focused()
        await page.keyboard.press("Tab")
        make = page.locator("#scene-1 .make")
        await expect(make).to_be_focused()
        await page.keyboard.press("Enter")
        picture = page.locator("#scene-1 .open")
        await expect(picture).to_be_visible(timeout=PICTURE_MS)
        await expect(make).to_be_focused()  # its words change, the focus stays

        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Shift+Tab")
        await expect(picture).to_be_focused()
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="“No room! No room!”")
        await expect(dialog).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        await expect(picture).to_be_focused()

        for _ in range(3):
            await page.keyboard.press("Tab")
        edit = page.locator("#scene-1 .edit")
        await expect(edit).to_be_focused()
        await page.keyboard.press("Enter")
        words = page.get_by_label("What is to be seen").first
        await expect(words).to_be_focused()
        await page.keyboard.press("Control+A")
        await page.keyboard.type("An empty table.")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator("#scene-1 .description")).to_have_text("An empty table.")
        await expect(edit).to_be_focused()


async def test_without_a_token_the_page_asks_and_keeps_it_out_of_the_address(studio_of: OpenStudio) -> None:
    async with studio_of(token_in_config=False) as studio:
        page = studio.page
        await studio.open()
        await expect(page.get_by_label("Access token")).to_be_focused()
        await expect(page.locator(".card").first).to_be_hidden()
        await page.keyboard.type(f"Bearer {studio.token}")
        await page.keyboard.press("Enter")
        await live(page)
        assert studio.token not in page.url
        await page.reload()
        await live(page)


async def test_a_token_is_renewed_on_the_line_before_it_ends(studio_of: OpenStudio) -> None:
    async with studio_of() as studio:
        page = studio.page
        given: list[str] = []

        async def config(route: Route) -> None:
            # the first is short, from when it is handed out
            studio.token = studio.sign(3600 if given else 15)
            given.append(studio.token)
            await route.fallback()

        await page.route("**/studio/config.json", config)
        await studio.open()
        await live(page)
        async with asyncio.timeout(LINE_MS / 1000):
            while (frame := json.loads(await studio.sent.get()))["type"] != "auth":
                pass
        assert given[1:] == [frame["token"]]
        async with page.expect_request("**/images/scenes/1") as posted:
            await page.locator("#scene-1 .make").click()
        assert (await (await posted.value).all_headers())["authorization"] == f"Bearer {studio.token}"
        await expect(page.locator("#scene-1 .open img")).to_be_visible(timeout=PICTURE_MS)
        await expect(chip(page)).to_contain_text("Live")
        assert len(studio.sockets) == 1
        assert studio.errors == []


async def test_long_words_are_cut_until_they_are_asked_for(studio_of: OpenStudio) -> None:
    async with studio_of(width=390) as studio:
        page = studio.page
        await studio.open("?chapter=5d2b0b5e-6a0c-4b0e-8a39-0d3b7a7c1f44")
        await live(page)
        await page.get_by_role("button", name="Add a scene").click()
        await page.get_by_label("What is to be seen").fill("Donaudampfschifffahrt" * 100 + " ab" * 500)
        await page.get_by_role("button", name="Save").click()
        words = page.locator("#scene-1 .description")
        cut = (await words.bounding_box() or {})["height"]
        await page.get_by_role("button", name="Show all").click()
        assert (await words.bounding_box() or {})["height"] > 4 * cut
        await expect(page.get_by_role("button", name="Show less")).to_be_focused()
        assert not await has_sideways_scroll(page)


async def test_scenes_of_ones_own_in_a_chapter_of_ones_own(studio_of: OpenStudio) -> None:
    async with studio_of() as studio:
        page = studio.page
        await studio.open("?chapter=0b6f5dd0-5f0c-4f52-9d7e-6b1c2a3d4e5f")
        await live(page)
        await expect(page.get_by_role("heading", name="No scenes yet")).to_be_visible()
        await page.get_by_role("button", name="Add a scene").click()
        await page.keyboard.type("<img src=x onerror=alert(1)> & a lighthouse")
        await page.get_by_role("button", name="Save").click()
        card = page.locator("#scene-1")
        await expect(card.locator(".description")).to_have_text("<img src=x onerror=alert(1)> & a lighthouse")
        await card.get_by_role("button", name="Make picture").click()
        await expect(card.locator(".open img")).to_be_visible(timeout=PICTURE_MS)

        # no picture is missing of a scene without words: asking for "the missing" must not repeat the others
        await page.get_by_role("button", name="Add a scene").click()
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.locator(".card")).to_have_count(2)
        await expect(page.locator("#request-all")).to_have_text("Make all again")
        assert studio.errors == []
