"""compose.yaml and the Dockerfile as a container engine would read them, for where no engine is at hand."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parent.parent
COMPOSE = CHECKOUT / "compose.yaml"
DOCKERFILE = CHECKOUT / "Dockerfile"

# $$, $NAME, ${NAME}, ${NAME:-default}, ${NAME:?message}: https://docs.docker.com/reference/compose-file/interpolation/
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|(?P<plain>\w+)|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\})")

REQUIRED = {
    "SCENEWIRE_JWT_SECRET": "a-secret-of-the-test-with-32-bytes-or-more",
    "POSTGRES_PASSWORD": "password-of-the-test",
    "MODELSLAB_API_KEY": "key-of-the-test",
}
"""What .env must name, at the least."""


class Missing(Exception):
    """A required variable is not set."""


def raw() -> dict[str, Any]:
    """compose.yaml, aliases and merges resolved, variables not."""
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


def services(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Every service with its variables filled in, of all profiles. Raises `Missing`.

    What an environment names without a value is handed on from `variables`, or left out.
    """
    found: dict[str, dict[str, Any]] = _filled(raw()["services"], variables)
    for service in found.values():
        environment = {
            name: variables.get(name) if value is None else value
            for name, value in service.get("environment", {}).items()
        }
        service["environment"] = {name: value for name, value in environment.items() if value is not None}
    return found


def seconds(text: str) -> float:
    """A duration such as `180s`."""
    found = re.fullmatch(r"(\d+)s", text)
    assert found is not None, f"write {text} as seconds: 180s"
    return float(found[1])


def stage(name: str) -> list[str]:
    """The instructions of a Dockerfile's stage, after those of the stages of the same file that it is made from."""
    stages: dict[str, list[str]] = {}
    current = ""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    for line in (line.strip() for line in text.splitlines()):
        if made := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            origin, current = made.groups()
            stages[current] = list(stages.get(origin, []))
        elif line and not line.startswith("#") and current:
            stages[current].append(line)
    return stages[name]


def copied(name: str) -> dict[str, str]:
    """What a stage copies from the checkout: source -> destination, both relative."""
    words = [line.split() for line in stage(name) if line.startswith("COPY ") and "--from" not in line]
    return {source: destination for _, source, destination in words}


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, variables) for one in value]
    return _interpolated(value, variables) if isinstance(value, str) else value


def _interpolated(text: str, variables: Mapping[str, str]) -> str:
    def one(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        value = variables.get(found["plain"] or found["name"], "")
        if value or not found["kind"]:
            return value
        if found["kind"] == "?":
            raise Missing(found["rest"])
        return found["rest"]

    return _VARIABLE.sub(one, text)
