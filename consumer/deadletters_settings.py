"""What the command for dead letters reads from the environment: Postgres, and no key of the provider's."""

from pydantic import Field

from storage.settings import DatabaseSettings
from telemetry.settings import TelemetrySettings


class DeadLettersSettings(DatabaseSettings, TelemetrySettings):
    deadline: float = Field(
        default=86_400.0, gt=0, description="seconds from accept or replay after which a request is ended"
    )
