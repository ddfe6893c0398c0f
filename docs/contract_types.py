"""client/src/contract.ts: what the TypeScript client sends and is sent, as types, from `schemas` alone."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from schemas import frames, problems, requests, statuses, words
from schemas.errors import ErrorClass

_SENT: tuple[type[BaseModel], ...] = (requests.SceneImageRequest, *frames.CLIENT_FRAMES)
_RECEIVED: tuple[type[BaseModel], ...] = (
    statuses.ImageStatus,
    statuses.CurrentImage,
    statuses.SceneStatus,
    statuses.ChapterImages,
    requests.ImageGenerationQueuedResponse,
    problems.Problem,
    *frames.SERVER_FRAMES,
)

_PLAIN = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
_WIDTH = 120

_PARENTS = {model.__name__: model.__mro__[1] for model in (*_SENT, *_RECEIVED) if model.__mro__[1] in _RECEIVED}
"""Of those that hold all that another holds, and more."""


def render() -> str:
    """The file's text, as the client's formatter would leave it."""
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in _SENT]
    wanted += [(model, "serialization") for model in _RECEIVED if model not in _SENT]
    _, defined = models_json_schema(wanted, ref_template="{model}")
    parts = ["// Written by `make docs` from schemas/. Do not edit."]
    parts += ["\n".join(_declaration(name, schema)) for name, schema in sorted(defined["$defs"].items())]
    parts.append(_alias("ClientFrame", [frame.__name__ for frame in frames.CLIENT_FRAMES]))
    parts.append(_alias("ServerFrame", [frame.__name__ for frame in frames.SERVER_FRAMES]))
    close_codes = (f"  {code.name}: {code.value}," for code in frames.CloseCode)
    parts.append("\n".join(["export const CLOSE = {", *close_codes, "} as const;"]))
    parts.append(f'export const SUBPROTOCOL = "{frames.SUBPROTOCOL}";')
    parts.append(f'export const BEARER_PREFIX = "{frames.BEARER_SUBPROTOCOL_PREFIX}";')
    return "\n\n".join(parts) + "\n"


def _declaration(name: str, schema: dict[str, Any]) -> Iterator[str]:
    if said := schema.get("description"):
        yield from _comment(said, "")
    if "enum" in schema:
        yield _alias(name, [_literal(word) for word in _in_order(name, schema["enum"])])
        return
    parent = _PARENTS.get(name)
    yield f"export interface {name}{f' extends {parent.__name__}' if parent else ''} {{"
    required = set(schema.get("required", ()))
    for field, value in schema["properties"].items():
        if parent and field in parent.model_fields:
            continue
        if said := value.get("description"):
            yield from _comment(said, "  ")
        # a frame is known by its type: the schema does not require what has a default
        optional = "" if field in required or field == "type" else "?"
        yield f"  {field}{optional}: {_type(value)};"
    yield "}"


def _in_order(name: str, found: list[str]) -> list[str]:
    vocabulary: dict[str, list[str]] = {
        each.__name__: [str(word) for word in each] for each in (words.Status, words.Stage, words.Style, ErrorClass)
    }
    return vocabulary.get(name, found)


def _alias(name: str, members: list[str]) -> str:
    flat = f"export type {name} = {' | '.join(members)};"
    if len(flat) <= _WIDTH:
        return flat
    return "\n".join([f"export type {name} =", *(f"  | {member}" for member in members)]) + ";"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"])
    if "const" in schema:
        return _literal(schema["const"])
    if "enum" in schema:
        return " | ".join(_literal(word) for word in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_type(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        inner = _type(schema["items"])
        return f"({inner})[]" if "|" in inner else f"{inner}[]"
    return _PLAIN[schema["type"]]


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _comment(said: str, indent: str) -> Iterator[str]:
    lines = [line.strip() for line in said.strip().splitlines()]
    if len(lines) == 1 and len(indent) + len(lines[0]) + 7 <= _WIDTH:
        yield f"{indent}/** {lines[0]} */"
        return
    yield f"{indent}/**"
    line = ""
    for word in " ".join(lines).split():
        if line and len(indent) + 3 + len(line) + 1 + len(word) > _WIDTH:
            yield f"{indent} * {line}"
            line = word
        else:
            line = f"{line} {word}".strip()
    yield f"{indent} * {line}"
    yield f"{indent} */"
