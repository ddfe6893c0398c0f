"""Where the provider's webhooks go: an address that can be used, or one clear refusal."""

from typing import Any

import pytest
from pydantic import ValidationError

from consumer.settings import ConsumerSettings


def settings_of(public_url: Any) -> ConsumerSettings:
    given = {
        "database_url": "postgresql://x@/x",
        "kafka_servers": "nowhere:1",
        "media_url": "file:///tmp/x",
        "jwt_secret": "0123456789abcdef0123456789abcdef",
        "modelslab_api_key": "the-key",
        "public_url": public_url,
    }
    return ConsumerSettings.model_validate(given)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (None, None),
        ("https://api.example.com", "https://api.example.com"),
        (" https://api.example.com:8443/ ", "https://api.example.com:8443"),
        ("http://127.0.0.1:8700/scenes/", "http://127.0.0.1:8700/scenes"),
    ],
)
def test_an_address_is_used_without_its_slash(given: str | None, used: str | None) -> None:
    assert settings_of(given).public_url == used


@pytest.mark.parametrize(
    "given",
    ["api.example.com", "ftp://api.example.com", "https://", "//api.example.com", "https://me:hunter2@api.example.com",
     "https://me@api.example.com", "https://api.example.com/?x=1", "https://api.example.com/#x"],
)  # fmt: skip
def test_what_the_provider_cannot_call_is_refused_without_showing_it(given: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings_of(given)
    assert "public_url" in str(refused.value)
    assert "hunter2" not in str(refused.value)
