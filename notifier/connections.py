"""All sockets of this process: how many each user has, and their end when the process stops."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from uuid import UUID

import structlog

from notifier.connection import Connection
from notifier.hub import Hub
from notifier.outlet import Line, Outlet, Stalls
from notifier.settings import PushSettings
from notifier.snapshots import Snapshots
from schemas.frames import CloseCode
from telemetry import metrics
from web.auth import Caller, Verifier

log = structlog.get_logger()

_RESTARTING = "restarting"
_APART = 0.001
_SHORTEST_PAUSE = 0.01


class Connections:
    def __init__(
        self,
        *,
        hub: Hub,
        snapshots: Snapshots,
        verifier: Verifier,
        stalls: Stalls,
        settings: PushSettings,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._hub = hub
        self._snapshots = snapshots
        self._verifier = verifier
        self._stalls = stalls
        self._settings = settings
        self._open: set[Connection] = set()
        self._of_user: Counter[UUID] = Counter()
        self._counted: dict[Connection, UUID] = {}
        self._draining = False

    def open(self, line: Line) -> tuple[Connection, Outlet]:
        """A connection for a line that has just been accepted."""
        outlet = Outlet(line, self._stalls)
        connection = Connection(
            outlet,
            hub=self._hub,
            snapshots=self._snapshots,
            verifier=self._verifier,
            settings=self._settings,
            admit=self._admit,
            clock=self._clock,
        )
        self._open.add(connection)
        metrics.gauge("sockets", len(self._open))
        if self._draining:
            connection.send_away(CloseCode.RESTARTING, _RESTARTING, self._settings.drain_window)
        return connection, outlet

    def closed(self, connection: Connection) -> None:
        connection.end()
        self._open.discard(connection)
        user_id = self._counted.pop(connection, None)
        if user_id is not None:
            self._of_user[user_id] -= 1
            if not self._of_user[user_id]:
                del self._of_user[user_id]
        metrics.gauge("sockets", len(self._open))

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._open)

    @property
    def subscriptions(self) -> int:
        return sum(connection.subscriptions for connection in self._open)

    async def drain(self) -> None:
        """The process stops: send everybody away, and whoever comes from now on."""
        self._draining = True
        await self._send_away(CloseCode.RESTARTING, _RESTARTING)

    async def renew(self) -> None:
        """Events may have been lost: send everybody away, to come back for a snapshot."""
        if not self._open:
            return
        log.warning("sockets_renewed", sockets=len(self._open))
        await self._send_away(CloseCode.COME_BACK_LATER, "events may be missing: come back for a snapshot")

    async def _send_away(self, code: CloseCode, reason: str) -> None:
        """A few quickly, thousands over half of the drain window."""
        waiting = list(self._open)
        pause = min(_APART, self._settings.drain_window / 2 / max(1, len(waiting)))
        owed = 0.0
        for connection in waiting:
            connection.send_away(code, reason, self._settings.drain_window)
            owed += pause
            if owed >= _SHORTEST_PAUSE:
                await asyncio.sleep(owed)
                owed = 0.0

    def _admit(self, connection: Connection, caller: Caller) -> bool:
        if self._of_user[caller.user_id] >= self._settings.sockets_per_user:
            return False
        self._of_user[caller.user_id] += 1
        self._counted[connection] = caller.user_id
        return True
