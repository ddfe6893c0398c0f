"""What `python -m local` would start: names, ports, environment; the state that outlives a run; the ready file."""

import hashlib
import json
import socket
import stat
import uuid
from pathlib import Path

import jwt
import pytest
from pydantic_settings import BaseSettings

from consumer.settings import ConsumerSettings
from local import jars, ports, readyfile
from local.console import Console, Follower
from local.lineup import SHORT_STOPS, Assembly, Options, assemble
from local.postgres import Postgres
from local.python import PythonServer, PythonStep
from local.server import Server
from local.state import State, StateInUse
from notifier.settings import Settings as NotifierSettings
from producer.relay_settings import RelaySettings
from producer.settings import ProducerSettings


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


def environment(assembly: Assembly, name: str) -> dict[str, str]:
    servers: list[Server] = [*assembly.lineup.servers, *assembly.lineup.steps]
    server = next(server for server in servers if server.name == name)
    assert isinstance(server, PythonServer | PythonStep)
    return dict(server.environment)


def test_starts_what_production_runs(state: State) -> None:
    assembly = assemble(Options(consumers=2, notifiers=2), state, {})
    assert [server.name for server in assembly.lineup.servers] == [
        *("kafka", "postgres", "simulator", "producer", "relay", "consumer-1", "consumer-2", "notifier-1", "notifier-2")
    ]
    assert assembly.api == "http://127.0.0.1:8700"
    assert assembly.push_all == ["http://127.0.0.1:8701", "http://127.0.0.1:8732"]
    assert assembly.simulator == "http://127.0.0.1:8703"
    assert assembly.kafka == "127.0.0.1:8705"
    assert len(assembly.lineup.ports) == 9


def test_all_that_starts_is_stopped_in_order_within_ten_seconds(state: State) -> None:
    lineup = assemble(Options(consumers=2, notifiers=2), state, {}).lineup
    order = [server.name for farewell in lineup.farewells for server in farewell.servers]
    assert order == [
        *("producer", "consumer-1", "consumer-2", "relay", "notifier-1", "notifier-2", "simulator", "kafka", "postgres")
    ]
    assert sorted(order) == sorted(server.name for server in lineup.servers)
    assert sum(farewell.seconds for farewell in lineup.farewells) <= 9.0 + 1e-9


def test_the_most_of_everything_has_ports_of_its_own(state: State) -> None:
    lineup = assemble(Options(consumers=19, notifiers=60), state, {}).lineup
    assert len(lineup.ports) == 2 + 3 + 19 + 60


def test_own_kafka_postgres_and_provider_are_used(state: State) -> None:
    given = {
        "MODELSLAB_API_KEY": "a-real-key",
        "SCENEWIRE_DATABASE_URL": "postgresql://db.example/scenewire",
        "SCENEWIRE_KAFKA_SERVERS": "kafka-1.example:9092,kafka-2.example:9092",
    }
    assembly = assemble(Options(), state, given)
    assert assembly.lineup.foundations == []
    assert assembly.simulator is None
    assert assembly.kafka == given["SCENEWIRE_KAFKA_SERVERS"]
    consumer = environment(assembly, "consumer-1")
    assert {name: consumer[name] for name in given} == given
    assert "MODELSLAB_BASE_URL" not in consumer


def test_the_callers_words_reach_every_process(state: State) -> None:
    given = {"SCENEWIRE_PROVIDER_SLOTS": "9", "MODELSLAB_EXTRA": "kept", "SCENEWIRE_DRAIN": "77"}
    assembly = assemble(Options(), state, given)
    for name in ("simulator", "producer", "relay", "consumer-1", "notifier-1", "migrate", "provision"):
        assert environment(assembly, name).items() >= given.items()
    assert environment(assembly, "simulator")["SCENEWIRE_SIMULATOR_SLOTS"] == "9"


def test_only_the_notifiers_hold_the_studio_token(state: State) -> None:
    assembly = assemble(Options(), state, {"SCENEWIRE_STUDIO_TOKEN": "of-another-run"})
    assert environment(assembly, "notifier-1")["SCENEWIRE_STUDIO_TOKEN"] == assembly.token
    assert "SCENEWIRE_STUDIO_TOKEN" not in environment(assembly, "consumer-1")


def test_the_studio_has_the_simulators_panel_only_where_it_runs(state: State) -> None:
    assembly = assemble(Options(base=9100, notifiers=2), state, {"SCENEWIRE_PUSH_URL": "http://studio.example"})
    assert environment(assembly, "notifier-2")["SCENEWIRE_STUDIO_SIMULATOR_URL"] == "http://127.0.0.1:9103"
    origins = environment(assembly, "simulator")["SCENEWIRE_SIMULATOR_ALLOWED_ORIGINS"].split(",")
    assert origins == ["http://studio.example", "http://127.0.0.1:9101", "http://127.0.0.1:9132"]
    real = assemble(Options(), state, {"MODELSLAB_API_KEY": "a-real-key"})
    assert "SCENEWIRE_STUDIO_SIMULATOR_URL" not in environment(real, "notifier-1")


