"""Following a chapter over the WebSocket: the newest version of each image, over as many connections as it takes."""

import asyncio
import base64
import json
import random
from collections.abc import Callable

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from schemas.frames import BEARER_SUBPROTOCOL_PREFIX, SUBPROTOCOL
from schemas.statuses import ImageStatus

_SUBSCRIPTION = "chapter"
_REFUSALS = {1007, 1009, *range(4400, 4500)}
"""Close codes of the contract after which the same thing is not tried again."""
_OPEN_TIMEOUT = 5.0  # seconds
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 5.0  # seconds


class LineRefused(Exception):
    """The push address does not want this connection: trying again unchanged is of no use."""


class Follower:
    """Calls `on_image` for each new version, in order per image. `reconnects` counts lost lines.

    `ready` is set while a subscription holds: what is committed from then on is sure to be seen.
    """

    def __init__(self, push_url: str, token: str, chapter_id: str, on_image: Callable[[ImageStatus], None]) -> None:
        bearer = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
        self._protocols = [Subprotocol(SUBPROTOCOL), Subprotocol(BEARER_SUBPROTOCOL_PREFIX + bearer)]
        self._url = "ws" + push_url.removeprefix("http") + "/ws"
        self._chapter_id = chapter_id
        self._on_image = on_image
        self._versions: dict[str, int] = {}
        self._cursor: str | None = None
        self.ready = asyncio.Event()
        self.reconnects = 0

    async def run(self) -> None:
        """Ends only by being cancelled or with LineRefused."""
        failures = 0
        while True:
            try:
                await self._follow()
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code in _REFUSALS:
                    code, reason = closed.rcvd.code, closed.rcvd.reason or "no reason was given"
                    raise LineRefused(f"The push line was closed with code {code}: {reason}") from None
            except (OSError, TimeoutError, InvalidHandshake):
                pass
            if self.ready.is_set():
                self.reconnects += 1
                failures = 0
            failures += 1
            self.ready.clear()
            await asyncio.sleep(random.uniform(0.05, min(_LONGEST_DELAY, _FIRST_DELAY * 2**failures)))

    async def _follow(self) -> None:
        # proxy=None: the service is on this machine or named by its own address
        async with connect(self._url, subprotocols=self._protocols, open_timeout=_OPEN_TIMEOUT, proxy=None) as socket:
            subscribe = {"type": "subscribe", "id": _SUBSCRIPTION, "chapter_id": self._chapter_id}
            if self._cursor is not None:
                subscribe["cursor"] = self._cursor
            await socket.send(json.dumps(subscribe))
            while True:
                self._read(json.loads(await socket.recv()))

    def _read(self, frame: dict[str, object]) -> None:
        match frame:
            case {"type": "snapshot", "images": list(images), "cursor": str(cursor)}:
                for image in images:
                    self._see(image)
                self._cursor = cursor
                self.ready.set()
            case {"type": "status", "image": image, "cursor": str(cursor)}:
                self._see(image)
                self._cursor = cursor
            case {"type": "error", "code": code, "message": message}:
                raise LineRefused(f"The push line refused the subscription ({code}): {message}")
            case _:
                pass  # welcome, ping, end, bye and whatever is added later

    def _see(self, data: object) -> None:
        image = ImageStatus.model_validate(data)
        record = str(image.record_id)
        if image.version > self._versions.get(record, -1):
            self._versions[record] = image.version
            self._on_image(image)
