"""The papers say what the code does: generated ones are current and valid."""

import ast
import copy
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings

from consumer import taxonomy
from docs import asyncapi, configuration
from docs.generate import FOLDER, PAPERS
from notifier import incoming, protocol
from schemas import events, frames, topics
from schemas.errors import ErrorClass
from schemas.statuses import ImageStatus
from schemas.words import Stage, Status
from telemetry import metrics

_COUNTING = {"count", "gauge", "observe", "counter", "histogram"}
_OFFICIAL = Path(__file__).resolve().parent.parent / "asyncapi" / "3.0.0.json"
CHECKOUT = FOLDER.parent
DOCUMENT = asyncapi.document()

_CODES_IN_SOURCE = (
    r"(?:ErrorClass\.|_C\.)[A-Z_]+,\s+\"([a-z_]+)\"",
    r"(?:Refused|problem)\(\s*\d+,\s+\"([a-z_]+)\"",
    r"Unauthorized\(\s*\"([a-z_]+)\"",
    r"_bury\([^,]+, \"([a-z_]+)\"",
    r"\bcode=\"([a-z_]+)\"",
    r"\d{3}: \"([a-z_]+)\"",
)


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
        assert sorted(addresses) == sorted([*topics.BY_NAME, "/ws", "/chapters/{chapter_id}/events"])
        known = {
            str(model.model_fields["type"].annotation)
            for model in vars(frames).values()
            if isinstance(model, type) and issubclass(model, BaseModel) and "type" in model.model_fields
        }
        sent = DOCUMENT["channels"]["socket"]["messages"]
        told = {f"typing.Literal['{DOCUMENT['components']['messages'][name]['name']}']" for name in sent}
        assert told == known

    def test_names_every_close_code_that_is_sent_and_no_other(self) -> None:
        listed = DOCUMENT["channels"]["socket"]["description"].partition("Close codes: ")[2].partition(".\n")[0]
        assert {int(code) for code in re.findall(r"\b\d{4}\b", listed)} == _close_codes()

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


