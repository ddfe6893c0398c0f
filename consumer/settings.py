"""What a consumer reads from the environment."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from media.settings import MediaSettings
from messaging.settings import KafkaSettings
from storage.settings import DatabaseSettings
from telemetry.settings import TelemetrySettings
from web.settings import HealthSettings, WebSettings, origin_of

_RATIOS: tuple[tuple[str, str, float, str], ...] = (
    ("worker_life", "worker_beat", 2.0, "one late sign of life must not cost a worker its claims"),
    ("worker_life", "mark_life", 1.25, "a mark older than its worker's life may be another's"),
    ("uncertain_after", "mark_life", 1.0, "nothing may go out under a mark that was called uncertain already"),
    ("storing_retry_longest", "storing_retry", 1.0, "the pauses between two tries to store only grow"),
    ("deadline", "run_deadline", 1.0, "the first dispatch must not put off the end that was promised at accept"),
    ("deadline", "bulk_deadline", 1.0, "the first dispatch must not put off the end that was promised at accept"),
)
"""This one, that one, how many times that one it must be at the least, and why: what the guarantees rest on."""

_SAVINGS: tuple[tuple[str, str, str], ...] = (
    ("drain", "submit_timeout", "a stop leaves open submits uncertain: paid for perhaps, and sent again"),
    ("run_deadline", "submit_timeout", "a request may end before its submit is answered: paid for and not used"),
)
"""This one should not be below that one, or else."""


class ConsumerSettings(DatabaseSettings, KafkaSettings, MediaSettings, WebSettings, HealthSettings, TelemetrySettings):
    modelslab_api_key: SecretStr = Field(
        validation_alias=AliasChoices("MODELSLAB_API_KEY", "modelslab_api_key"),
        description="the provider account's key",
    )
    modelslab_base_url: str = Field(
        default="https://modelslab.com",
        validation_alias=AliasChoices("MODELSLAB_BASE_URL", "modelslab_base_url"),
        description="scheme and host of the provider; a trailing /api/v6 or /api/v7 is cut with a warning",
    )
    models_file: str | None = Field(
        default=None, description="models and chains in TOML instead of the built-in consumer/models.toml"
    )
    provider_slots: int = Field(
        default=5,
        ge=1,
        le=10_000,
        description="concurrent requests the provider's account allows (5, 10 or 15 by plan)",
    )
    uncertain: Literal["retry", "fail"] = Field(
        default="retry", description="what becomes of a request whose attempt was sent and not answered"
    )
    uncertain_grace: float = Field(
        default=10.0, ge=0, description="seconds in which the provider's webhook may still name an uncertain attempt"
    )
    public_url: str | None = Field(
        default=None,
        description="where the provider can reach the producer, such as https://api.example.com: its webhooks go to "
        "`/hooks` below it; unset: none are asked for",
    )
    submit_timeout: float = Field(
        default=120.0, gt=0, description="seconds to wait for the provider's answer to a submit"
    )
    fetch_timeout: float = Field(default=20.0, gt=0, description="seconds to wait for the provider's answer to a fetch")
    poll_interval: float = Field(
        default=5.0, gt=0, description="seconds between two looks at a job, jittered; the first waits for the eta"
    )
    poll_first_longest: float = Field(default=30.0, gt=0, description="most seconds before the first look at a job")
    poll_late: float = Field(
        default=30.0, gt=0, description="seconds between two looks at a job that is past its model's longest time"
    )
    progress_interval: float = Field(default=2.0, gt=0, description="least seconds between two progress events")
    worker_beat: float = Field(default=1.0, gt=0, description="seconds between two signs of life of a worker")
    worker_life: float = Field(
        default=3.0, gt=0, description="seconds after its last sign of life a worker counts as dead"
    )
    mark_life: float = Field(
        default=2.0,
        gt=0,
        description="seconds within which a submit must go out after it was marked as sending; later it is not sent",
    )
    uncertain_after: float = Field(
        default=20.0, ge=0, description="seconds after a worker went stale its unanswered submits become uncertain"
    )
    sweep: float = Field(
        default=1.0, gt=0, description="seconds between two looks for takeovers, deadlines, lost events"
    )
    measure: float = Field(default=5.0, gt=0, description="seconds between two looks at what the gauges show")
    admit_after: float = Field(
        default=30.0, gt=0, description="seconds a record may be pending without its event before it is admitted anyway"
    )
    retry_delays: Annotated[tuple[float, ...], NoDecode] = Field(
        default=(5.0, 10.0, 20.0),
        description="seconds before each counted retry, separated by commas; as many as listed",
    )
    rate_limit_default: float = Field(
        default=30.0, gt=0, description="seconds to defer after a rate limit that names no time"
    )
    breaker_denials: int = Field(
        default=3, ge=1, description="refusals of key, account or model in a row after which a breaker opens"
    )
    breaker_outages: int = Field(
        default=10, ge=1, description="lost or unanswered calls in a row after which the provider's breaker opens"
    )
    breaker_span: float = Field(
        default=10.0, ge=0, description="seconds that such calls must have failed for before it opens"
    )
    breaker_records: int = Field(
        default=5, ge=1, description="records that must have met them; all that are open where there are fewer"
    )
    probe: float = Field(default=15.0, gt=0, description="seconds between two probes while a breaker is open")
    deadline: float = Field(
        default=86_400.0, gt=0, description="seconds from accept or replay after which a request is ended"
    )
    run_deadline: float = Field(default=900.0, gt=0, description="seconds from the first dispatch in which it must end")
    bulk_deadline: float = Field(default=86_400.0, gt=0, description="the same for the bulk lane")
    storing_retry: float = Field(default=1.0, gt=0, description="first pause in seconds between two tries to store")
    storing_retry_longest: float = Field(
        default=30.0, gt=0, description="longest pause in seconds between two tries to store"
    )
    late_storing: float = Field(
        default=86_400.0,
        gt=0,
        description="seconds from its making in which a picture is still stored though its request has ended, for a "
        "replay; after that only its addresses are kept",
    )
    download_timeout: float = Field(default=60.0, gt=0, description="seconds for one download of a picture")
    download_bytes: int = Field(
        default=25 * 1024 * 1024, ge=1024, description="largest picture that is taken from the provider, in bytes"
    )
    download_fresh_for: float = Field(
        default=10.0,
        ge=0,
        description="seconds in which a picture that is not found, or breaks off, may only be too fresh: it is asked "
        "for again before that counts as a failure",
    )
    download_fresh_retry: float = Field(
        default=0.5, gt=0, description="first pause in seconds between two such tries; each is longer by half, up to 2"
    )
    tidy: float = Field(
        default=3600.0, gt=0, description="seconds between two looks for what dead processes left in the picture store"
    )
    tidy_after: float = Field(
        default=3600.0,
        ge=60,
        description="seconds after which a half-stored picture is removed; well above the time of one operation",
    )
    drain: float = Field(
        default=150.0, ge=0, description="seconds a stopping consumer gives open submits; above the submit timeout"
    )
    consumer_stop_within: float = Field(
        default=15.0, gt=0, description="seconds beyond the drain after which a stopping consumer leaves regardless"
    )

    @field_validator("public_url")
    @classmethod
    def _reachable(cls, url: str | None) -> str | None:
        if url is None:
            return None
        origin_of(url)
        parts = urlsplit(url.strip())
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("must be a scheme and a host, perhaps a path: no user, password, query or fragment")
        return url.strip().rstrip("/")

    @field_validator("retry_delays", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("retry_delays")
    @classmethod
    def _rising(cls, delays: tuple[float, ...]) -> tuple[float, ...]:
        if any(delay <= 0 for delay in delays) or list(delays) != sorted(delays):
            raise ValueError("must be above 0 and must not fall from one retry to the next")
        return delays

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        broken = [
            f"{self._shown(longer)} must be at least {times:g} x {self._shown(shorter)}: {why}"
            for longer, shorter, times, why in _RATIOS
            if getattr(self, longer) < times * getattr(self, shorter)
        ]
        if broken:
            raise ValueError("\n".join(broken))
        return self

    @property
    def costs(self) -> list[str]:
        """What these settings may cost, one sentence each: allowed, but worth a line in the log."""
        return [
            f"{self._shown(short)} is below {self._shown(long)}: {consequence}"
            for short, long, consequence in _SAVINGS
            if getattr(self, short) < getattr(self, long)
        ]

    def _shown(self, name: str) -> str:
        return f"SCENEWIRE_{name.upper()} ({getattr(self, name):g})"

    @property
    def webhook_grace(self) -> float:
        """Seconds that an unanswered submit waits for its webhook before its record ends for that."""
        return self.uncertain_grace if self.uncertain == "fail" and self.public_url is not None else 0.0
