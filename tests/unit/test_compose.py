"""compose.yaml and the Dockerfile keep to the Compose schema and to our own rules."""

import configparser
import re
import subprocess
import sys
from typing import Any

import pytest

from consumer.settings import ConsumerSettings
from notifier.settings import Settings as NotifierSettings
from producer.relay_settings import RelaySettings
from producer.settings import ProducerSettings
from tests.composed import CHECKOUT, COMPOSE, DOCKERFILE, REQUIRED, Missing, copied, raw, seconds, services, stage

SERVICES = services(REQUIRED)
STEPS = {"migrate", "provision"}
FOREIGN = {"kafka", "postgres"}
OURS = set(SERVICES) - FOREIGN
SERVING = OURS - STEPS


def test_the_file_is_valid_by_the_compose_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_part_of_the_line_is_there() -> None:
    assert {"producer", "relay", "consumer", "notifier", "simulator", *STEPS, *FOREIGN} == set(SERVICES)
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["simulator"]


@pytest.mark.parametrize("name", sorted(SERVICES))
class TestEveryService:
    def test_is_checked_or_runs_to_its_end(self, name: str) -> None:
        service = SERVICES[name]
        if name in STEPS:
            assert "healthcheck" not in service
            assert service["restart"] == "no"
        else:
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
            assert seconds(service["healthcheck"]["timeout"]) < seconds(service["healthcheck"]["interval"])
            assert service["restart"] == "unless-stopped"

    def test_has_time_to_stop(self, name: str) -> None:
        assert seconds(SERVICES[name]["stop_grace_period"]) >= 10

    def test_has_no_right_that_it_does_not_need(self, name: str) -> None:
        service = SERVICES[name]
        assert service["user"] not in ("root", "0", "0:0")
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        assert service.get("read_only") is True or name == "kafka"
        assert not any(str(volume).startswith(("/", ".")) for volume in service.get("volumes", []))

    def test_writes_into_declared_volumes_alone(self, name: str) -> None:
        named = {volume.split(":")[0] for volume in SERVICES[name].get("volumes", [])}
        assert named <= set(raw()["volumes"])

    def test_writes_pictures_only_where_they_are_made(self, name: str) -> None:
        writing = [volume for volume in SERVICES[name].get("volumes", []) if not volume.endswith(":ro")]
        assert any(volume.startswith("pictures:") for volume in writing) == (name in ("consumer", "notifier"))

    def test_waits_for_servers_that_are_ready_and_for_steps_that_are_done(self, name: str) -> None:
        for other, how in SERVICES[name].get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in STEPS else "service_healthy"
            assert how["condition"] == wanted


def test_who_needs_a_server_waits_for_it_and_for_its_preparation() -> None:
    for name in SERVING:
        environment, others = SERVICES[name]["environment"], set(SERVICES[name].get("depends_on", {}))
        assert ("SCENEWIRE_DATABASE_URL" in environment) == ({"postgres", "migrate"} <= others)
        assert ("SCENEWIRE_KAFKA_SERVERS" in environment) == ({"kafka", "provision"} <= others)


@pytest.mark.parametrize(
    ("name", "longest"),
    [
        ("producer", ProducerSettings.model_fields["producer_stop_within"].default),
        ("relay", RelaySettings.model_fields["relay_stop_within"].default),
        (
            "consumer",
            float(SERVICES["consumer"]["environment"]["SCENEWIRE_DRAIN"])
            + ConsumerSettings.model_fields["consumer_stop_within"].default,
        ),
        ("notifier", NotifierSettings.model_fields["stop_timeout"].default),
    ],
)
def test_the_grace_is_longer_than_the_longest_stop(name: str, longest: float) -> None:
    assert seconds(SERVICES[name]["stop_grace_period"]) > longest


def test_the_drain_is_longer_than_a_submit() -> None:
    drain = float(SERVICES["consumer"]["environment"]["SCENEWIRE_DRAIN"])
    assert drain > ConsumerSettings.model_fields["submit_timeout"].default


