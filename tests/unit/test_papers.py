"""The papers say what the code does: generated ones are current and valid."""

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings

from docs import asyncapi, configuration
from docs.generate import FOLDER, PAPERS
from schemas import events, frames, topics
from schemas.statuses import ImageStatus
from schemas.words import Stage, Status

_OFFICIAL = Path(__file__).resolve().parent.parent / "asyncapi" / "3.0.0.json"
DOCUMENT = asyncapi.document()


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft7Validator:
    """The schema that AsyncAPI publishes."""
    return jsonschema.Draft7Validator(json.loads(_OFFICIAL.read_text()))


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_a_generated_paper_is_current(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == PAPERS[name](), f"docs/{name} is out of date: run `make docs` and commit it"


class TestAsyncapi:
    def test_is_valid_by_the_published_schema(self, official: jsonschema.Draft7Validator) -> None:
        written = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text())
        assert [error.message for error in official.iter_errors(written)] == []

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("operations", "send-status", "action"), "publish"),
            (("channels", "status", "adress"), "x"),
            (("components", "schemas", "ImageStatus", "type"), "map"),
        ],
    )
    def test_the_published_schema_sees_a_fault(
        self, official: jsonschema.Draft7Validator, path: tuple[str, ...], value: str
    ) -> None:
        broken = copy.deepcopy(DOCUMENT)
        place: Any = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        assert not official.is_valid(broken)

    def test_every_reference_leads_somewhere(self) -> None:
        for reference in _references(DOCUMENT):
            place: Any = DOCUMENT
            for key in reference.removeprefix("#/").split("/"):
                place = place[key]
            assert place

    def test_names_every_topic_and_every_frame(self) -> None:
        addresses = [channel["address"] for channel in DOCUMENT["channels"].values()]
        assert sorted(addresses) == sorted([*topics.BY_NAME, "/ws"])
        known = {
            str(model.model_fields["type"].annotation)
            for model in vars(frames).values()
            if isinstance(model, type) and issubclass(model, BaseModel) and "type" in model.model_fields
        }
        sent = DOCUMENT["channels"]["socket"]["messages"]
        told = {f"typing.Literal['{DOCUMENT['components']['messages'][name]['name']}']" for name in sent}
        assert told == known

    def test_every_type_of_event_is_some_topics(self) -> None:
        types = {value for name, value in vars(events).items() if name.endswith("_TYPE") and name != "CONTENT_TYPE"}
        assert {message["name"] for message in DOCUMENT["components"]["messages"].values()} >= types

    def test_what_is_sent_fits_what_is_said(self) -> None:
        status = _status()
        event = events.StatusEvent(
            specversion="1.0",
            id=str(uuid4()),
            source="/scenewire/consumer",
            type=events.STATUS_TYPE,
            subject=str(status.record_id),
            sequence="3",
            time=datetime.now(UTC),
            data=status,
        )
        _validator("StatusEvent").validate(json.loads(event.model_dump_json()))
        frame = frames.StatusFrame(image=status, cursor="c")
        _validator("StatusFrame").validate(json.loads(frame.model_dump_json()))
        assert not _validator("StatusEvent").is_valid({"specversion": "1.0"})


class TestConfiguration:
    @pytest.mark.parametrize("process", sorted(configuration.PROCESSES))
    def test_every_setting_says_what_it_means(self, process: str) -> None:
        settings = configuration.PROCESSES[process]
        assert [name for name, field in settings.model_fields.items() if not field.description] == []

    @pytest.mark.parametrize("process", sorted(configuration.PROCESSES))
    def test_every_setting_is_listed_with_its_process(self, process: str) -> None:
        settings = configuration.PROCESSES[process]
        rows = [line.split(" | ") for line in configuration.render().splitlines() if line.startswith("| `")]
        readers = {row[0].strip("| `"): row[3].split(", ") for row in rows if len(row) == 5}
        for name, field in settings.model_fields.items():
            assert process in readers[configuration.variable_of(settings, name, field)]

    def test_what_two_processes_read_by_one_name_means_one_thing(self) -> None:
        said: dict[str, tuple[object, str | None]] = {}
        for settings in configuration.PROCESSES.values():
            for name, field in settings.model_fields.items():
                variable = configuration.variable_of(settings, name, field)
                assert said.setdefault(variable, (field.default, field.description)) == (
                    field.default,
                    field.description,
                ), variable

    def test_a_secrets_default_is_never_shown(self) -> None:
        class Hidden(BaseSettings):
            word: SecretStr = Field(default=SecretStr("do-not-show"), description="x")

        (row,) = configuration.variables(Hidden)
        assert (row.kind, row.default) == ("secret", "unset")


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [one for inner in value.values() for one in _references(inner)]
    if isinstance(value, list):
        return [one for inner in value for one in _references(inner)]
    return []


def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**DOCUMENT, "$ref": f"#/components/schemas/{name}"})


def _status() -> ImageStatus:
    record_id = uuid4()
    nothing = dict.fromkeys(ImageStatus.model_fields)
    known = {
        "record_id": record_id,
        "task_id": record_id,
        "image_type": "scene",
        "status": Status.IN_PROGRESS,
        "stage": Stage.GENERATING,
        "progress": 40,
        "version": 3,
        "attempt": 1,
        "retry_count": 0,
    }
    return ImageStatus.model_validate(nothing | known)
