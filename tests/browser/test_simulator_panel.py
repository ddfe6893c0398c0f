"""The studio's hidden panel for the simulated provider, in Chromium on the real line."""

import json
from typing import Any

import httpx
import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.browser.studio_page import OpenStudio

pytestmark = pytest.mark.browser

PICTURE_MS = 60_000
KEY = "Alt+Shift+KeyS"


def panel(page: Page) -> Locator:
    return page.get_by_role("dialog", name="Simulated ModelsLab")


async def live(page: Page) -> None:
    await expect(page.locator("#chip")).to_contain_text("Live", timeout=45_000)


async def test_a_profile_and_a_rule_are_chosen_seen_and_cleared(
    studio_of: OpenStudio, simulator: httpx.AsyncClient
) -> None:
    async with studio_of(width=1500) as studio:
        page, here = studio.page, panel(studio.page)
        await studio.open()
        await live(page)
        await expect(here).to_be_hidden()
        await page.keyboard.press(KEY)
        await expect(here.get_by_role("radio", name="Calm")).to_be_checked()

        await here.get_by_role("radio", name="Instant").check()
        await expect(here.get_by_role("status")).to_have_text("Instant: from the next call on.")
        await here.get_by_label("What happens").select_option("fault:content")
        await here.get_by_label("Prompt contains").fill("treacle-well")
        await here.get_by_role("button", name="Add the rule").click()
        await expect(here.get_by_role("list", name="Rules in force")).to_contain_text("content")
        script = (await simulator.get("/script")).json()
        assert script["profile"] == "instant"
        assert script["rules"] == [{"text": "treacle-well", "action": {"answer": "error", "fault": "content"}}]

        # the page beside it stays usable, and meets what was chosen
        before = (await simulator.get("/counters")).json()["submits"]
        told = page.locator("#scene-6")
        await told.locator(".edit").click()
        await told.get_by_label("What is to be seen").fill("Three sisters in a treacle-well.")
        await page.keyboard.press("Control+Enter")
        await told.locator(".make").click()
        await expect(told).to_have_attribute("data-phase", "failed", timeout=PICTURE_MS)
        await expect(here.locator("dt:text('Submits') + dd")).to_have_text(str(before + 1), timeout=10_000)
        await page.locator("#scene-2 .make").click()
        await expect(page.locator("#scene-2")).to_have_attribute("data-phase", "ready", timeout=PICTURE_MS)
        await expect(here.get_by_role("row").filter(has_text="charged").first).to_be_visible(timeout=10_000)

        await here.get_by_role("button", name="Clear all").click()
        await expect(here.get_by_role("radio", name="Calm")).to_be_checked()
        await expect(here.get_by_text("No rules")).to_be_visible()
        assert (await simulator.get("/script")).json() == {"profile": "calm"}
        await page.keyboard.press("Escape")
        await expect(here).to_be_hidden()
        assert studio.errors == []


async def test_a_rule_says_model_nth_call_and_probability_and_keeps_the_others(
    studio_of: OpenStudio, simulator: httpx.AsyncClient
) -> None:
    other = {"pattern": "^x", "times": 2, "action": {"answer": "reset"}}
    (await simulator.put("/script", json={"profile": "busy", "mercy": 1, "rules": [other]})).raise_for_status()
    async with studio_of(width=390, height=780) as studio:
        page, here = studio.page, panel(studio.page)
        await studio.open("#simulator")
        await expect(here.get_by_role("radio", name="Busy")).to_be_checked()
        await here.get_by_label("What happens").select_option("cut-made")
        await here.get_by_label("Model is").fill("imagen-4")
        await here.get_by_label("Only call number").fill("2")
        await here.get_by_label("In percent").fill("25")
        await here.get_by_role("button", name="Add the rule").click()
        await expect(here.get_by_role("list", name="Rules in force").get_by_role("listitem")).to_have_count(2)
        added = {
            "model": "imagen-4",
            "nth": [2],
            "probability": 0.25,
            "action": {"answer": "reset", "created": True, "duration": 2.0},
        }
        assert (await simulator.get("/script")).json() == {"profile": "busy", "mercy": 1, "rules": [added, other]}

        await here.get_by_role("button", name="Remove the rule: The connection is cut, the job made").click()
        await expect(here.get_by_role("list", name="Rules in force").get_by_role("listitem")).to_have_count(1)
        assert (await simulator.get("/script")).json()["rules"] == [other]
        assert not await page.evaluate("document.documentElement.scrollWidth > innerWidth")
        await here.get_by_role("button", name="Close").click()
        await expect(here).to_be_hidden()
        assert "#" not in page.url
        assert studio.errors == []


async def test_where_no_simulator_runs_there_is_no_panel(studio_of: OpenStudio) -> None:
    async def config(route: Route) -> None:
        body = {**await (await route.fetch()).json(), "token": studio.token, "simulator_url": None}
        await route.fulfill(body=json.dumps(body), content_type="application/json")

    async with studio_of() as studio:
        page = studio.page
        await page.route("**/studio/config.json", config)
        await studio.open("#simulator")
        await live(page)
        await page.keyboard.press(KEY)
        await expect(page.locator("simulator-panel")).to_have_count(0)


async def test_a_simulator_that_is_away_is_said_to_be(studio_of: OpenStudio, line: dict[str, Any]) -> None:
    async with studio_of() as studio:
        page = studio.page
        await page.route(f"{line['simulator']}/**", lambda route: route.abort())
        await studio.open("#simulator")
        await expect(panel(page).get_by_role("status")).to_have_text(
            "The simulator does not answer. Is it still running?"
        )