def test_identity_outlives_a_run_and_its_token_is_good_for_30_days(state: State) -> None:
    first, second = state.identity(), State(state.folder).identity()
    assert first == second
    uuid.UUID(first.user_id)
    uuid.UUID(first.chapter_id)
    claims = jwt.decode(first.token(audience="people"), first.jwt_secret, algorithms=["HS256"], audience="people")
    assert claims["sub"] == first.user_id
    assert claims["exp"] - claims["iat"] == 30 * 24 * 3600


def test_the_callers_secret_signs_the_token(state: State) -> None:
    secret = "a secret of the caller, 32 bytes or more"
    assembly = assemble(Options(), state, {"SCENEWIRE_JWT_SECRET": secret})
    assert jwt.decode(assembly.token, secret, algorithms=["HS256"])["sub"] == assembly.identity.user_id
    assert assembly.ready_file().jwt_secret == secret


def test_a_second_supervisor_gets_one_line(state: State) -> None:
    state.open()
    with pytest.raises(StateInUse, match=r"^[^\n]+ is in use by another `python -m local`[^\n]+$"):
        State(state.folder).open()
    state.close()
    state.open()
    state.close()


def test_the_ready_file_is_whole_private_and_readable(state: State, tmp_path: Path) -> None:
    file = tmp_path / "somewhere" / "ready.json"
    assemble(Options(), state, {}).ready_file().write(file)
    written = json.loads(file.read_text())
    assert list(written) == [
        *("api", "push", "push_all", "studio", "simulator", "kafka", "database", "jwt_secret", "jwt_audience"),
        *("user_id", "chapter_id", "token", "processes"),
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert readyfile.read(file).user_id == written["user_id"]
    assert [path.name for path in file.parent.iterdir()] == ["ready.json"]
    readyfile.remove(file)
    readyfile.remove(file)


def test_the_short_stops_are_settings_that_exist() -> None:
    settings = (ProducerSettings, RelaySettings, ConsumerSettings, NotifierSettings)
    known = {name for one in settings for name in one.model_fields}
    assert {name.removeprefix("SCENEWIRE_").lower() for name in SHORT_STOPS} <= known


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("producer", ProducerSettings),
        ("relay", RelaySettings),
        ("consumer-1", ConsumerSettings),
        ("notifier-1", NotifierSettings),
    ],
)
def test_every_process_takes_what_it_is_started_with(
    state: State, monkeypatch: pytest.MonkeyPatch, name: str, settings: type[BaseSettings]
) -> None:
    for variable, value in environment(assemble(Options(), state, {}), name).items():
        monkeypatch.setenv(variable, value)
    settings()


def test_a_long_state_path_moves_the_socket(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 5)
    server = Postgres("postgres", deep / "log", folder=deep)
    assert len(str(server.socket_folder / ".s.PGSQL.5432")) <= 100
    assert server.socket_folder == Postgres("again", deep / "log", folder=deep).socket_folder


def test_a_url_survives_blanks_in_the_path(tmp_path: Path) -> None:
    server = Postgres("postgres", tmp_path / "log", folder=Path("/srv/my state"))
    assert server.url() == "postgresql://scenewire@/scenewire?host=/srv/my%20state/run"


def test_taken_ports_are_seen() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert ports.taken([port]) == [port]
    assert ports.taken([port]) == []


def test_committed_sums_name_each_jar_once() -> None:
    sums = jars.committed_sums()
    assert len(sums) == len(jars.SUMS.read_text().splitlines()) == 45
    assert all(len(digest) == hashlib.sha256().digest_size * 2 for digest in sums.values())
    assert any(name.startswith("kafka_2.13-4.4.0") for name in sums)


def test_the_fetched_jars_are_the_committed_ones() -> None:
    for name, digest in jars.committed_sums().items():
        assert hashlib.sha256((jars.FOLDER / name).read_bytes()).hexdigest() == digest


class Lines(Console):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def _write(self, words: str) -> None:
        self.lines.append(words)


def test_only_what_deserves_attention_is_echoed(tmp_path: Path) -> None:
    log, console = tmp_path / "a.log", Lines()
    follower = Follower("consumer-1", log)
    follower.follow(console, "warnings")
    log.write_text(
        '{"level": "info", "event": "started"}\n'
        '{"level": "warning", "event": "slow", "seconds": 3, "timestamp": "2026-01-01T00:00:00Z"}\n'
        "Traceback (most recent call last):\n"
        "half a li"
    )
    follower.follow(console, "warnings")
    assert [line.split(maxsplit=2)[2] for line in console.lines] == [
        "slow  seconds=3",
        "Traceback (most recent call last):",
    ]
    with log.open("a") as file:
        file.write("ne\n")
    follower.follow(console, "all")
    assert console.lines[-1].endswith("half a line")


def test_what_postgres_tells_each_of_its_clients_is_echoed_once(tmp_path: Path) -> None:
    log, console = tmp_path / "postgres.log", Lines()
    log.write_text(
        "2026-11-23 15:42:48.860 UTC [14195] scenewire-relay FATAL:  terminating connection\n"
        "2026-11-23 15:42:48.872 UTC [14192] [unknown] FATAL:  terminating connection\n"
        "2026-11-23 15:42:48.875 UTC [14049]  LOG:  shutting down\n"
    )
    Follower("postgres", log).follow(console, "warnings")
    assert [line.split(maxsplit=2)[2] for line in console.lines] == ["FATAL:  terminating connection"]
