"""The page of one test, with its socket in the test's hands."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from playwright.async_api import Page, WebSocketRoute


@dataclass
class Studio:
    """The page of one test. `cut()` takes its socket away for good, `mend()` lets the next one through.

    `token` is what the page's config.json hands out; `sign(seconds)` makes one of the same user that lives so long.
    """

    page: Page
    url: str
    chapter_id: str
    token: str
    sign: Callable[[float], str]
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    is_cut: bool = False
    sockets: list[WebSocketRoute] = field(default_factory=list)
    sent: asyncio.Queue[str | bytes] = field(default_factory=asyncio.Queue)

    async def open(self, query: str = "") -> None:
        await self.page.goto(f"{self.url}/{query}")

    async def cut(self) -> None:
        self.is_cut = True
        for socket in self.sockets:
            await socket.close(code=1012)
        self.sockets.clear()

    def mend(self) -> None:
        self.is_cut = False

    def socket(self, route: WebSocketRoute) -> None:
        if not self.is_cut:
            server = route.connect_to_server()

            def pass_on(frame: str | bytes) -> None:
                self.sent.put_nowait(frame)
                server.send(frame)

            route.on_message(pass_on)
            self.sockets.append(route)
        # one that is never answered: the page must give up on it by itself


OpenStudio = Callable[..., AbstractAsyncContextManager[Studio]]
