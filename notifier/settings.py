"""What may be chosen about pushing. All periods are seconds."""

from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from media.settings import MediaSettings
from messaging.settings import KafkaSettings
from storage.settings import DatabaseSettings
from telemetry.settings import TelemetrySettings
from web.settings import HealthSettings, WebSettings, origin_of

_LEAVING = 4.0


class PushSettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="SCENEWIRE_", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    ping_interval: float = Field(
        default=15.0, gt=0, description="seconds between pings to a socket, by protocol and as a frame"
    )
    ping_timeout: float = Field(
        default=8.0,
        gt=0,
        description="seconds a peer may take to answer a protocol ping, or to confirm what a stream has sent it",
    )
    auth_timeout: float = Field(default=10.0, gt=0, description="seconds a socket may stay open without a token")
    stall_timeout: float = Field(
        default=4.0, gt=0, description="seconds a socket's bytes may wait without progress before it is aborted"
    )
    socket_message_bytes: int = Field(
        default=32 * 1024, ge=1024, description="largest message a client may send on a socket"
    )
    socket_message_rate: float = Field(
        default=20.0, gt=0, description="messages a second a client may send on a socket"
    )
    socket_message_burst: int = Field(default=300, ge=1, description="messages a client may send at once on a socket")
    socket_subscriptions: int = Field(default=200, ge=1, description="subscriptions one socket may hold")
    sockets_per_user: int = Field(
        default=10_000,
        ge=1,
        description="sockets one user, or all who watch one shared chapter, may hold open at one notifier",
    )
    long_polls: int = Field(default=5_000, ge=1, description="polls one notifier holds at a time; past it 503")
    share_life: float = Field(default=900.0, ge=1, description="seconds that a share token of a chapter is good for")
    streams: int = Field(
        default=2_000, ge=1, description="streams of server-sent events one notifier holds open; past it 503"
    )
    stream_heartbeat: float = Field(
        default=20.0,
        gt=0,
        description="seconds between two comments on a stream where nothing happens; a reader that is gone without a "
        "word is found within half of it and 1.5 times SCENEWIRE_PING_TIMEOUT (Linux): 22 s",
    )
    memory_events: int = Field(
        default=5_000,
        ge=1,
        description="status events of each partition that a notifier keeps in memory (2 KB each), for clients that "
        "come back",
    )
    memory_seconds: float = Field(
        default=300.0, gt=0, description="seconds that it keeps them, and goes back in the log when it starts"
    )
    replay_events: int = Field(
        default=5_000,
        ge=0,
        description="status events that may lie between a client's cursor and now to be read from Kafka again; "
        "past it, a snapshot",
    )
    replay_timeout: float = Field(
        default=2.0, gt=0, description="seconds for such a reading, shared by all who wait; past it, a snapshot"
    )
    snapshots_at_once: int = Field(
        default=4, ge=1, description="scopes that a notifier reads from Postgres at a time, beside polls of one record"
    )
    snapshots_in_line: int = Field(
        default=5_000, ge=1, description="scopes that may stand in line for it; past it 4503, or 503"
    )
    thumbnail_pixels: int = Field(
        default=40_000_000, ge=1_000_000, description="largest picture, in pixels, that a thumbnail is made of"
    )
    thumbnail_threads: int = Field(
        default=2, ge=1, description="thumbnails one notifier makes at a time; each opens a whole picture"
    )
    queue_depth: int = Field(
        default=1_000, ge=1, description="how many of those waiting in a lane are told their position in line"
    )
    drain_window: float = Field(
        default=2.0,
        ge=0,
        description="seconds over which a notifier that stops sends its clients away, one after another, and within "
        "which each is told to come back",
    )
    stop_timeout: float = Field(default=8.0, gt=0, description="seconds the notifier may take to stop")
    studio_chapter_id: str | None = Field(default=None, description="the chapter that the studio page opens with")
    studio_token: SecretStr | None = Field(
        default=None,
        description="given to whoever opens the studio page, which otherwise asks for one: for one machine only",
    )
    studio_simulator_url: str | None = Field(
        default=None,
        description="how browsers reach the simulator of ModelsLab; set, the studio has a panel for its modes "
        "(`#simulator`)",
    )

    @model_validator(mode="after")
    def _drained_in_time(self) -> Self:
        # clients leave, requests end, Kafka and Postgres are left
        if self.stop_timeout < 2 * self.drain_window + _LEAVING:
            raise ValueError(
                f"SCENEWIRE_STOP_TIMEOUT must be at least twice SCENEWIRE_DRAIN_WINDOW and {_LEAVING:g} s more: a "
                "notifier that is ended sooner drops its clients all at once"
            )
        return self

    @field_validator("studio_simulator_url")
    @classmethod
    def _of_a_host(cls, url: str | None) -> str | None:
        if url is not None:
            origin_of(url)
        return url and url.rstrip("/")


class Settings(
    PushSettings, DatabaseSettings, KafkaSettings, MediaSettings, WebSettings, HealthSettings, TelemetrySettings
):
    """All that the notifier reads from its environment."""

    model_config = SettingsConfigDict(
        env_prefix="SCENEWIRE_", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )
