"""All sockets of this process: how many each user has, and their end when the process stops."""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from functools import partial

import structlog

from notifier.connection import Connection
from notifier.departures import spread
from notifier.hub import Hub
from notifier.identity import Around
from notifier.outlet import Line, Outlet, Outlets
from notifier.rates import Rate
from notifier.settings import PushSettings
from notifier.snapshots import Snapshots
from schemas.frames import CloseCode
from telemetry import metrics
from web.auth import Caller, Verifier

log = structlog.get_logger()

_RESTARTING = "restarting"


class Connections:
    def __init__(
        self,
        *,
        hub: Hub,
        snapshots: Snapshots,
        verifier: Verifier,
        outlets: Outlets,
        settings: PushSettings,
        clock: Callable[[], float],
    ) -> None:
        self._outlets = outlets
        self._settings = settings
        self._around = Around(
            hub=hub,
            snapshots=snapshots,
            verifier=verifier,
            settings=settings,
            rate=Rate(settings.socket_message_rate, settings.socket_message_burst),
            admit=self._admit,
            subscribed=self._subscribed,
            clock=clock,
            time=asyncio.get_running_loop().time,
        )
        self._open: set[Connection] = set()
        self._of_holder: Counter[Hashable] = Counter()
        self._draining = False
        self._told = metrics.of_process().gauge("sockets")
        #: of all sockets. Counted as they come: to look through ten thousand sockets once a second took 15 ms of it
        self.subscriptions = 0

    def open(self, line: Line) -> Connection:
        """A connection for a line that has just been accepted."""
        connection = Connection(Outlet(line, self._outlets), self._around)
        self._open.add(connection)
        self._told.set(len(self._open))
        if self._draining:
            connection.send_away(CloseCode.RESTARTING, _RESTARTING, self._settings.drain_window)
        return connection

    def closed(self, connection: Connection) -> None:
        connection.end()
        self._open.discard(connection)
        if connection.caller is not None:
            holder = _holder(connection.caller)
            self._of_holder[holder] -= 1
            if not self._of_holder[holder]:
                del self._of_holder[holder]
        self._told.set(len(self._open))

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._open)

    def refuse_new(self) -> None:
        """The process stops: whoever comes from now on is sent away at once."""
        self._draining = True

    def leaving(self) -> list[Callable[[], None]]:
        """How to send each of those away that are open now."""
        return [partial(self._send_away, connection, CloseCode.RESTARTING, _RESTARTING) for connection in self._open]

    async def renew(self) -> None:
        """Events may have been lost: send everybody away, to come back for a snapshot."""
        if not self._open:
            return
        log.warning("sockets_renewed", sockets=len(self._open))
        code, reason = CloseCode.COME_BACK_LATER, "events may be missing: come back for a snapshot"
        leaving = [partial(self._send_away, connection, code, reason) for connection in self._open]
        await spread(leaving, self._settings.drain_window)

    def _send_away(self, connection: Connection, code: CloseCode, reason: str) -> None:
        connection.send_away(code, reason, self._settings.drain_window)

    def _subscribed(self, more: int) -> None:
        self.subscriptions += more

    def _admit(self, caller: Caller) -> bool:
        holder = _holder(caller)
        if self._of_holder[holder] >= self._settings.sockets_per_user:
            return False
        self._of_holder[holder] += 1
        return True


def _holder(caller: Caller) -> Hashable:
    """Whom a socket counts for. Those who watch a shared chapter take none of its owner's."""
    return caller.user_id if caller.chapter_id is None else (caller.user_id, caller.chapter_id)
