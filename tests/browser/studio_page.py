"""The page of one test, with its socket in the test's hands."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from playwright.async_api import Page, WebSocketRoute


@dataclass
class Studio:
    """The page of one test. `cut()` takes its socket away for good, `mend()` lets the next one through."""

    page: Page
    url: str
    chapter_id: str
    token: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    is_cut: bool = False
    sockets: list[WebSocketRoute] = field(default_factory=list)

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
            route.connect_to_server()
            self.sockets.append(route)
        # one that is never answered: the page must give up on it by itself


OpenStudio = Callable[..., AbstractAsyncContextManager[Studio]]
