"""Addresses, origins and secrets as the settings read them."""

import pytest
from pydantic import ValidationError

from telemetry.settings import load
from web.settings import WebSettings, origin_of

SECRET = "0123456789abcdef0123456789abcdef"


def _settings(**changes: object) -> WebSettings:
    return WebSettings.model_validate({"jwt_secret": SECRET, **changes})


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Api.Example.com/base/", "https://api.example.com"),
        ("https://api.example.com:443", "https://api.example.com"),
        ("http://api.example.com:8080/x", "http://api.example.com:8080"),
        ("http://[::1]:8700", "http://[::1]:8700"),
    ],
)
def test_an_origin_is_written_as_browsers_do(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize("url", ["api.example.com", "ftp://x", "", "http://"])
def test_an_address_must_be_absolute(url: str) -> None:
    with pytest.raises(ValidationError, match="absolute http or https"):
        _settings(api_url=url)


def test_the_default_origins_are_the_two_own_ones() -> None:
    settings = _settings(api_url="http://127.0.0.1:8700/", push_url="https://push.example.com/live")
    assert settings.api_url == "http://127.0.0.1:8700"
    assert settings.origins == {"http://127.0.0.1:8700", "https://push.example.com"}
    assert settings.allows(None)
    assert settings.allows("https://push.example.com")
    assert not settings.allows("https://push.example.com.evil.test")
    assert not settings.allows("null")


def test_origins_may_be_listed_or_all() -> None:
    assert _settings(allowed_origins="https://a.test, http://b.test:80/").origins == {"https://a.test", "http://b.test"}
    assert _settings(allowed_origins="*").allows("https://anything.test")


def test_the_signing_secret_is_derived_or_a_list() -> None:
    derived = _settings().signing_secrets
    assert len(derived) == 1
    assert len(derived[0]) == 32
    assert derived == _settings().signing_secrets
    assert derived != _settings(jwt_secret=SECRET[::-1]).signing_secrets
    assert _settings(signing_secret="new-one, old-one").signing_secrets == (b"new-one", b"old-one")


def test_a_start_without_a_way_to_verify_tokens_is_refused_in_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SCENEWIRE_JWT_SECRET", raising=False)
    with pytest.raises(SystemExit) as stopped:
        load(WebSettings)
    assert stopped.value.code == 2
    assert "SCENEWIRE_JWT_SECRET is required" in capsys.readouterr().err
    monkeypatch.setenv("SCENEWIRE_JWKS_URL", "https://issuer.test/jwks.json")
    monkeypatch.delenv("SCENEWIRE_SIGNING_SECRET", raising=False)
    with pytest.raises(SystemExit):
        load(WebSettings)
    assert "SCENEWIRE_SIGNING_SECRET is required where SCENEWIRE_JWT_SECRET is not set" in capsys.readouterr().err
    monkeypatch.setenv("SCENEWIRE_SIGNING_SECRET", SECRET)
    assert load(WebSettings).signing_secrets == (SECRET.encode(),)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000/jwks", "http://localhost/jwks", "http://[::1]/x", "https://a.test"]
)
def test_published_keys_come_over_a_protected_line(url: str) -> None:
    assert _settings(jwks_url=url).jwks_url == url


@pytest.mark.parametrize(
    "url", ["http://issuer.test/jwks", "http://127.0.0.1.evil.test/", "http://localhost.test/", "ftp://x", "jwks.json"]
)
def test_published_keys_over_an_open_line_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match=r"jwks_url\n  Value error, must be an"):
        _settings(jwks_url=url)


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN PUBLIC KEY-----\nMFkw",
        "\n-----BEGIN RSA PRIVATE KEY-----",
        "ssh-rsa AAAA",
        '{ "n": "AQAB", "kty":"RSA"}',
    ],
)
def test_a_key_of_a_pair_is_no_secret(secret: str) -> None:
    with pytest.raises(ValidationError, match="is a key of a pair, not a secret"):
        _settings(jwt_secret=secret)


def test_a_wrong_setting_is_named_and_its_value_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCENEWIRE_JWT_SECRET", SECRET)
    monkeypatch.setenv("SCENEWIRE_API_URL", "value-that-is-private")
    with pytest.raises(SystemExit):
        load(WebSettings)
    shown = capsys.readouterr().err
    assert shown.startswith("SCENEWIRE_API_URL: must be an absolute http or https URL")
    assert "private" not in shown
    assert SECRET not in shown


def test_an_empty_secret_is_none() -> None:
    with pytest.raises(ValidationError, match="is empty"):
        _settings(jwt_secret="")
