"""A page that stays open whatever happens: it watches all that is its user's, and comes back when the line is lost."""

import asyncio
import base64
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from schemas.frames import BEARER_SUBPROTOCOL_PREFIX, SUBPROTOCOL

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 1.0
_FINAL = (4400, 4401, 4403, 4408, 4413, 4429)
"""Close codes that say: do not come back unchanged."""


@dataclass
class Watcher:
    """What one subscriber saw. `seen` is its page: record id -> the last image."""

    urls: Sequence[str]
    token: str
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: record id -> every version that was new to it, in the order of their coming
    versions: dict[str, list[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    connections: int = 0
    #: where each snapshot came from: "memory", "log", "snapshot", "whole" where no cursor was given
    resumed: Counter[str] = field(default_factory=Counter)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _cursor: str | None = None
    #: record id -> version, as this connection was told
    _told: dict[str, int] = field(default_factory=dict)

    async def watch(self) -> None:
        """Until cancelled; tries one notifier after the other."""
        backoff = _FIRST_BACKOFF
        bearer = BEARER_SUBPROTOCOL_PREFIX + base64.urlsafe_b64encode(self.token.encode()).rstrip(b"=").decode()
        protocols: Any = [SUBPROTOCOL, bearer]
        for url in itertools.cycle(self.urls):
            try:
                async with connect(
                    url.replace("http", "ws", 1) + "/ws",
                    subprotocols=protocols,
                    compression=None,
                    max_size=None,
                    open_timeout=3.0,
                    close_timeout=0.5,
                    # a notifier that stands still looks like a line that is lost
                    ping_interval=1.0,
                    ping_timeout=3.0,
                ) as socket:
                    self._told = {}
                    subscription = {"type": "subscribe", "id": "all", "mine": True}
                    await socket.send(json.dumps(subscription | ({"cursor": self._cursor} if self._cursor else {})))
                    async for frame in socket:
                        self._take(json.loads(frame))
                        backoff = _FIRST_BACKOFF
                if socket.close_code in _FINAL:
                    self.faults.append(f"the notifier closed with {socket.close_code}")
            except (OSError, TimeoutError, WebSocketException):
                # a lost line, or nobody there
                pass
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LONGEST_BACKOFF)

    async def until(self, holds: Callable[[], bool], within: float) -> bool:
        """Whether it came to hold within so many seconds; looked at after each frame."""
        try:
            async with asyncio.timeout(within):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return holds()
        return True

    def _take(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "snapshot":
                self.connections += 1
                self._cursor = frame["cursor"]
                self.resumed[frame["resumed"] or "whole"] += 1
                for image in frame["images"]:
                    # rows are never behind what was shown; the log may be behind rows that were
                    self._show(image, at_least=0 if frame["resumed"] in ("memory", "log") else self._version(image))
            case "status":
                self._show(frame["image"], at_least=self._told.get(frame["image"]["record_id"], -1) + 1)
            case "cursor":
                self._cursor = frame["cursor"]
            case "error":
                self.faults.append(f"the notifier refused: {frame}")
        self._changed.set()

    def _show(self, image: dict[str, Any], *, at_least: int) -> None:
        record_id, version = image["record_id"], image["version"]
        if version < at_least:
            self.faults.append(f"{record_id}: version {version} where {at_least} was to come")
        self._told[record_id] = version
        if version > self._version(image):
            self.versions.setdefault(record_id, []).append(version)
        if version >= self._version(image):
            self.seen[record_id] = image

    def _version(self, image: dict[str, Any]) -> int:
        """What this page shows of the same record."""
        record_id = image["record_id"]
        return int(self.seen[record_id]["version"]) if record_id in self.seen else -1


@asynccontextmanager
async def watching(urls: Sequence[str], token: str) -> AsyncIterator[Watcher]:
    """A watcher at work."""
    watcher = Watcher(urls, token)
    task = asyncio.create_task(watcher.watch(), name="watcher")
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
