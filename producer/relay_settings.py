"""What the relay reads from the environment."""

from pydantic import Field

from messaging.settings import KafkaSettings
from storage.settings import DatabaseSettings
from telemetry.settings import TelemetrySettings
from web.settings import HealthSettings


class RelaySettings(DatabaseSettings, KafkaSettings, HealthSettings, TelemetrySettings):
    relay_batch: int = Field(default=500, ge=1, le=5_000, description="most events the relay sends in one step")
    relay_poll: float = Field(
        default=1.0,
        gt=0,
        description="seconds until the relay looks by itself, woken or not, and a standby asks for the lock again",
    )
    relay_backoff: float = Field(
        default=2.0, gt=0, description="most seconds the relay rests after Kafka or Postgres failed it"
    )
    relay_grace: float = Field(default=2.0, ge=0, description="seconds a stopping relay has to finish its step")
    relay_stop_within: float = Field(
        default=8.0, gt=0, description="seconds after which a stopping relay leaves, whatever still hangs"
    )
