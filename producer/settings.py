"""What the accepting process may be told."""

from pydantic import Field

from storage.settings import DatabaseSettings
from telemetry.settings import TelemetrySettings
from web.settings import WebSettings


class ProducerSettings(DatabaseSettings, WebSettings, TelemetrySettings):
    accept_timeout: float = Field(
        default=5.0, gt=0, description="seconds after which a POST that Postgres did not answer is answered 503"
    )
    retry_after: int = Field(default=2, ge=1, description="seconds that a 503 tells callers to wait (`Retry-After`)")
    deadline: float = Field(
        default=24 * 60 * 60.0, gt=0, description="seconds from accept or replay after which a request is ended"
    )
    estimated_time: int = Field(
        default=30, ge=0, description="seconds that a 202 estimates for one picture (`estimated_time_seconds`)"
    )
    producer_drain: float = Field(default=5.0, ge=0, description="seconds that running POSTs get at a stop")
    producer_stop_within: float = Field(
        default=10.0, gt=0, description="seconds after which a stopping producer leaves, whatever still hangs"
    )
