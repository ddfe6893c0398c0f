"""What this room is told from outside."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class MediaSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SCENEWIRE_", extra="ignore", frozen=True)

    media_url: str = Field(
        description="where pictures are stored: file:///an/absolute/folder, s3://bucket/prefix, gs://... or az://...; "
        "credentials and endpoint come from the store's own variables (AWS_ACCESS_KEY_ID, AWS_ENDPOINT, ...) and must "
        "allow to read, write, delete and list"
    )
    media_timeout: float = Field(default=30.0, gt=0, description="seconds for one operation on the picture store")
