"""`python -m docs.screenshots`: the pictures of the studio in docs/, taken of what `make run PROFILE=bad-day` started.

It asks for the demo chapter's pictures, until one has to be waited for, and takes the page as it is then and when all
are there: at a desk, and on a phone in the dark. Then one scene more is made again, for its details and for its picture
before and after. It needs Chromium, and what `make check` installs.
"""

import argparse
import asyncio
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from local import readyfile
from local.python import CHECKOUT

_PHONE = {"color_scheme": "dark", "device_scale_factor": 1.5, "has_touch": True, "is_mobile": True}
_FLAGS = ("--no-sandbox", "--disable-gpu", "--hide-scrollbars")
_LIVE_MS, _COMPLETE_MS = 30_000, 240_000
_IN_TROUBLE = """() => {
  const phases = [...document.querySelectorAll('.card')].map(({dataset}) => [dataset.phase, dataset.stage]);
  const waits = phases.some(([, stage]) => stage === 'retry_wait');
  return waits || (phases.every(([phase]) => phase === 'ready') ? 'all went well' : false);
}"""
_COMPLETE = "() => [...document.querySelectorAll('.card')].every(card => card.dataset.phase === 'ready')"
# a waiting scene's foot to that of the window, where it is not in it: the bar on top hides nothing of it then
_TO_THE_TROUBLE = """async () => {
  const card = document.querySelector('[data-stage=retry_wait]');
  if (card && card.getBoundingClientRect().bottom > innerHeight) {
    card.scrollIntoView({ block: "end", behavior: "instant" });
  }
  // what was scrolled to is painted two frames later
  for (let frame = 0; frame < 2; frame += 1) await new Promise(requestAnimationFrame);
}"""
_MOST_ROUNDS = 8


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.screenshots", description=__doc__)
    parser.add_argument(
        "--ready-file",
        type=Path,
        default=CHECKOUT / ".local" / "ready.json",
        metavar="FILE",
        help="the ready file of the running service (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs", metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        parser.error("there is no Chromium here: apt install chromium")
    try:
        studio = readyfile.read(arguments.ready_file).studio
    except FileNotFoundError:
        parser.error(f"{arguments.ready_file} is not there: start the service with make run PROFILE=bad-day")
    asyncio.run(_take_all(studio, chromium, arguments.out))


async def _take_all(studio: str, chromium: str, out: Path) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        desk = await _open(browser, studio, width=1280, height=1392)
        phone = await _open(browser, studio, width=390, height=844, **_PHONE)
        wanted = {out / "studio-bad-day.webp": desk, out / "studio-bad-day-phone.webp": phone}
        for _ in range(_MOST_ROUNDS):
            await desk.locator("#request-all").click()
            await desk.locator(".card[data-phase=busy]").first.wait_for()
            caught = await asyncio.gather(*(_caught(page, file) for file, page in wanted.items()))
            wanted = {file: page for (file, page), done in zip(wanted.items(), caught, strict=True) if not done}
            await desk.wait_for_function(_COMPLETE, timeout=_COMPLETE_MS)
            if not wanted:
                break
        for page in (desk, phone):
            await page.wait_for_function(_COMPLETE, timeout=_COMPLETE_MS)
            await page.evaluate("Promise.all([...document.querySelectorAll('.card img')].map(image => image.decode()))")
            await page.evaluate("Promise.all(document.getAnimations().map(animation => animation.finished))")
        await phone.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
        await phone.evaluate(_TO_THE_TROUBLE)
        await _save(desk, out / "studio-complete.webp")
        await _save(phone, out / "studio-complete-phone.webp")
        await desk.set_viewport_size({"width": 1280, "height": 900})
        await _take_details(desk, out)
        await browser.close()


async def _caught(page: Page, file: Path) -> bool:
    """The page while a scene waits for another try; False when none does, or none does any more."""
    found = await page.wait_for_function(_IN_TROUBLE, timeout=_COMPLETE_MS, polling=50)
    if await found.json_value() is not True:
        return False
    await page.evaluate(_TO_THE_TROUBLE)
    await _save(page, file)
    return await page.locator(".card[data-stage=retry_wait]").count() > 0


async def _take_details(page: Page, out: Path) -> None:
    # the scene that took most tries says most
    tries = await page.locator(".look").evaluate_all(
        "looks => looks.map(({textContent}) => parseInt(/(\\d) retr/.exec(textContent)?.[1] ?? '0'))"
    )
    card = page.locator(".card").nth(tries.index(max(tries)))
    await card.scroll_into_view_if_needed()
    await card.locator(".story-button").click()
    await page.locator(".attempts li").first.wait_for()
    await _save(page, out / "studio-details.webp")
    await page.keyboard.press("Escape")
    await card.locator(".make").click()
    await card.and_(page.locator("[data-phase=busy]")).wait_for()
    await card.and_(page.locator("[data-phase=ready]")).wait_for(timeout=_COMPLETE_MS)
    await card.locator(".open").click()
    await page.get_by_role("button", name="Before / after").click()
    await page.evaluate("Promise.all([...document.querySelectorAll('.compare img')].map(image => image.decode()))")
    await _save(page, out / "studio-before-after.webp")


async def _open(browser: Browser, studio: str, *, width: int, height: int, **options: object) -> Page:
    context = await browser.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
    page = await context.new_page()
    await page.goto(f"{studio}/")
    await page.locator("#chip[data-state=live]").wait_for(timeout=_LIVE_MS)
    return page


async def _save(page: Page, file: Path) -> None:
    picture = Image.open(io.BytesIO(await page.screenshot()))
    picture.save(file, "WEBP", quality=78, method=6)


if __name__ == "__main__":
    main()
