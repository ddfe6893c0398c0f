"""Every event ever written must be readable for ever: one golden JSON per event type and version.

A file here is never changed. A field may be added to a model with a default; what needs more is a new topic version.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from schemas import events

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
MODELS: dict[str, type[BaseModel]] = {
    events.REQUESTED_TYPE: events.RequestedEvent,
    events.RETRY_TYPE: events.RetryEvent,
    events.STATUS_TYPE: events.StatusEvent,
    events.COMPLETED_TYPE: events.CompletedEvent,
    events.FAILED_TYPE: events.FailedEvent,
    events.DEAD_TYPE: events.DeadEvent,
}
FILES = sorted(GOLDEN.glob("*.json"))


def _content(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_golden_event_is_read_whole(file: Path) -> None:
    content = _content(file)
    event = MODELS[content["type"]].model_validate_json(file.read_bytes())
    said = json.loads(event.model_dump_json())
    for name, value in content["data"].items():
        if name.endswith("_at") and value is not None:
            continue
        assert said["data"][name] == value, name
    assert said["subject"] == content["subject"]
    assert said["sequence"] == content["sequence"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_a_newer_writer_adds_does_not_hinder_reading(file: Path) -> None:
    content = _content(file)
    content["an_extension"] = "new"
    if content["type"] != events.REQUESTED_TYPE:
        # a request is held to its exact shape: a misspelt field must not be dropped in silence
        content["data"]["a_new_field"] = {"deep": [1]}
    MODELS[content["type"]].model_validate_json(json.dumps(content))


def test_every_event_type_has_a_golden_file() -> None:
    assert {_content(file)["type"] for file in FILES} == set(MODELS)
