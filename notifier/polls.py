"""Polls that wait: `Prefer: wait=N` (RFC 7240), entity tags (RFC 9110 section 13.1.2), and who is held.

A held poll registers first and reads second, like a socket, so that nothing falls in between.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request

from notifier.events import Event
from notifier.hub import Hub
from notifier.scopes import Key
from telemetry import metrics
from web.problems import Refused

LONGEST_WAIT = 60
"""Seconds: many proxies end a request that is silent for longer."""

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)
_TAG = re.compile(r'(W/)?"([^"]*)"')


def wait_of(request: Request) -> int | None:
    """The seconds a client is willing to wait, 60 at most; None where it does not say."""
    found = _WAIT.search(", ".join(request.headers.getlist("prefer")))
    return min(int(found[1]), LONGEST_WAIT) if found else None


class Tags:
    """What an `If-None-Match` names."""

    def __init__(self, request: Request) -> None:
        header = ", ".join(request.headers.getlist("if-none-match"))
        self.given = bool(header.strip())
        self._any = header.strip() == "*"
        self._named = {(bool(weak), tag) for weak, tag in _TAG.findall(header)}

    def match(self, etag: str) -> bool:
        """The weak comparison, which RFC 9110 asks for here."""
        tag = etag.removeprefix("W/").strip('"')
        return self._any or (True, tag) in self._named or (False, tag) in self._named

    def match_exactly(self, etag: str) -> bool:
        """The same tag, as strong or as weak."""
        return self._any or (etag.startswith("W/"), etag.removeprefix("W/").strip('"')) in self._named


class Hold:
    """One held poll; a listener of the hub."""

    def __init__(self, wanted: Callable[[Event], bool], seconds: float) -> None:
        self._wanted = wanted
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + seconds
        self._woken = asyncio.Event()
        self._over = False

    def offer(self, event: Event) -> None:
        if self._wanted(event):
            self._woken.set()

    def ended(self, key: Key) -> None:
        pass

    def renew(self) -> None:
        """Events may have been lost: read again."""
        self._woken.set()

    def release(self) -> None:
        """Answer now, with what there is."""
        self._over = True
        self._woken.set()

    async def change(self) -> bool:
        """Wait for the next change. False when the time is up, the process stops or the client has left."""
        try:
            async with asyncio.timeout_at(self._until):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return not self._over


class Polls:
    def __init__(self, hub: Hub, *, limit: int) -> None:
        self._hub = hub
        self._limit = limit
        self._held: set[Hold] = set()
        self._draining = False

    def __len__(self) -> int:
        return len(self._held)

    @asynccontextmanager
    async def hold(
        self, request: Request, key: Key, seconds: float, wanted: Callable[[Event], bool]
    ) -> AsyncIterator[Hold]:
        """Register for a scope. Raises `Refused` (503) when too many are held."""
        if len(self._held) >= self._limit:
            raise Refused(503, "too_many_polls", "Too many polls wait here; try again.", headers={"Retry-After": "2"})
        hold = Hold(wanted, max(0.0, seconds))
        if self._draining:
            hold.release()
        self._held.add(hold)
        metrics.gauge("long_polls", len(self._held))
        self._hub.join(key, hold)
        watch = asyncio.create_task(_release_when_gone(request, hold))
        try:
            yield hold
        finally:
            watch.cancel()
            self._hub.leave(key, hold)
            self._held.discard(hold)
            metrics.gauge("long_polls", len(self._held))

    def renew(self) -> None:
        """Events may have been lost: each poll reads again, and is answered if there is news."""
        for hold in self._held:
            hold.renew()

    def refuse_new(self) -> None:
        """The process stops: whoever comes from now on is answered at once."""
        self._draining = True

    def leaving(self) -> list[Callable[[], None]]:
        """How to answer each of those that are held now."""
        return [hold.release for hold in self._held]


async def _release_when_gone(request: Request, hold: Hold) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    hold.release()
