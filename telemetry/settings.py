"""What may be chosen about logs, and how every process reads its settings."""

import sys
from typing import Literal, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class TelemetrySettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="SCENEWIRE_", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least severe event that is logged"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`json` is one line per event; `auto` is `console` on a terminal and else `json`"
    )


def secrets_of(settings: BaseSettings) -> list[str]:
    """What must never be shown: every SecretStr, whole and by its parts where it is a list, and passwords in URLs."""
    found: list[str] = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            secret = value.get_secret_value()
            found += [secret, *(part.strip() for part in secret.split(","))]
        elif isinstance(value, str) and "://" in value:
            parts = urlsplit(value)
            # as it stands there, and as it is meant
            found += [parts.password or "", unquote(parts.password or ""), *parse_qs(parts.query).get("password", [])]
    return sorted({secret for secret in found if secret})


Settings = TypeVar("Settings", bound=BaseSettings)


def load(settings: type[Settings]) -> Settings:
    """Settings from the environment; for `__main__` alone.

    Wrong ones end the process with exit code 2 and one line for each on stderr. A line names the variable and never
    shows its value, which may be a secret.
    """
    try:
        return settings()
    except ValidationError as error:
        prefix = str(settings.model_config.get("env_prefix", ""))
        for fault in error.errors(include_input=False, include_url=False, include_context=False):
            message = fault["msg"].removeprefix("Value error, ")
            if not fault["loc"]:
                sys.stderr.write(f"{message}\n")
                continue
            name = str(fault["loc"][0])
            # an alias is reported as it is; a plain field lacks its prefix
            variable = (prefix + name).upper() if name in settings.model_fields else name
            words = " is required: set it in the environment" if fault["type"] == "missing" else f": {message}"
            sys.stderr.write(f"{variable}{words}\n")
        raise SystemExit(2) from None
