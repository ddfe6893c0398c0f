"""docs/asyncapi.yaml: every Kafka topic and the WebSocket as AsyncAPI 3.0, from `schemas` and what the
notifier closes with."""

from collections.abc import Iterable, Mapping
from inspect import getdoc
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from notifier import incoming, protocol
from schemas import errors, events, frames, topics

# one of the event types carries bytes that could not be read as an event
_RAW_TOPICS = {topics.dead(errors.ErrorClass.POISON), topics.dead(errors.ErrorClass.INVALID)}

_DEAD_HEADERS = {
    "origin-topic": "where the request came from",
    "origin-partition": "its partition; for events that could not be worked on",
    "origin-offset": "its offset; likewise",
    "attempt": "the number of the attempt that was the last",
    "error-class": "the class: the word in the topic's name",
    "error-code": "the code: docs/errors.md",
    "error-message": "what the user was told; at most 1,024 bytes, without secrets",
    "first-failed-at": "when the first attempt failed; RFC 3339",
    "failed-at": "when it ended; RFC 3339",
}
_RETRY_HEADERS = {
    "not-before": "milliseconds since 1970: the attempt is made no earlier",
    "attempt": "the attempt that waits",
}
_CONTENT_TYPE = {"content-type": events.CONTENT_TYPE}

_EVENTS: dict[str, tuple[type[BaseModel], JsonSchemaMode, str, Mapping[str, str]]] = {
    "RequestedEvent": (events.RequestedEvent, "validation", events.REQUESTED_TYPE, {}),
    "RetryEvent": (events.RetryEvent, "serialization", events.RETRY_TYPE, _RETRY_HEADERS),
    "StatusEvent": (events.StatusEvent, "serialization", events.STATUS_TYPE, {}),
    "CompletedEvent": (events.CompletedEvent, "serialization", events.COMPLETED_TYPE, {}),
    "FailedEvent": (events.FailedEvent, "serialization", events.FAILED_TYPE, {}),
    "DeadEvent": (events.DeadEvent, "serialization", events.DEAD_TYPE, _DEAD_HEADERS),
}
_ON_STREAMS: tuple[type[BaseModel], ...] = (
    frames.Snapshot,
    frames.StatusFrame,
    frames.CursorFrame,
    frames.End,
    frames.Bye,
)

_CLOSE_CODES: dict[int, str] = {
    incoming.PROTOCOL_ERROR: "protocol error",
    incoming.NOT_UTF8: "not UTF-8",
    incoming.TOO_BIG: "too big",
    protocol.NO_ANSWER: "no answer to a ping",
    **{code.value: code.name.lower().replace("_", " ") for code in frames.CloseCode},
}

_INFO = """\
Scenewire turns scene requests into stored images and tells every waiting browser and service of each change.

Events on Kafka are CloudEvents 1.0 in structured JSON. `subject` is the record_id, `sequence` its version: go by the
version, not by the order of arrival. Within a topic's version changes are only additive: ignore fields you do not know.
A deployment with SCENEWIRE_NAMESPACE puts that prefix in front of every topic's name. The topics `retry` are
Scenewire's own; everything else is for other services too.
"""
_SOCKET = """\
Subprotocol `{subprotocol}`. The token comes as a second subprotocol, `{prefix}` followed by the JWT in base64url
without padding, or in a first `auth` frame within 10 s; never in the URL. Frames are JSON objects with `type`.

Close codes: {codes}.
1007, 1009 and 44xx: do not retry unchanged (4401: once, with a new token). The others, and any loss of the line:
connect again, after a pause that grows. 1002 again and again: something on the way changes frames, take `stream`.
"""


_STREAM = """\
Server-sent events, for where sockets do not get through: the frames of the channel `socket` for one chapter. Of each
message `event` is the frame's type, `data` the frame, `id` the cursor; `Last-Event-ID` goes on from there. A comment
comes every 20 s. The stream ends with `bye` when the token lapses (4401) and when the notifier stops (1012). A bare
EventSource cannot send the token: read it with fetch.
"""