def test_no_secret_stands_in_the_file() -> None:
    secret = re.compile(r"SECRET|PASSWORD|TOKEN|API_KEY|CREDENTIAL")
    for service in raw()["services"].values():
        for name, value in service.get("environment", {}).items():
            if secret.search(name):
                assert value is None or re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name} has a value"
    # and none in a URI, or anywhere else
    assert not re.search(r"://[^:/$\s]+:[^$@\s]+@", COMPOSE.read_text())


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_missing_secret_is_named(name: str) -> None:
    with pytest.raises(Missing, match=name):
        services({other: value for other, value in REQUIRED.items() if other != name})


def test_the_example_names_every_variable_and_no_value_of_a_secret() -> None:
    example = (CHECKOUT / ".env.example").read_text()
    named = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", example, re.MULTILINE))
    used = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    environments = [service.get("environment", {}) for service in raw()["services"].values()]
    handed_on = {name for environment in environments for name, value in environment.items() if value is None}
    build_only = {"SCENEWIRE_VERSION", "SCENEWIRE_SIMULATOR_PROFILE"}
    assert (used | handed_on) - build_only <= named
    assert re.findall(r"^([A-Z_]+)=(.+)$", example, re.MULTILINE) == []


@pytest.mark.parametrize("name", sorted(SERVING))
def test_a_process_listens_for_others_and_is_asked_on_its_port(name: str) -> None:
    command, check = SERVICES[name]["command"], SERVICES[name]["healthcheck"]["test"]
    port = command[command.index("--port") + 1]
    assert command[command.index("--host") + 1] == "0.0.0.0"
    assert check[-1] == port
    for published in SERVICES[name].get("ports", []):
        assert published == f"127.0.0.1:{port}:{port}"


def test_kafka_and_postgres_are_not_published() -> None:
    assert {name for name in SERVICES if "ports" in SERVICES[name]} == {"producer", "notifier"}


def test_kafka_is_the_version_that_the_tests_run() -> None:
    jars = (CHECKOUT / "local" / "kafka-jars.sha256").read_text()
    tested = re.search(r"kafka-clients-([\d.]+)\.jar", jars)
    assert tested is not None
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{tested[1]}"


class TestTheImage:
    @pytest.mark.parametrize("name", ["scenewire", "simulator"])
    def test_runs_as_nobody_in_particular(self, name: str) -> None:
        users = [line.split()[1] for line in stage(name) if line.startswith("USER ")]
        assert users == ["10001:10001"]
        assert {service["user"] for own, service in SERVICES.items() if own in OURS} == {"10001:10001"}

    def test_holds_every_room_of_production_and_no_other(self) -> None:
        rules = configparser.ConfigParser()
        rules.read(CHECKOUT / ".importlinter")
        rooms = set(rules["importlinter"]["root_packages"].split()) - {"local", "examples"}
        assert set(copied("scenewire")) == rooms | {"client/studio/page"}
        assert set(copied("simulator")) == rooms | {"client/studio/page", "local/__init__.py", "local/modelslab"}

    def test_installs_by_hash_alone(self) -> None:
        installs = [line for line in stage("packages") if "pip install" in line]
        assert len(installs) == 1
        assert all("--require-hashes" in line and "--only-binary :all:" in line for line in installs)

    def test_needs_no_secret_and_downloads_nothing_else(self) -> None:
        text = DOCKERFILE.read_text()
        assert re.findall(r"^ARG (\w+)", text, re.MULTILINE) == ["PYTHON_IMAGE"]
        assert not re.search(r"^ADD |curl|wget|apt-get|--mount=type=secret", text, re.MULTILINE)

    def test_gets_from_the_checkout_what_it_copies_and_no_more(self) -> None:
        lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
        sent = {line[1:] for line in lines if line.startswith("!")}
        assert "**" in lines
        assert sent == {source for name in ("scenewire", "simulator", "packages") for source in copied(name)}
        assert all((CHECKOUT / source).exists() for source in sent)

    def test_every_build_names_a_stage(self) -> None:
        built: list[dict[str, Any]] = [SERVICES[name]["build"] for name in sorted(OURS)]
        assert {build["target"] for build in built} == {"scenewire", "simulator"}
        assert all(stage(build["target"]) for build in built)
