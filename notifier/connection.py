"""One client of `/ws`, from its first frame to its close (the contract's table of frames and close codes).

Knows neither ASGI nor uvicorn: text comes in by `receive`, frames go out by the outlet.
"""

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from pydantic import ValidationError

from notifier.events import Event
from notifier.frames import PING, PONG, frame_of
from notifier.hub import Hub
from notifier.outlet import Outlet
from notifier.rates import Rate
from notifier.scopes import Key, chapter_key, mine_key, reaches, record_key
from notifier.settings import PushSettings
from notifier.snapshots import Snapshots
from notifier.subscriptions import Subscription, Subscriptions
from schemas.frames import (
    CLIENT_FRAME,
    Auth,
    Bye,
    CloseCode,
    CursorFrame,
    ErrorFrame,
    Ping,
    Pong,
    Subscribe,
    Welcome,
)
from storage.database import Unavailable
from web.auth import LEEWAY, Caller, KeysAway, KeyUnknown, Unauthorized, Verifier

log = structlog.get_logger()

_CURSOR_EVERY = 1.0
_COME_BACK_MS = (500, 3000)
_POSTPONED = 32


@dataclass(frozen=True, slots=True)
class Around:
    """What all connections of a process have in common. `admit` counts a connection for its caller, or refuses it;
    `clock` tells the time that tokens are judged by, `time` the event loop's."""

    hub: Hub
    snapshots: Snapshots
    verifier: Verifier
    settings: PushSettings
    rate: Rate
    admit: Callable[["Connection", Caller], bool]
    clock: Callable[[], float]
    time: Callable[[], float]


