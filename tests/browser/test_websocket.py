"""A browser's own WebSocket on the notifier's own protocol: Chromium, with nothing in between."""

import base64
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from playwright.async_api import Page, async_playwright

pytestmark = pytest.mark.browser

# what a page can see of a socket: its frames, and how it ended
_SOCKET = """
async ({url, protocols, says, leaves}) => {
  const socket = new WebSocket(url, protocols);
  socket.binaryType = "arraybuffer";
  const seen = {frames: []};
  const over = new Promise(resolve => {
    socket.onclose = end => resolve({code: end.code, reason: end.reason, clean: end.wasClean});
  });
  socket.onopen = () => { seen.protocol = socket.protocol; seen.extensions = socket.extensions; };
  socket.onmessage = message => {
    const frame = JSON.parse(message.data);
    seen.frames.push(frame);
    const next = says.shift();
    if (next !== undefined) socket.send(next === "binary" ? new Uint8Array([1, 2, 3]) : next);
    else if (leaves) socket.close(leaves, "enough seen");
  };
  const end = await over;
  return {...seen, ...end};
}
"""


@pytest.fixture
async def page(chromium: str, line: dict[str, Any]) -> AsyncIterator[Page]:
    """A page of the notifier's own origin."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened = await browser.new_page()
        await opened.goto(line["push"] + "/healthz")
        try:
            yield opened
        finally:
            await browser.close()


async def play(page: Page, line: dict[str, Any], *says: str, leaves: int | None = None, token: str = "") -> Any:
    if not token:
        claims = {"sub": str(uuid.uuid4()), "exp": time.time() + 600}
        if line["jwt_audience"]:
            claims["aud"] = line["jwt_audience"]
        token = jwt.encode(claims, line["jwt_secret"], algorithm="HS256")
    bearer = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
    return await page.evaluate(
        _SOCKET,
        {
            "url": line["push"].replace("http", "ws", 1) + "/ws",
            "protocols": ["scenewire.v1+json", f"base64url.bearer.scenewire.{bearer}"],
            "says": says,
            "leaves": leaves,
        },
    )


async def test_chromium_speaks_with_it_and_leaves_in_order(page: Page, line: dict[str, Any]) -> None:
    seen = await play(page, line, '{"type":"ping"}', '{"type":"subscribe","id":"s","mine":true}', leaves=3001)
    # it offers permessage-deflate, which is not taken; the token is not echoed
    assert (seen["protocol"], seen["extensions"]) == ("scenewire.v1+json", "")
    assert [frame["type"] for frame in seen["frames"]] == ["welcome", "pong", "snapshot"]
    assert (seen["code"], seen["clean"]) == (3001, True)


async def test_chromium_sees_why_it_was_closed(page: Page, line: dict[str, Any]) -> None:
    refused = await play(page, line, token="no.token.at-all")
    assert (refused["code"], refused["reason"], refused["clean"]) == (4401, "token_invalid", True)
    no_frame = await play(page, line, "nonsense")
    assert (no_frame["code"], no_frame["clean"]) == (4400, True)
    binary = await play(page, line, "binary")
    assert (binary["code"], binary["clean"]) == (4400, True)


async def test_chromiums_large_messages_are_read_or_refused(page: Page, line: dict[str, Any]) -> None:
    # read whole, in whatever pieces it comes, and found to be no frame
    large = await play(page, line, "ü" * 15_000)
    assert (large["code"], large["clean"]) == (4400, True)
    too_large = await play(page, line, "x" * 1_000_000)
    assert too_large["code"] == 1009
