"""How to reach Postgres."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DatabaseSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SCENEWIRE_", extra="ignore", frozen=True)

    database_url: str = Field(description="Postgres, as a libpq URI", repr=False)
    database_pool_size: int = Field(default=10, ge=2, description="connections per process")
    database_timeout: float = Field(
        default=5.0,
        gt=0,
        description="seconds to wait for a connection or one statement before Postgres counts as away",
    )