class _Schemas(GenerateJsonSchema):
    """pydantic's schemas without the titles it makes of the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class _Dumper(yaml.SafeDumper):
    """Every value in full, long texts as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def render() -> str:
    """The file's text."""
    head = "# Written by `make docs` from schemas/. Do not edit.\n"
    return head + yaml.dump(document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def document() -> dict[str, Any]:
    """The whole document, as plain data."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Scenewire", "version": "1.0.0", "license": {"name": "MIT"}, "description": _INFO},
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{servers}",
                "protocol": "kafka",
                "description": "SCENEWIRE_KAFKA_SERVERS",
                "variables": {"servers": {"default": "127.0.0.1:8705", "description": "that of `make run`"}},
            },
            "push": {
                "host": "{host}",
                "protocol": "ws",
                "description": "SCENEWIRE_PUSH_URL; wss where it is https",
                "variables": {"host": {"default": "127.0.0.1:8701", "description": "that of `make run`"}},
                "security": [{"$ref": "#/components/securitySchemes/token"}],
            },
            "http": {
                "host": "{host}",
                "protocol": "http",
                "description": "the same; https where it is",
                "variables": {"host": {"default": "127.0.0.1:8701", "description": "that of `make run`"}},
                "security": [{"$ref": "#/components/securitySchemes/bearer"}],
            },
        },
        "channels": {
            **{_channel(topic.name): _topic(topic) for topic in topics.TOPICS},
            "socket": _socket(),
            "stream": _stream(),
        },
        "operations": {**_topic_operations(), **_socket_operations(), **_stream_operations()},
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "httpApiKey",
                    "in": "header",
                    "name": "Sec-WebSocket-Protocol",
                    "description": "a JWT: see the channel",
                },
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
            "messages": _messages(),
            "schemas": _schemas(),
        },
    }


def _channel(name: str) -> str:
    return name.removeprefix("scene-images.").removesuffix(".v1").replace(".", "-")


def _message_of(topic: str) -> str:
    kind = topic.split(".")[1]
    word = "Dead" if kind.startswith("dead-") else "Retry" if kind.startswith("retry-") else kind.capitalize()
    return f"{word}Event"


def _topic(topic: topics.Topic) -> dict[str, Any]:
    names = [_message_of(topic.name)] + (["UnreadableEvent"] if topic.name in _RAW_TOPICS else [])
    return {
        "address": topic.name,
        "description": topic.purpose,
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": _refs(names),
        "bindings": {
            "kafka": {
                "partitions": topic.partitions,
                "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": topic.retention_ms},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _socket() -> dict[str, Any]:
    codes = ", ".join(f"{code} {what}" for code, what in sorted(_CLOSE_CODES.items()))
    names = [f"{frame.__name__}" for frame in (*frames.CLIENT_FRAMES, *frames.SERVER_FRAMES)]
    return {
        "address": "/ws",
        "description": _SOCKET.format(
            subprotocol=frames.SUBPROTOCOL, prefix=frames.BEARER_SUBPROTOCOL_PREFIX, codes=codes
        ),
        "servers": [{"$ref": "#/servers/push"}],
        "messages": _refs(dict.fromkeys(names)),
        "bindings": {
            "ws": {
                "method": "GET",
                "headers": {
                    "type": "object",
                    "properties": {"Sec-WebSocket-Protocol": {"type": "string"}},
                    "required": ["Sec-WebSocket-Protocol"],
                },
                "bindingVersion": "0.1.0",
            }
        },
    }


def _stream() -> dict[str, Any]:
    return {
        "address": "/chapters/{chapter_id}/events",
        "description": _STREAM,
        "servers": [{"$ref": "#/servers/http"}],
        "parameters": {"chapter_id": {"description": "the chapter, a UUID"}},
        "messages": _refs(frame.__name__ for frame in _ON_STREAMS),
    }


def _refs(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _topic_operations() -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for topic in topics.TOPICS:
        channel = _channel(topic.name)
        kind = topic.name.split(".")[1]
        ours = kind.startswith("retry-")
        actions = ("receive",) if kind == "requested" else ("send", "receive") if ours else ("send",)
        for action in actions:
            operations[f"{action}-{channel}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{channel}"},
                "summary": topic.purpose,
                "tags": [{"name": "internal" if ours else "events"}],
            }
    return operations


def _socket_operations() -> dict[str, Any]:
    def of(action: str, sent: tuple[type[BaseModel], ...], summary: str) -> dict[str, Any]:
        return {
            "action": action,
            "channel": {"$ref": "#/channels/socket"},
            "summary": summary,
            "tags": [{"name": "push"}],
            "messages": [{"$ref": f"#/channels/socket/messages/{frame.__name__}"} for frame in sent],
        }

    return {
        "receive-frames": of("receive", frames.CLIENT_FRAMES, "what a client may send"),
        "send-frames": of("send", frames.SERVER_FRAMES, "what a client is sent"),
    }


def _stream_operations() -> dict[str, Any]:
    return {
        "send-stream": {
            "action": "send",
            "channel": {"$ref": "#/channels/stream"},
            "summary": "what happens in a chapter",
            "tags": [{"name": "push"}],
            "messages": [{"$ref": f"#/channels/stream/messages/{frame.__name__}"} for frame in _ON_STREAMS],
            "bindings": {"http": {"method": "GET", "bindingVersion": "0.3.0"}},
        }
    }


def _messages() -> dict[str, Any]:
    messages: dict[str, Any] = {}
    keys = {_message_of(topic.name): topic.key for topic in topics.TOPICS}
    for name, (model, _, event_type, headers) in _EVENTS.items():
        data = model.model_fields["data"].annotation
        assert data is not None
        messages[name] = {
            "name": event_type,
            "summary": getdoc(data),
            "contentType": events.CONTENT_TYPE,
            "headers": _headers({**_CONTENT_TYPE, **headers}),
            "payload": {"$ref": f"#/components/schemas/{name}"},
            "bindings": {"kafka": _key(keys[name])},
        }
    messages["UnreadableEvent"] = {
        "name": "unreadable",
        "summary": "An event that could not be worked on: its bytes as they came. Go by the header `error-code`.",
        "contentType": events.RAW_BYTES,
        "headers": _headers(
            {
                "content-type": events.RAW_BYTES,
                **{name: what for name, what in _DEAD_HEADERS.items() if name != "attempt"},
            }
        ),
        "bindings": {"kafka": _key("that of the event")},
    }
    for frame in dict.fromkeys((*frames.CLIENT_FRAMES, *frames.SERVER_FRAMES)):
        messages[frame.__name__] = {
            "name": str(frame.model_fields["type"].annotation.__args__[0]),  # type: ignore[union-attr]
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{frame.__name__}"},
        }
    return messages


def _key(what: str) -> dict[str, Any]:
    described = f"{what}, else record_id" if what == "chapter_id" else what
    return {"key": {"type": "string", "description": described}, "bindingVersion": "0.5.0"}


def _headers(described: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            name: {"type": "string", "const": what}
            if name in _CONTENT_TYPE
            else {"type": "string", "description": what}
            for name, what in described.items()
        },
    }


def _schemas() -> dict[str, Any]:
    """Every schema under its own name; what clients and services send as we accept it, what we send as we send it."""
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, mode) for model, mode, _, _ in _EVENTS.values()]
    wanted += [(frame, "validation") for frame in frames.CLIENT_FRAMES if frame is not frames.Ping]
    wanted += [(frame, "serialization") for frame in frames.SERVER_FRAMES]
    made, defined = models_json_schema(wanted, ref_template="#/components/schemas/{model}", schema_generator=_Schemas)
    names = {made[(model, mode)]["$ref"].rsplit("/", 1)[1]: name for name, (model, mode, _, _) in _EVENTS.items()}
    schemas: dict[str, Any] = {}
    for name, schema in sorted(defined["$defs"].items()):
        named = names.get(name, name)
        if named in _EVENTS:
            event_type = _EVENTS[named][2]
            schema = {**schema, "title": named}
            schema["properties"] = {**schema["properties"], "type": {"type": "string", "const": event_type}}
        schemas[named] = schema
    return schemas