def _spoken(room: str) -> set[str]:
    """Every text in the source of a room, as it is when it runs; what SQL puts together is put together."""
    return {
        re.sub(r"'\s*\|\|\s*'", "", node.value)
        for path in (CHECKOUT / room).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def _close_codes() -> set[int]:
    """What the notifier's source closes a socket with."""
    source = "".join(path.read_text() for path in (CHECKOUT / "notifier").glob("*.py"))
    ours = {frames.CloseCode[name].value for name in re.findall(r"\bCloseCode\.([A-Z_]+)", source)}
    violations = {getattr(incoming, name) for name in re.findall(r"\bViolation\(([A-Z_0-9]+),", source)}
    assert len(ours) > 5
    assert len(violations) > 2
    return {*ours, *violations, protocol.NO_ANSWER}


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


class TestErrors:
    PAPER = (FOLDER / "errors.md").read_text(encoding="utf-8")

    def test_every_code_of_the_tables_is_explained(self) -> None:
        rows = [*taxonomy.CODES.values(), *taxonomy.PHASES.values()]
        codes = {code for _, code, _ in rows} | {rule.code for rule in taxonomy.RULES}
        assert {code for code in codes if f"| `{code}` |" not in self.PAPER} == set()

    def test_it_repeats_word_for_word_what_the_user_reads(self) -> None:
        rows = [*taxonomy.CODES.values(), *taxonomy.PHASES.values()]
        by_code = {code: {message} for _, code, message in rows}
        for rule in taxonomy.RULES:
            by_code.setdefault(rule.code, set()).add(rule.message)
        assert {code for code, messages in by_code.items() if len(messages) > 1} == set()
        read = {cells[0].strip("`"): cells[3] for cells in self._codes()}
        assert {code: read.get(code) for code in by_code} == {
            code: messages.pop() for code, messages in by_code.items()
        }
        source = _spoken("consumer") | _spoken("storage")
        unsaid = [
            code for code, words in read.items() if words != "nothing" and not any(words in said for said in source)
        ]
        assert unsaid == []

    def test_what_the_user_reads_is_a_sentence_to_act_on(self) -> None:
        to_do = r"try again|[Rr]equest (it|the scene) again|[Pp]lease|by itself|Ask us|try later"
        for code, _, _, words, operator in self._codes():
            assert operator, code
            if words != "nothing":
                assert words.endswith("."), code
                assert re.search(to_do, words), code
                assert len(words) <= 160, code

    def _codes(self) -> list[list[str]]:
        """The rows of the table of codes."""
        table = self.PAPER.partition("### Codes\n")[2].partition("\n### ")[0]
        rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
        assert all(len(row) == 5 for row in rows)
        return rows

    def test_every_code_in_the_source_is_explained(self) -> None:
        found = {
            code
            for room in ("web", "producer", "consumer", "notifier")
            for path in (FOLDER.parent / room).glob("*.py")
            for pattern in _CODES_IN_SOURCE
            for code in re.findall(pattern, path.read_text())
        }
        assert {"deadline_exceeded", "empty_output", "token_expired", "too_many_polls", "not_sendable"} <= found
        assert {code for code in found if f"`{code}`" not in self.PAPER} == set()

    def test_no_code_is_explained_that_nobody_gives(self) -> None:
        source = "".join(
            path.read_text()
            for room in ("web", "producer", "consumer", "notifier", "schemas", "storage")
            for path in (FOLDER.parent / room).glob("*.py")
        )
        told = re.findall(r"^\| `([a-z_]+)` \|", self.PAPER, re.MULTILINE)
        assert len(told) > 50
        assert [code for code in told if not re.search(rf"['\"]{code}['\"]", source)] == []

    def test_every_class_and_every_close_code_is_explained(self) -> None:
        assert [one.value for one in ErrorClass if f"| `{one.value}` |" not in self.PAPER] == []
        rows = re.findall(r"^\| (\d{4}[\d, ]*) \|", self.PAPER, re.MULTILINE)
        told = {code for row in rows for code in row.split(", ")}
        # the contract lets a server say 4413 in place of 1009
        assert {int(code) for code in told} - {4413} == _close_codes()


class TestRunbook:
    def test_every_metric_it_names_is_counted(self) -> None:
        known = {f"scenewire_{metric.name}" for metric in metrics.all_metrics()}
        known -= {f"scenewire_{metric.name}" for metric in metrics.COUNTERS}
        known |= {f"scenewire_{metric.name}_total" for metric in metrics.COUNTERS}
        told = re.findall(r"(scenewire_[a-z_]+)(?:\{([a-z_,]+)\})?", (FOLDER / "runbook.md").read_text())
        assert {name for name, _ in told} - known - {"scenewire_"} == set()
        labels = {f"scenewire_{metric.name}": set(metric.labels) for metric in metrics.all_metrics()}
        wrong = [
            name for name, said in told if said and not set(said.split(",")) <= labels[name.removesuffix("_total")]
        ]
        assert wrong == []


class TestMetrics:
    """The list is what the processes count, no more; what is on it and counted under another label is found here."""

    def test_every_metric_is_counted_under_its_labels(self) -> None:
        counted: dict[str, list[set[str]]] = {}
        rooms = ("web", "producer", "consumer", "notifier", "storage", "messaging", "media")
        for path in (path for room in rooms for path in (CHECKOUT / room).glob("*.py")):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args):
                    continue
                name = call.args[0]
                if call.func.attr in _COUNTING and isinstance(name, ast.Constant) and isinstance(name.value, str):
                    counted.setdefault(name.value, []).append({str(keyword.arg) for keyword in call.keywords})
        listed = {metric.name: set(metric.labels) for metric in metrics.all_metrics()}
        assert set(listed) - set(counted) == set()
        assert [name for name, labels in listed.items() if any(found != labels for found in counted[name])] == []


class TestEveryPaper:
    @pytest.mark.parametrize("path", sorted(CHECKOUT.glob("*.md")) + sorted(FOLDER.rglob("*.md")), ids=lambda p: p.name)
    def test_its_links_lead_somewhere(self, path: Path) -> None:
        links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
        assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []
