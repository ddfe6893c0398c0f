"""What the simulator is started with; every field is a command-line option of `python -m local.modelslab` too."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

ProfileName = Literal["calm", "busy", "bad-day", "instant"]


class SimulatorSettings(BaseSettings):
    """The simulator's settings. Periods are seconds."""

    model_config = SettingsConfigDict(env_prefix="SCENEWIRE_SIMULATOR_", extra="ignore", frozen=True)

    key: SecretStr | None = Field(
        default=None, description="The one key that is valid; without it any key that is not empty."
    )
    slots: int = Field(
        default=5, ge=1, description="Requests an account may have in flight (ModelsLab: 5, 10 or 15 by plan)."
    )
    profile: ProfileName = Field(default="calm", description="How the provider behaves until a script says otherwise.")
    seed: int = Field(default=7, description="Seed of every draw: probabilities, latencies, durations.")
    retry_after: float = Field(default=30, ge=0, description="The retry_after of a 429, in seconds.")
    public_url: str | None = Field(
        default=None, description="Its own address in answers; default: the Host a caller used."
    )
    prerender: int = Field(
        default=0, ge=0, description="Pictures drawn before start; above 0 every job gets one of them."
    )
    picture_cache_mb: int = Field(default=128, ge=1, description="Memory for drawn pictures, in megabytes.")
    journal: str | None = Field(
        default=None, description="A file in which jobs outlive a restart; default: they do not."
    )
    allowed_origins: str | None = Field(
        default=None,
        description="Origins, separated by commas, whose pages may read and write its script: the studio's.",
    )
