"""One client of `/ws`, from its first frame to its close (the contract's table of frames and close codes).

Knows neither ASGI nor uvicorn: text comes in by `receive`, frames go out by the outlet.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import structlog
from pydantic import ValidationError

from notifier.events import Event
from notifier.frames import PING, PONG, frame_of
from notifier.hub import Hub
from notifier.outlet import Outlet
from notifier.rates import Allowance
from notifier.scopes import Key, chapter_key, mine_key, record_key
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
from telemetry import metrics
from web.auth import LEEWAY, Caller, KeysAway, KeyUnknown, Unauthorized, Verifier

log = structlog.get_logger()

_CURSOR_EVERY = 1.0
_COME_BACK_MS = (500, 3000)
_POSTPONED = 32


class Connection:
    def __init__(
        self,
        outlet: Outlet,
        *,
        hub: Hub,
        snapshots: Snapshots,
        verifier: Verifier,
        settings: PushSettings,
        admit: Callable[["Connection", Caller], bool],
        clock: Callable[[], float],
    ) -> None:
        self._outlet = outlet
        self._hub = hub
        self._snapshots = snapshots
        self._verifier = verifier
        self._settings = settings
        self._admit = admit
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._subscriptions = Subscriptions()
        self._reading: set[asyncio.Task[None]] = set()
        # one snapshot at a time: a later one never shows less than an earlier one did
        self._one_read = asyncio.Lock()
        self._allowance = Allowance(settings.socket_message_rate, settings.socket_message_burst, self._loop.time)
        self._deadline: asyncio.TimerHandle | None = None
        self._next_ping: asyncio.TimerHandle | None = None
        # what comes while a token's key is looked for, in the order it came
        self._postponed: list[str] | None = None
        self.caller: Caller | None = None

    def start(self, token: str | None) -> None:
        """The line is open. `token` came with the handshake; without one an `auth` frame is waited for."""
        self._next_ping = self._loop.call_later(self._settings.ping_interval, self._ping)
        if token is None:
            self._deadline = self._loop.call_later(
                self._settings.auth_timeout, self._close, CloseCode.AUTH_TIMEOUT, "no token in time"
            )
        else:
            self._authorise(token)

    def receive(self, text: str) -> None:
        """One message of the client."""
        if self._outlet.closed:
            return
        if not self._allowance.spend():
            self._close(CloseCode.TOO_MANY, "too many messages")
        else:
            self._take(text)

    def _take(self, text: str) -> None:
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
            self._outlet.put("pong", PONG)
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

    def end(self) -> None:
        """The line is gone; called once, whoever ended it."""
        self._outlet.gone()
        for timer in (self._deadline, self._next_ping):
            if timer is not None:
                timer.cancel()
        for task in self._reading:
            task.cancel()
        for key in list(self._subscriptions.keys()):
            self._hub.leave(key, self)

    @property
    def subscriptions(self) -> int:
        return len(self._subscriptions)

    def lapses_in(self) -> float:
        """Seconds until the socket is closed for want of a token that is valid."""
        return self._deadline.when() - self._loop.time() if self._deadline is not None else 0.0

    # a listener of the hub

    def offer(self, event: Event) -> None:
        if not self._subscriptions.take(event):
            return
        self._send(event)

    def ended(self, key: Key) -> None:
        for subscription in self._subscriptions.live(key):
            self._outlet.put(("end", subscription.id), subscription.end_frame)

    # who it is

    def _authorise(self, token: str) -> None:
        try:
            caller = self._verifier.verify(token)
        except KeyUnknown:
            self._postponed = []
            self._start(self._authorise_later(token))
        except (Unauthorized, KeysAway) as refusal:
            self._turn_away(refusal)
        else:
            self._accept(caller)

    async def _authorise_later(self, token: str) -> None:
        """The token's key may have been published since the keys were read."""
        try:
            caller = await self._verifier.verified(token)
        except (Unauthorized, KeysAway) as refusal:
            self._turn_away(refusal)
            return
        postponed, self._postponed = self._postponed or [], None
        self._accept(caller)
        for text in postponed:
            if not self._outlet.closed:
                self._take(text)

    def _turn_away(self, refusal: Unauthorized | KeysAway) -> None:
        if isinstance(refusal, KeysAway):
            self._come_back("the issuer's keys are away")
        else:
            self._close(CloseCode.UNAUTHORIZED, refusal.code)

    def _accept(self, caller: Caller) -> None:
        if self.caller is None:
            if not self._admit(self, caller):
                self._close(CloseCode.TOO_MANY, "too many sockets of this user")
                return
        elif caller.user_id != self.caller.user_id:
            self._close(CloseCode.FORBIDDEN, "the token is another user's")
            return
        self.caller = caller
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(
            max(0.0, caller.expires_at + LEEWAY - self._clock()), self._close, CloseCode.UNAUTHORIZED, "token_expired"
        )
        expires_at = datetime.fromtimestamp(min(caller.expires_at, _LAST_SECOND), UTC).isoformat()
        ping_interval_ms = round(self._settings.ping_interval * 1000)
        self._outlet.put("welcome", frame_of(Welcome(ping_interval_ms=ping_interval_ms, expires_at=expires_at)))

    # what it watches

    def _subscribe(self, frame: Subscribe, caller: Caller) -> None:
        self._unsubscribe(frame.id)
        if len(self._subscriptions) >= self._settings.socket_subscriptions:
            self._close(CloseCode.TOO_MANY, "too many subscriptions")
            return
        if frame.chapter_id is not None:
            key = chapter_key(caller.user_id, frame.chapter_id)
        elif frame.record_id is not None:
            key = record_key(caller.user_id, frame.record_id)
        else:
            key = mine_key(caller.user_id)
        subscription = Subscription(frame.id, key)
        if self._subscriptions.add(subscription):
            self._hub.join(key, self)
        self._start(self._show(subscription, "snapshot" if frame.cursor else None))

    def _unsubscribe(self, subscription_id: str) -> None:
        key = self._subscriptions.remove(subscription_id)
        if key is not None:
            self._hub.leave(key, self)

    async def _show(self, subscription: Subscription, resumed: str | None) -> None:
        async with self._one_read:
            await self._read_and_show(subscription, resumed)

    async def _read_and_show(self, subscription: Subscription, resumed: str | None) -> None:
        if self._outlet.closed or not self._subscriptions.holds(subscription):
            return
        try:
            snapshot = await self._snapshots.take(subscription.key)
        except Unavailable:
            self._come_back("the database is away")
            return
        except Exception:
            log.exception("snapshot_failed", scope=subscription.key[0])
            self._close(CloseCode.COME_BACK_LATER, "something went wrong on our side")
            return
        if self._outlet.closed or not self._subscriptions.holds(subscription):
            return
        if subscription.key[0] == "record" and not snapshot.images and not subscription.held:
            self._unsubscribe(subscription.id)
            unknown = ErrorFrame(id=subscription.id, code="not_found", message="There is no such image of yours.")
            self._outlet.put(("error", subscription.id), frame_of(unknown))
            return
        shown, later = self._subscriptions.settle(subscription, snapshot, resumed)
        metrics.count("snapshots", resumed=resumed or "none")
        self._outlet.put(("snapshot", subscription.id), shown)
        for event in later:
            self._send(event)
        if self._hub.finished(subscription.key):
            self._outlet.put(("end", subscription.id), subscription.end_frame)

    # what it gets

    def _send(self, event: Event) -> None:
        self._outlet.put(event.record_id, event.frame)
        assert self.caller is not None
        for subscription in self._subscriptions.live(mine_key(self.caller.user_id)):
            if not subscription.cursor_due:
                subscription.cursor_due = True
                self._loop.call_later(_CURSOR_EVERY, self._send_cursor, subscription)

    def _send_cursor(self, subscription: Subscription) -> None:
        subscription.cursor_due = False
        if self._subscriptions.holds(subscription):
            frame = CursorFrame(id=subscription.id, cursor=self._snapshots.cursor())
            self._outlet.put(("cursor", subscription.id), frame_of(frame))

    def _ping(self) -> None:
        self._next_ping = self._loop.call_later(self._settings.ping_interval, self._ping)
        self._outlet.put("ping", PING)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    def _come_back(self, reason: str) -> None:
        bye = Bye(code=CloseCode.COME_BACK_LATER, retry_after_ms=random.randint(*_COME_BACK_MS))
        self._close(CloseCode.COME_BACK_LATER, reason, last=frame_of(bye))

    def _close(self, code: CloseCode, reason: str, last: bytes | None = None) -> None:
        self._outlet.close(code, reason, last=last)


_LAST_SECOND = 253_402_300_799.0
"""The end of the year 9999, where datetime ends."""


def _is_pong(text: str) -> bool:
    """Some clients answer a `ping` frame; they need not, and may."""
    try:
        Pong.model_validate_json(text, extra="forbid")
    except ValidationError:
        return False
    return '"pong"' in text
