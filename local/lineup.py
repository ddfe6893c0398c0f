"""What is started on one machine, in which order, on which ports and with which environment."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from local.kafka import Kafka
from local.postgres import Postgres
from local.python import PythonServer, PythonStep
from local.readyfile import Process, ReadyFile
from local.server import Server
from local.state import Identity, State

MOST_CONSUMERS = 19
MOST_NOTIFIERS = 60

_HOST = "127.0.0.1"
# what runs on one machine stops within 10 s altogether: no drain of minutes here
SHORT_STOPS = {
    "SCENEWIRE_DRAIN": "4",
    "SCENEWIRE_PRODUCER_DRAIN": "1",
    "SCENEWIRE_RELAY_GRACE": "0.5",
    "SCENEWIRE_DRAIN_WINDOW": "0.2",
    "SCENEWIRE_STOP_TIMEOUT": "4.5",
}
# for one process alone, never for all
_STUDIO_TOKEN = "SCENEWIRE_STUDIO_TOKEN"  # noqa: S105 - a variable's name


@dataclass(frozen=True, slots=True)
class Options:
    """How many of which, on `base` and the ports above it."""

    base: int = 8700
    consumers: int = 1
    notifiers: int = 1


@dataclass(frozen=True, slots=True)
class Farewell:
    """Servers that are asked to stop together, and the seconds after which the next are asked in any case."""

    servers: Sequence[Server]
    seconds: float


@dataclass(frozen=True, slots=True)
class Lineup:
    """`foundations` come up side by side, then `steps` run to their end, then `processes` come up side by side.

    `ports` are those it listens on, each with its server's name.
    """

    foundations: Sequence[Server]
    steps: Sequence[Server]
    processes: Sequence[Server]
    farewells: Sequence[Farewell]
    ports: Mapping[int, str] = field(default_factory=dict)

    @property
    def servers(self) -> list[Server]:
        return [*self.foundations, *self.processes]


@dataclass(frozen=True, slots=True)
class Assembly:
    """A line-up and where clients find it."""

    lineup: Lineup
    api: str
    push_all: Sequence[str]
    simulator: str | None
    kafka: str
    database: str
    identity: Identity
    jwt_audience: str | None
    token: str

    def ready_file(self) -> ReadyFile:
        running = [server for server in self.lineup.servers if server.is_running]
        return ReadyFile(
            api=self.api,
            push=self.push_all[0],
            push_all=list(self.push_all),
            studio=self.push_all[0],
            simulator=self.simulator,
            kafka=self.kafka,
            database=self.database,
            jwt_secret=self.identity.jwt_secret,
            jwt_audience=self.jwt_audience,
            user_id=self.identity.user_id,
            chapter_id=self.identity.chapter_id,
            token=self.token,
            processes=[Process(name=server.name, pid=server.pid or 0, url=server.http_url) for server in running],
        )


def assemble(options: Options, state: State, environ: Mapping[str, str]) -> Assembly:
    """Everything that production runs, on this machine.

    `environ` is the caller's. Its MODELSLAB_API_KEY, SCENEWIRE_DATABASE_URL and SCENEWIRE_KAFKA_SERVERS stand for what
    is then not started here; every other SCENEWIRE_* and MODELSLAB_* of it reaches every process as it is.
    """
    base = options.base
    ports: dict[int, str] = {}
    foundations: list[Server] = []
    database = environ.get("SCENEWIRE_DATABASE_URL", "")
    servers = environ.get("SCENEWIRE_KAFKA_SERVERS", "")
    audience = environ.get("SCENEWIRE_JWT_AUDIENCE") or None
    identity = state.identity()
    if environ.get("SCENEWIRE_JWT_SECRET"):
        identity = dataclasses.replace(identity, jwt_secret=environ["SCENEWIRE_JWT_SECRET"])

    kafka: list[Server] = []
    if not servers:
        broker = Kafka(
            "kafka", state.log("kafka"), folder=state.folder / "kafka", port=base + 5, controller_port=base + 6
        )
        kafka, servers = [broker], broker.servers
        ports |= {base + 5: "kafka", base + 6: "kafka's controller"}
    postgres: list[Server] = []
    if not database:
        keeper = Postgres("postgres", state.log("postgres"), folder=state.folder / "postgres")
        postgres, database = [keeper], keeper.url()

    token = identity.token(audience=audience)
    env = _environment(options, state, environ, identity) | {
        "SCENEWIRE_DATABASE_URL": database,
        "SCENEWIRE_KAFKA_SERVERS": servers,
    }
    pages = [base + 1 if n == 1 else base + 30 + n for n in range(1, options.notifiers + 1)]
    simulator: list[PythonServer] = []
    if not environ.get("MODELSLAB_API_KEY"):
        slots = environ.get("SCENEWIRE_PROVIDER_SLOTS") or "5"
        journal = state.folder / "simulator" / "jobs"
        journal.parent.mkdir(parents=True, exist_ok=True)
        studios = [env["SCENEWIRE_PUSH_URL"], *(f"http://{_HOST}:{port}" for port in pages)]
        own = {
            "SCENEWIRE_SIMULATOR_JOURNAL": str(journal),
            "SCENEWIRE_SIMULATOR_SLOTS": slots,
            "SCENEWIRE_SIMULATOR_ALLOWED_ORIGINS": ",".join(dict.fromkeys(studios)),
        } | env
        simulator = [_python("simulator", "local.modelslab", base + 3, own, state, ready_path="/healthz")]
        env |= {"MODELSLAB_BASE_URL": simulator[0].http_url, "MODELSLAB_API_KEY": "local-simulator-key"}

    producer = _python("producer", "producer", base, env, state)
    relay = _python("relay", "producer.relay", base + 4, env, state)
    consumers = [
        _python(f"consumer-{n}", "consumer", base + 10 + n, env, state) for n in range(1, options.consumers + 1)
    ]
    page = env | {"SCENEWIRE_STUDIO_CHAPTER_ID": identity.chapter_id, _STUDIO_TOKEN: token}
    if simulator:
        page = {"SCENEWIRE_STUDIO_SIMULATOR_URL": simulator[0].http_url} | page
    notifiers = [_python(f"notifier-{n}", "notifier", port, page, state) for n, port in enumerate(pages, start=1)]
    foundations = [*kafka, *postgres, *simulator]
    ports |= {server.port: server.name for server in (*simulator, producer, relay, *consumers, *notifiers)}
    lineup = Lineup(
        foundations=foundations,
        steps=[
            PythonStep("migrate", state.log("migrate"), module="storage.migrate", environment=env),
            PythonStep("provision", state.log("provision"), module="messaging.provision", environment=env),
        ],
        processes=[producer, relay, *consumers, *notifiers],
        # 8.4 s at most, mostly two: what a stage leaves of its time goes to the next, and nobody is ended earlier
        farewells=[
            Farewell([producer], 1.2),
            Farewell(consumers, 4.0),
            Farewell([relay], 0.6),
            Farewell(notifiers, 0.6),
            Farewell(simulator, 0.3),
            Farewell(kafka, 1.0),
            Farewell(postgres, 0.7),
        ],
        ports=ports,
    )
    return Assembly(
        lineup=lineup,
        api=producer.http_url,
        push_all=[notifier.http_url for notifier in notifiers],
        simulator=simulator[0].http_url if simulator else None,
        kafka=servers,
        database=database,
        identity=identity,
        jwt_audience=audience,
        token=token,
    )


def _environment(options: Options, state: State, environ: Mapping[str, str], identity: Identity) -> dict[str, str]:
    """What the processes share. The caller's words win over these, ours over nothing."""
    ours = {
        "SCENEWIRE_MEDIA_URL": state.media.resolve().as_uri(),
        "SCENEWIRE_API_URL": f"http://{_HOST}:{options.base}",
        "SCENEWIRE_PUSH_URL": f"http://{_HOST}:{options.base + 1}",
        "SCENEWIRE_JWT_SECRET": identity.jwt_secret,
        **SHORT_STOPS,
    }
    theirs = {name: value for name, value in environ.items() if value and name != _STUDIO_TOKEN}
    return ours | theirs


def _python(
    name: str, module: str, port: int, environment: Mapping[str, str], state: State, *, ready_path: str = "/readyz"
) -> PythonServer:
    return PythonServer(name, state.log(name), module=module, port=port, environment=environment, ready_path=ready_path)
