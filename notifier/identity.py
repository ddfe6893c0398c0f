"""Who is at the other end of a socket: its token, checked, and until when it lasts."""

import asyncio
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from notifier.frames import frame_of, welcome_frame
from notifier.hub import Hub
from notifier.outlet import Outlet
from notifier.rates import Rate
from notifier.settings import PushSettings
from notifier.snapshots import Snapshots
from schemas.frames import Bye, CloseCode
from web.auth import LEEWAY, Caller, KeysAway, KeyUnknown, Unauthorized, Verifier

_COME_BACK_MS = (500, 3000)
_LAST_SECOND = 253_402_300_799.0
"""The end of the year 9999, where datetime ends."""


@dataclass(frozen=True, slots=True)
class Around:
    """What all connections of a process have in common. `admit` counts a connection for its caller, or refuses it;
    `subscribed` is told how many subscriptions came, or went (below 0); `clock` tells the time that tokens are judged
    by, `time` the event loop's."""

    hub: Hub
    snapshots: Snapshots
    verifier: Verifier
    settings: PushSettings
    rate: Rate
    admit: Callable[[Caller], bool]
    subscribed: Callable[[int], None]
    clock: Callable[[], float]
    time: Callable[[], float]


class Identified(ABC):
    """A connection, as far as its token goes."""

    __slots__ = ("_around", "_authorising", "_deadline", "_ends_at", "_postponed", "caller", "outlet")

    def __init__(self, outlet: Outlet, around: Around) -> None:
        self.outlet = outlet
        self._around = around
        # the loop's time at which the token lapses, or has to be there; a timer only when that is near
        self._ends_at = math.inf
        self._deadline: asyncio.TimerHandle | None = None
        # what comes while a token's key is looked for, in the order it came
        self._authorising: asyncio.Task[None] | None = None
        self._postponed: list[str] | None = None
        self.caller: Caller | None = None

    def start(self, token: str | None) -> None:
        """The line is open. `token` came with the handshake; without one an `auth` frame is waited for."""
        if token is None:
            self._end_at(self._around.time() + self._around.settings.auth_timeout)
        else:
            self._authorise(token)

    @abstractmethod
    def receive(self, text: str) -> None:
        """One message of the client."""

    def lapses_in(self) -> float:
        """Seconds until the socket is closed for want of a token that is valid."""
        return self._ends_at - self._around.time()

    def _authorise(self, token: str) -> None:
        try:
            caller = self._around.verifier.verify(token)
        except KeyUnknown:
            self._postponed = []
            self._authorising = asyncio.get_running_loop().create_task(self._authorise_later(token))
        except (Unauthorized, KeysAway) as refusal:
            self._turn_away(refusal)
        else:
            self._accept(caller)

    async def _authorise_later(self, token: str) -> None:
        """The token's key may have been published since the keys were read."""
        try:
            caller = await self._around.verifier.verified(token)
        except (Unauthorized, KeysAway) as refusal:
            self._turn_away(refusal)
            return
        postponed, self._postponed, self._authorising = self._postponed or [], None, None
        self._accept(caller)
        for text in postponed:
            if not self.outlet.closed:
                self.receive(text)

    def _turn_away(self, refusal: Unauthorized | KeysAway) -> None:
        if isinstance(refusal, KeysAway):
            self._come_back("the issuer's keys are away")
        else:
            self._close(CloseCode.UNAUTHORIZED, refusal.code)

    def _accept(self, caller: Caller) -> None:
        if self.caller is None:
            if not self._around.admit(caller):
                self._close(CloseCode.TOO_MANY, "too many sockets of this user")
                return
        elif (caller.user_id, caller.chapter_id) != (self.caller.user_id, self.caller.chapter_id):
            self._close(CloseCode.FORBIDDEN, "the token is another user's, or shows something else")
            return
        self.caller = caller
        self._end_at(self._around.time() + max(0.0, caller.expires_at + LEEWAY - self._around.clock()))
        expires_at = datetime.fromtimestamp(min(caller.expires_at, _LAST_SECOND), UTC).isoformat()
        ping_interval_ms = round(self._around.settings.ping_interval * 1000)
        self.outlet.put("welcome", welcome_frame(ping_interval_ms, expires_at))

    def _end_at(self, moment: float) -> None:
        """When `_lapse` is due. While that is far, the next ping looks again: a timer for hours would be kept for each
        connection, and hardly ever fire."""
        self._ends_at = moment
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._arm_when_near()

    def _arm_when_near(self) -> None:
        near = self._ends_at - self._around.time() <= 2 * self._around.settings.ping_interval
        if near and self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_at(self._ends_at, self._lapse)

    def _lapse(self) -> None:
        if self.caller is None:
            self._close(CloseCode.AUTH_TIMEOUT, "no token in time")
        else:
            self._close(CloseCode.UNAUTHORIZED, "token_expired")

    def _forget(self) -> None:
        """Nobody is there any more."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._authorising is not None:
            self._authorising.cancel()

    def send_away(self, code: CloseCode, reason: str, within: float) -> None:
        """Say why, with a time to come back that differs from client to client."""
        wait = round(random.uniform(0.1, max(0.2, within)) * 1000)
        self._close(code, reason, last=frame_of(Bye(code=code, retry_after_ms=wait)))

    def _come_back(self, reason: str) -> None:
        bye = Bye(code=CloseCode.COME_BACK_LATER, retry_after_ms=random.randint(*_COME_BACK_MS))
        self._close(CloseCode.COME_BACK_LATER, reason, last=frame_of(bye))

    def _close(self, code: CloseCode, reason: str, last: bytes | None = None) -> None:
        self.outlet.close(code, reason, last=last)
