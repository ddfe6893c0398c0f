"""Secrets never get past `telemetry.redaction`; harmless text does."""

import pytest

from telemetry.redaction import REDACTED, redact, redact_value, remember

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLW9mLWl0"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        (f"bad token {JWT} seen", JWT),
        ("scenewire.v1+json, base64url.bearer.scenewire.ZXlKaGJHY2k", "ZXlKaGJHY2k"),
        ("cannot connect to postgresql://app:hunter2@db:5432/x", "hunter2"),
        ("postgresql://db/x?user=app&password=hunter2&sslmode=require", "hunter2"),
        ('POST {"key": "sk-live-1", "prompt": "a hare"} failed', "sk-live-1"),
        ("{'key': 'sk-live-1', 'prompt': 'a hare'}", "sk-live-1"),
        (r"{\"key\": \"sk-live-1\"}", "sk-live-1"),
        ('{"api_key":"sk-live-1"}', "sk-live-1"),
        ("GET /fetch?key=sk-live-1&id=3", "sk-live-1"),
        ("client_secret=shh-very; next", "shh-very"),
        ("GET /images/0190/file/Zm9vYmFy.png", "Zm9vYmFy"),
        ("GET /images/0190/thumb/Zm9vYmFy.webp", "Zm9vYmFy"),
        ("webhook must be public: https://api.test/hooks/modelslab/Zm9v-YmFy_1", "Zm9v-YmFy_1"),
        (r'{"webhook":"https:\/\/api.test\/hooks\/modelslab\/Zm9v-YmFy_1"}', "Zm9v-YmFy_1"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_text(text: str, secret: str) -> None:
    shown = redact(text)
    assert secret not in shown
    assert REDACTED in shown


@pytest.mark.parametrize(
    "text",
    [
        "The Hatter opened his eyes very wide",
        "the key of the garden door",
        "https://cdn.example.com/images/42.png",
        "retry 2 of 3 in 10 s",
        "postgresql:///scenewire?host=/run/pg",
        "",
    ],
)
def test_harmless_text_is_left_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "name",
    ["key", "KEY", "api_key", "apikey", "token", "access_token", "Authorization", "secret", "jwt_secret", "password"],
)
def test_a_secret_name_hides_its_value_at_any_depth(name: str) -> None:
    event = {"outer": [{name: "hidden-value", "other": "shown"}]}
    assert redact_value(event) == {"outer": [{name: REDACTED, "other": "shown"}]}


def test_names_that_only_sound_like_secrets_are_shown() -> None:
    event = {"image_key": "0190/a.png", "token_count": 3, "keys": ["a"], "monkey": "b"}
    assert redact_value(event) == event


def test_bytes_and_objects_are_redacted_as_their_text() -> None:
    class Odd:
        def __str__(self) -> str:
            return "password=hunter2"

    assert "hunter2" not in redact_value(Odd())
    assert "abcdef1" not in redact_value(b"Bearer abcdef1")
    assert "\\xff" in redact_value(b"\xff")


def test_a_structure_without_end_is_cut_off() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert redact_value(endless)


def test_a_remembered_value_disappears_wherever_it_stands() -> None:
    remember("plain-words-as-secret", None, "ab")
    assert redact("before plain-words-as-secret after ab") == f"before {REDACTED} after ab"
