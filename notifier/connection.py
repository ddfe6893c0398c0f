"""One client of `/ws`, from its first frame to its close (the contract's table of frames and close codes).

Knows neither ASGI nor uvicorn: text comes in by `receive`, frames go out by the outlet.
"""

import asyncio

import structlog
from pydantic import ValidationError

from notifier.events import Event
from notifier.frames import PING, PONG, frame_of
from notifier.identity import Around, Identified
from notifier.outlet import Outlet
from notifier.scopes import Key, chapter_key, mine_key, reaches, record_key
from notifier.snapshots import Snapshot
from notifier.subscriptions import Subscription, Subscriptions
from schemas.frames import CLIENT_FRAME, Auth, CloseCode, CursorFrame, ErrorFrame, Ping, Pong, Subscribe
from storage.database import Unavailable
from web.auth import Caller

log = structlog.get_logger()

_CURSOR_EVERY = 1.0
_POSTPONED = 32


class Connection(Identified):
    """Of an idle one nothing runs: no task, no timer."""

    __slots__ = ("_reading", "_subscriptions", "_to_read", "_used_until")

    def __init__(self, outlet: Outlet, around: Around) -> None:
        super().__init__(outlet, around)
        self._subscriptions = Subscriptions()
        # one snapshot at a time: a later one never shows less than an earlier one did
        self._reading: asyncio.Task[None] | None = None
        self._to_read: list[tuple[Subscription, str | None]] | None = None
        self._used_until = 0.0

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
        self._forget()
        if self._reading is not None:
            self._reading.cancel()
        self._around.subscribed(-len(self._subscriptions))
        for key in list(self._subscriptions.keys()):
            self._around.hub.leave(key, self)

    # a listener of the hub

    def offer(self, event: Event) -> None:
        if self._subscriptions.take(event):
            self._send(event)

    def ended(self, key: Key) -> None:
        for subscription in self._subscriptions.live(key):
            self.outlet.put(("end", subscription.id), subscription.end_frame)

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
        self._around.subscribed(1)
        if self._to_read is None and frame.cursor is not None and not self.outlet.paused:
            # when thousands come back at once, a task for each would be half of what it costs
            missed = self._around.snapshots.at_once(key, frame.cursor)
            if missed is not None and subscription.is_told_by(missed.images):
                self._present(subscription, missed)
                return
        if self._to_read is not None:
            self._to_read.append((subscription, frame.cursor))
        else:
            self._to_read = [(subscription, frame.cursor)]
            self._reading = asyncio.get_running_loop().create_task(self._show(self._to_read))

    def _unsubscribe(self, subscription_id: str) -> None:
        before = len(self._subscriptions)
        key = self._subscriptions.remove(subscription_id)
        self._around.subscribed(len(self._subscriptions) - before)
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
        self._present(subscription, snapshot)

    def _present(self, subscription: Subscription, snapshot: Snapshot) -> None:
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
        self.outlet.put(event.record, event.frame)
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


def _is_pong(text: str) -> bool:
    """Some clients answer a `ping` frame; they need not, and may."""
    try:
        Pong.model_validate_json(text, extra="forbid")
    except ValidationError:
        return False
    return '"pong"' in text
