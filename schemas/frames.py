"""Frames of `/ws`, subprotocol `scenewire.v1+json`: one JSON object each, with `type`."""

from enum import IntEnum
from typing import Annotated, Literal, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from schemas.statuses import ImageStatus

SUBPROTOCOL = "scenewire.v1+json"
BEARER_SUBPROTOCOL_PREFIX = "base64url.bearer.scenewire."


class CloseCode(IntEnum):
    """44xx: do not retry unchanged (4401 once, with a new token). 45xx and 1012: retry with backoff.

    What breaks RFC 6455 itself, or is too big for it, is closed with that one's own codes.
    """

    RESTARTING = 1012
    BAD_MESSAGE = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    AUTH_TIMEOUT = 4408
    TOO_MANY = 4429
    COME_BACK_LATER = 4503
    TOO_SLOW = 4508


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


SubscriptionId = Annotated[str, Field(min_length=1, max_length=128)]


class Auth(_Sent):
    type: Literal["auth"]
    token: str = Field(repr=False)


class Subscribe(_Sent):
    """Exactly one scope: a chapter, a record, or all that is mine."""

    type: Literal["subscribe"]
    id: SubscriptionId
    chapter_id: UUID | None = None
    record_id: UUID | None = None
    mine: Literal[True] | None = None
    # of any length: one that is too long is of no use, as a forged one is, and no bad message
    cursor: str | None = None

    @model_validator(mode="after")
    def _one_scope(self) -> "Subscribe":
        if sum(scope is not None for scope in (self.chapter_id, self.record_id, self.mine)) != 1:
            raise ValueError("name exactly one of chapter_id, record_id and mine")
        return self


class Unsubscribe(_Sent):
    type: Literal["unsubscribe"]
    id: SubscriptionId


class Ping(_Sent):
    type: Literal["ping"] = "ping"


ClientFrame = Annotated[Auth | Subscribe | Unsubscribe | Ping, Field(discriminator="type")]
CLIENT_FRAME: TypeAdapter[Auth | Subscribe | Unsubscribe | Ping] = TypeAdapter(ClientFrame)


class Welcome(BaseModel):
    type: Literal["welcome"] = "welcome"
    ping_interval_ms: int
    expires_at: str


class Snapshot(BaseModel):
    """All of the scope; with a usable cursor only what changed since (`resumed` says from where)."""

    type: Literal["snapshot"] = "snapshot"
    id: str
    images: list[ImageStatus]
    cursor: str
    resumed: Literal["memory", "log", "snapshot"] | None


class StatusFrame(BaseModel):
    type: Literal["status"] = "status"
    image: ImageStatus
    cursor: str


class CursorFrame(BaseModel):
    type: Literal["cursor"] = "cursor"
    id: str
    cursor: str


class End(BaseModel):
    """A hint: all of the scope's latest images are terminal. The subscription stays."""

    type: Literal["end"] = "end"
    id: str


class ErrorFrame(BaseModel):
    type: Literal["error"] = "error"
    id: str
    code: str
    message: str


class Pong(BaseModel):
    type: Literal["pong"] = "pong"


class Bye(BaseModel):
    type: Literal["bye"] = "bye"
    code: int
    retry_after_ms: int


ServerFrame = Annotated[
    Welcome | Snapshot | StatusFrame | CursorFrame | End | ErrorFrame | Ping | Pong | Bye, Field(discriminator="type")
]

CLIENT_FRAMES: tuple[type[BaseModel], ...] = get_args(get_args(ClientFrame)[0])
SERVER_FRAMES: tuple[type[BaseModel], ...] = get_args(get_args(ServerFrame)[0])
"""The members of the two unions, for whoever writes them down one by one."""