class Connection:
    """Of an idle one nothing runs: no task, no timer."""

    __slots__ = (
        "_around", "_authorising", "_deadline", "_ends_at", "_postponed", "_reading", "_subscriptions", "_to_read",
        "_used_until", "caller", "outlet",
    )  # fmt: skip

    def __init__(self, outlet: Outlet, around: Around) -> None:
        self.outlet = outlet
        self._around = around
        self._subscriptions = Subscriptions()
        # one snapshot at a time: a later one never shows less than an earlier one did
        self._reading: asyncio.Task[None] | None = None
        self._to_read: list[tuple[Subscription, str | None]] | None = None
        # the loop's time at which the token lapses, or has to be there; a timer only when that is near
        self._ends_at = math.inf
        self._deadline: asyncio.TimerHandle | None = None
        # what comes while a token's key is looked for, in the order it came
        self._authorising: asyncio.Task[None] | None = None
        self._postponed: list[str] | None = None
        self._used_until = 0.0
        self.caller: Caller | None = None

    def start(self, token: str | None) -> None:
        """The line is open. `token` came with the handshake; without one an `auth` frame is waited for."""
        if token is None:
            self._end_at(self._around.time() + self._around.settings.auth_timeout)
        else:
            self._authorise(token)

    def may_send(self) -> bool:
        """Whether the client may have sent this frame, data or control; it is closed for one too many."""
        if self.outlet.closed:
            return False
        used_until = self._around.rate.spend(self._used_until, self._around.time())
        if used_until is None:
            self._close(CloseCode.TOO_MANY, "too many messages")
            return False
        self._used_until = used_until
        return True

    def receive(self, text: str) -> None:
        """One message of the client."""
        if self._postponed is not None:
            self._postponed.append(text)
            if len(self._postponed) > _POSTPONED:
                self._close(CloseCode.TOO_MANY, "too many messages before an answer to auth")
            return
        try:
            frame = CLIENT_FRAME.validate_json(text)
        except ValidationError:
            if not _is_pong(text):
                self._close(CloseCode.BAD_MESSAGE, "not a frame of scenewire.v1+json")
            return
        if isinstance(frame, Ping):
            self.outlet.put("pong", PONG)
        elif isinstance(frame, Auth):
            self._authorise(frame.token)
        elif self.caller is None:
            self._close(CloseCode.UNAUTHORIZED, "send a token first")
        elif isinstance(frame, Subscribe):
            self._subscribe(frame, self.caller)
        else:
            self._unsubscribe(frame.id)

    def receive_binary(self) -> None:
        self._close(CloseCode.BAD_MESSAGE, "frames are text")

    def refuse(self, code: CloseCode, reason: str) -> None:
        """Close a line that was opened only to say why it will not serve."""
        self._close(code, reason)

    def send_away(self, code: CloseCode, reason: str, within: float) -> None:
        """Say why, with a time to come back that differs from client to client."""
        wait = round(random.uniform(0.1, max(0.2, within)) * 1000)
        self._close(code, reason, last=frame_of(Bye(code=code, retry_after_ms=wait)))

    def ping(self) -> None:
        """It is time to, as it is once an interval."""
        self._arm_when_near()
        self.outlet.put("ping", PING)
        # a quiet subscription keeps a cursor that memory still knows
        for subscription in self._subscriptions.told_before(
            self._around.time() - self._around.settings.memory_seconds / 3
        ):
            self._send_cursor(subscription)

    def end(self) -> None:
        """The line is gone; called once, whoever ended it."""
        self.outlet.gone()
        if self._deadline is not None:
            self._deadline.cancel()
        for task in (self._reading, self._authorising):
            if task is not None:
                task.cancel()
        for key in list(self._subscriptions.keys()):
            self._around.hub.leave(key, self)

    @property
    def subscriptions(self) -> int:
        return len(self._subscriptions)

    def lapses_in(self) -> float:
        """Seconds until the socket is closed for want of a token that is valid."""
        return self._ends_at - self._around.time()

    # a listener of the hub

    def offer(self, event: Event) -> None:
        if self._subscriptions.take(event):
            self._send(event)

    def ended(self, key: Key) -> None:
        for subscription in self._subscriptions.live(key):
            self.outlet.put(("end", subscription.id), subscription.end_frame)

    # who it is

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
            if not self._around.admit(self, caller):
                self._close(CloseCode.TOO_MANY, "too many sockets of this user")
                return
        elif (caller.user_id, caller.chapter_id) != (self.caller.user_id, self.caller.chapter_id):
            self._close(CloseCode.FORBIDDEN, "the token is another user's, or shows something else")
            return
        self.caller = caller
        self._end_at(self._around.time() + max(0.0, caller.expires_at + LEEWAY - self._around.clock()))
        expires_at = datetime.fromtimestamp(min(caller.expires_at, _LAST_SECOND), UTC).isoformat()
        ping_interval_ms = round(self._around.settings.ping_interval * 1000)
        self.outlet.put("welcome", frame_of(Welcome(ping_interval_ms=ping_interval_ms, expires_at=expires_at)))

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

    # what it watches

    def _subscribe(self, frame: Subscribe, caller: Caller) -> None:
        self._unsubscribe(frame.id)
        if len(self._subscriptions) >= self._around.settings.socket_subscriptions:
            self._close(CloseCode.TOO_MANY, "too many subscriptions")
            return
        if frame.chapter_id is not None:
            key = chapter_key(caller.user_id, frame.chapter_id)
        elif frame.record_id is not None:
            key = record_key(caller.user_id, frame.record_id)
        else:
            key = mine_key(caller.user_id)
        if not reaches(caller.chapter_id, key):
            self._refuse(frame.id, "forbidden", "This token shows one chapter, and nothing else.")
            return
        subscription = Subscription(frame.id, key, caller.chapter_id)
        if self._subscriptions.add(subscription):
            self._around.hub.join(key, self)
        if self._to_read is not None:
            self._to_read.append((subscription, frame.cursor))
        else:
            self._to_read = [(subscription, frame.cursor)]
            self._reading = asyncio.get_running_loop().create_task(self._show(self._to_read))

    def _unsubscribe(self, subscription_id: str) -> None:
        key = self._subscriptions.remove(subscription_id)
        if key is not None:
            self._around.hub.leave(key, self)

    async def _show(self, wanted: list[tuple[Subscription, str | None]]) -> None:
        for subscription, cursor in wanted:
            # snapshots may be large: none is made for a client that does not read
            await self.outlet.free()
            await self._read_and_show(subscription, cursor)
        self._to_read = self._reading = None

    async def _read_and_show(self, subscription: Subscription, cursor: str | None) -> None:
        if self.outlet.closed or not self._subscriptions.holds(subscription):
            return
        try:
            snapshot = await self._around.snapshots.take(subscription.key, cursor)
            if not snapshot.whole and not subscription.is_told_by(snapshot.images):
                # nothing of it says that this token shows the record
                snapshot = await self._around.snapshots.take(subscription.key)
        except Unavailable:
            self._come_back("the database is away")
            return
        except Exception:
            log.exception("snapshot_failed", scope=subscription.key[0])
            self._close(CloseCode.COME_BACK_LATER, "something went wrong on our side")
            return
        if self.outlet.closed or not self._subscriptions.holds(subscription):
            return
        if snapshot.whole and subscription.key[0] == "record" and not subscription.is_shown(snapshot.images):
            self._unsubscribe(subscription.id)
            self._refuse(subscription.id, "not_found", "There is no such image of yours.")
            return
        subscription.told_at = self._around.time()
        shown, later = self._subscriptions.settle(subscription, snapshot)
        self.outlet.put(("snapshot", subscription.id), shown)
        for event in later:
            self._send(event)
        if self._around.hub.finished(subscription.key):
            self.outlet.put(("end", subscription.id), subscription.end_frame)

    def _refuse(self, subscription_id: str, code: str, message: str) -> None:
        refusal = ErrorFrame(id=subscription_id, code=code, message=message)
        self.outlet.put(("error", subscription_id), frame_of(refusal))

    # what it gets

    def _send(self, event: Event) -> None:
        self.outlet.put(event.record_id, event.frame)
        if not self._subscriptions.mine:
            return
        assert self.caller is not None
        for subscription in self._subscriptions.live(mine_key(self.caller.user_id)):
            if not subscription.cursor_due:
                subscription.cursor_due = True
                asyncio.get_running_loop().call_later(_CURSOR_EVERY, self._send_cursor, subscription)

    def _send_cursor(self, subscription: Subscription) -> None:
        subscription.cursor_due = False
        if self._subscriptions.holds(subscription):
            subscription.told_at = self._around.time()
            frame = CursorFrame(id=subscription.id, cursor=self._around.snapshots.cursor(subscription.key))
            self.outlet.put(("cursor", subscription.id), frame_of(frame))

    def _come_back(self, reason: str) -> None:
        bye = Bye(code=CloseCode.COME_BACK_LATER, retry_after_ms=random.randint(*_COME_BACK_MS))
        self._close(CloseCode.COME_BACK_LATER, reason, last=frame_of(bye))

    def _close(self, code: CloseCode, reason: str, last: bytes | None = None) -> None:
        self.outlet.close(code, reason, last=last)


_LAST_SECOND = 253_402_300_799.0
"""The end of the year 9999, where datetime ends."""


def _is_pong(text: str) -> bool:
    """Some clients answer a `ping` frame; they need not, and may."""
    try:
        Pong.model_validate_json(text, extra="forbid")
    except ValidationError:
        return False
    return '"pong"' in text
