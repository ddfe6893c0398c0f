"""How to reach Postgres."""

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class DatabaseSettings(BaseSettings):
    # a value that is refused is not shown: the URI may hold a password
    model_config = SettingsConfigDict(env_prefix="SCENEWIRE_", extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: str = Field(description="Postgres, as a libpq URI", repr=False)
    database_pool_size: int = Field(default=10, ge=2, description="connections per process")
    database_timeout: float = Field(
        default=5.0,
        gt=0,
        description="seconds to wait for a connection or one statement before Postgres counts as away",
    )

    @field_validator("database_url")
    @classmethod
    def _names_postgres(cls, url: str) -> str:
        if not url.startswith(("postgresql://", "postgres://")):
            raise ValueError("must be a libpq URI, such as postgresql://user:password@host:5432/database")
        return url
