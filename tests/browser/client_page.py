"""Pages that use client/, on the real line, with the network between in the test's hands."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import BrowserContext, Locator, Page, WebSocketRoute

from tests.browser.tunnel import Tunnel

_BURST = """async ([number, changes]) => {
    const socket = sockets.at(-1);
    const { latest } = view.scenes.find(({sceneNumber}) => sceneNumber === number);
    const { port1, port2 } = new MessageChannel();
    let version = latest.version;
    for (let sent = 0; sent < changes; sent += 1) {
        version += 1;
        const frame = {type: "status", image: {...latest, version}, cursor: "made up"};
        socket.dispatchEvent(new MessageEvent("message", {data: JSON.stringify(frame)}));
        // React draws what a task has changed at its end
        await new Promise(done => { port1.onmessage = done; port2.postMessage(null); });
    }
    port1.close();
    return version;
}"""


@dataclass
class Tab:
    """One page, and the sockets that it opened."""

    page: Page
    chapter_id: str
    blocked: bool = False
    sockets: list[str] = field(default_factory=list)

    def badge(self, status: str, transport: str) -> Locator:
        return self.page.locator(f"output[data-status={status}][data-transport={transport}]")

    def scene(self, number: int, status: str) -> Locator:
        return self.page.locator(f"li[data-scene='{number}'][data-status={status}]")

    async def request(self, number: int, chapter_id: str | None = None) -> None:
        """Ask for a picture, as a button of the page would."""
        asked = [chapter_id or self.chapter_id, number]
        script = "([chapter, number]) => scenewire.requestScene(chapter, number, {scene_description: 'A table.'})"
        await self.page.evaluate(script, asked)

    async def pictures(self) -> dict[str, Any]:
        """Of the page's view: what there is of each scene."""
        script = "() => view.scenes.map(({sceneNumber, latest}) => [sceneNumber, latest.version, latest.image_url])"
        return {str(number): [version, url] for number, version, url in await self.page.evaluate(script)}

    async def burst(self, number: int, changes: int) -> int:
        """So many changes of a scene on its socket, made up, each a task of its own; the last one's version."""
        version: int = await self.page.evaluate(_BURST, [number, changes])
        return version

    async def frames(self) -> list[dict[str, float]]:
        """Each time from one animation frame to the next: its `ms`, its `messages` of sockets and its `renders`."""
        # what the newest frame draws is on record with the one after it
        await self.page.evaluate("new Promise(next => requestAnimationFrame(() => requestAnimationFrame(next)))")
        frames: list[dict[str, float]] = await self.page.evaluate("painted")
        return frames

    def pass_on(self, socket: WebSocketRoute) -> None:
        # one that is never answered, as behind a proxy that knows no WebSockets
        if not self.blocked:
            socket.connect_to_server()

    @asynccontextmanager
    async def asleep(self) -> AsyncIterator[None]:
        """Meanwhile not a line of its code runs, as on a machine that sleeps or in a tab that is frozen."""
        # not Page.setWebLifecycleState: a page that nothing hides goes on all the same
        debugger = await self.page.context.new_cdp_session(self.page)
        await debugger.send("Debugger.enable")
        await debugger.send("Debugger.pause")
        yield
        await debugger.send("Debugger.resume")
        await debugger.detach()


@dataclass
class Pages:
    """A browser whose tabs all belong to one user; they reach the notifier by the tunnel."""

    context: BrowserContext
    tunnel: Tunnel
    line: dict[str, Any]
    chapter_id: str
    token: str = field(repr=False)
    errors: list[str] = field(default_factory=list)

    async def tab(self, *, share: bool = False, tokens: list[str] | None = None, blocked: bool = False) -> Tab:
        """Open a page; while it is `blocked` none of its WebSockets gets through."""
        page = await self.context.new_page()
        tab = Tab(page, self.chapter_id, blocked)
        wanted = {
            "pushUrl": f"http://127.0.0.1:{self.tunnel.port}",
            "apiUrl": self.line["api"],
            "chapterId": self.chapter_id,
            "tokens": tokens or [self.token],
            "share": share,
        }
        await page.add_init_script(f"scenewireTest = {json.dumps(wanted)}")
        page.on("websocket", lambda socket: tab.sockets.append(socket.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        if blocked:
            await page.route_web_socket("**/ws", tab.pass_on)
        await page.goto(f"{self.line['push']}/client-test/")
        return tab
