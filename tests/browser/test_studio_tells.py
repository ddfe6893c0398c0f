"""What the studio tells of a picture: attempts, prompt and model; before and after; and that everybody can read it."""

import httpx
import pytest
from playwright.async_api import Locator, Page, expect

from local import node
from tests.browser.studio_page import OpenStudio, Studio

pytestmark = pytest.mark.browser

PICTURE_MS = 60_000
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# nothing moves while it is measured
STILL = {"reduced_motion": "reduce"}


@pytest.fixture(scope="session")
def axe(packages: object) -> str:
    """axe-core's source."""
    return (node.CLIENT / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


async def live(page: Page) -> None:
    await expect(page.locator("#chip")).to_contain_text("Live", timeout=45_000)


async def made(page: Page, scene: int) -> Locator:
    card = page.locator(f"#scene-{scene}")
    await card.locator(".make").click()
    await expect(card).to_have_attribute("data-phase", "ready", timeout=PICTURE_MS)
    await expect(card.locator(".open img")).to_have_count(1, timeout=PICTURE_MS)
    return card


async def test_the_details_tell_attempts_prompt_model_and_cost(
    studio_of: OpenStudio, simulator: httpx.AsyncClient
) -> None:
    away = {"answer": "error", "fault": "unavailable"}
    busy = {"answer": "error", "fault": "model_unavailable"}
    rules = [
        {"text": "pocket watch", "nth": 1, "per": "prompt", "action": busy},
        {"text": "pocket watch", "nth": 2, "per": "prompt", "action": away},
    ]
    (await simulator.put("/script", json={"profile": "instant", "rules": rules})).raise_for_status()
    async with studio_of() as studio:
        page = studio.page
        await studio.open()
        await live(page)
        card = page.locator("#scene-3")
        await card.locator(".make").click()
        await card.get_by_role("button", name="Details of scene 3").click()
        details = page.get_by_role("dialog", name="The best butter")
        attempts = details.get_by_role("list", name="Attempts").get_by_role("listitem")
        # it is open already when the five seconds begin in which this is to be seen
        await expect(details.locator(".story-state")).to_contain_text("Trying again in", timeout=PICTURE_MS)
        await expect(card.locator(".headline")).to_contain_text("Trying again in")
        await expect(attempts).to_have_count(2)
        await expect(attempts.nth(0)).to_contain_text("This model could not at that moment. The next model was asked.")
        await expect(attempts.nth(0)).to_contain_text("free · costs no try")
        await expect(attempts.nth(1)).to_contain_text("The image service said that it could not at that moment.")
        # it stays open, and what comes is told there
        await expect(attempts).to_have_count(3, timeout=PICTURE_MS)
        await expect(attempts.nth(2)).to_contain_text("The picture was made.", timeout=PICTURE_MS)
        await expect(attempts.nth(2)).to_contain_text("$0.0")
        await expect(details.locator(".prompt")).to_contain_text("The Hatter shakes an open pocket watch")
        made_by = await attempts.nth(2).locator("strong").inner_text()
        await expect(details.locator(".facts")).to_contain_text(made_by)
        await expect(details.locator(".facts")).to_contain_text("1 of 3")
        await page.keyboard.press("Escape")
        await expect(details).to_be_hidden()
        await expect(card.get_by_role("button", name="Details of scene 3")).to_be_focused()
        await expect(card.locator(".look")).to_contain_text(f"{made_by} · ")
        assert studio.errors == []


async def test_a_failed_request_and_the_picture_shown_are_told_apart(
    studio_of: OpenStudio, simulator: httpx.AsyncClient
) -> None:
    async with studio_of() as studio:
        page = studio.page
        await studio.open()
        await live(page)
        card = await made(page, 5)
        refused = {"action": {"answer": "error", "fault": "content"}}
        (await simulator.put("/script", json={"rules": [refused]})).raise_for_status()
        await card.locator(".make").click()
        await expect(card).to_have_attribute("data-phase", "failed", timeout=PICTURE_MS)
        # the picture there is stays
        await expect(card.locator(".open img")).to_be_visible()
        await expect(card.locator(".fault")).to_contain_text("content rules")
        await card.get_by_role("button", name="Details").click()
        attempts = page.get_by_role("list", name="Attempts").get_by_role("listitem")
        await expect(attempts).to_contain_text("Refused by the content rules")
        await page.get_by_label("Picture shown").check()
        await expect(attempts).to_contain_text("The picture was made.")
        assert studio.errors == []


async def test_before_and_after_in_the_gallery(studio_of: OpenStudio, simulator: httpx.AsyncClient) -> None:
    await simulator.put("/script", json={"profile": "instant"})
    async with studio_of() as studio:
        page = studio.page
        await studio.open()
        await live(page)
        card = await made(page, 1)
        first = await card.locator(".open img").get_attribute("src") or ""
        await made(page, 2)
        await card.locator(".make").click()
        await expect(card.locator(".open img").last).not_to_have_attribute("src", first, timeout=PICTURE_MS)
        await card.locator(".open").click()
        gallery = page.locator("dialog.gallery")
        await gallery.get_by_role("button", name="Before / after").click()
        before, after = gallery.get_by_alt_text("Before:"), gallery.get_by_alt_text("After:")
        await expect(before).to_be_visible()
        assert await before.get_attribute("src") != await after.get_attribute("src")
        assert (await before.get_attribute("src") or "").split("/")[4] == first.split("/")[4]
        slider = gallery.get_by_role("slider")
        await slider.focus()
        await page.keyboard.press("ArrowRight")
        await expect(slider).to_have_attribute("aria-valuetext", "51% before, 49% after")
        assert await before.evaluate("image => image.style.clipPath") == "inset(0px 49% 0px 0px)"

        await gallery.get_by_role("button", name="Before / after").click()
        await page.keyboard.press("ArrowRight")
        await expect(gallery.locator("#gallery-title")).to_have_text("Why is a raven like a writing-desk?")
        # of this one there is but one picture
        await expect(gallery.get_by_role("button", name="Before / after")).to_have_attribute("aria-disabled", "true")
        await page.keyboard.press("ArrowLeft")
        await expect(gallery.locator("#gallery-title")).to_have_text("“No room! No room!”")
        await page.keyboard.press("Escape")
        await expect(card.locator(".open")).to_be_focused()
        assert studio.errors == []


async def test_colours_are_chosen_and_kept(studio_of: OpenStudio) -> None:
    async with studio_of(color_scheme="light") as studio:
        page = studio.page
        await studio.open()
        paper = "getComputedStyle(document.body).backgroundColor"
        light = await page.evaluate(paper)
        await page.get_by_role("button", name="Colours: as the system").click()
        await page.get_by_role("button", name="Colours: light").click()
        await expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()
        dark = await page.evaluate(paper)
        assert dark != light
        await page.reload()
        await expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()
        assert await page.evaluate(paper) == dark


async def violations(page: Page, axe: str) -> list[str]:
    await page.evaluate(axe)
    options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
    found = await page.evaluate("options => axe.run(document, options)", options)
    return [f"{rule['id']}: {one['html'][:200]}" for rule in found["violations"] for one in rule["nodes"]]


async def walk(studio: Studio, axe: str) -> dict[str, list[str]]:
    """What axe says of every state of the page."""
    page, said = studio.page, {}

    async def look(state: str) -> None:
        said[state] = await violations(page, axe)

    await look("nothing asked for")
    await page.locator("#scene-2 .edit").click()
    await look("editor")
    await page.get_by_role("button", name="Cancel").click()
    await page.locator("#scene-4 .make").click()
    await expect(page.get_by_role("progressbar")).to_be_visible()
    await look("under way")
    card = page.locator("#scene-4")
    await expect(card).to_have_attribute("data-phase", "failed", timeout=PICTURE_MS)
    await look("failed")
    for _ in range(2):
        await made(page, 1)
    await made(page, 2)
    await page.locator("#scene-1 .open").click()
    await look("gallery")
    await page.get_by_role("button", name="Before / after").click()
    await look("before and after")
    await page.locator("dialog.gallery").get_by_role("button", name="Details").click()
    await expect(page.get_by_role("list", name="Attempts").get_by_role("listitem").first).to_be_visible()
    await look("details")
    await page.keyboard.press("Escape")
    await page.keyboard.press("Escape")
    await page.keyboard.press("Alt+Shift+KeyS")
    await expect(page.get_by_role("radio", name="Calm")).to_be_visible()
    await look("the simulator's panel")
    return said


@pytest.mark.parametrize(("width", "colours"), [(1280, "light"), (390, "dark")])
async def test_axe_finds_nothing(
    studio_of: OpenStudio, simulator: httpx.AsyncClient, axe: str, width: int, colours: str
) -> None:
    refused = {"text": "great concert", "action": {"answer": "error", "fault": "content", "latency": 4}}
    await simulator.put("/script", json={"profile": "instant", "rules": [refused]})
    async with studio_of(width=width, color_scheme=colours, **STILL) as studio:
        await studio.open()
        await live(studio.page)
        said = await walk(studio, axe)
        assert {state: found for state, found in said.items() if found} == {}


async def test_axe_finds_nothing_where_the_token_is_asked_for(studio_of: OpenStudio, axe: str) -> None:
    async with studio_of(token_in_config=False, **STILL) as studio:
        await studio.open()
        await expect(studio.page.get_by_label("Access token")).to_be_focused()
        assert await violations(studio.page, axe) == []
