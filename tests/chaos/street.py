"""A whole service of real processes, each of which can be killed, paused, stopped and started again on its data."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx

from local import ports
from local.kafka import Kafka
from local.postgres import Postgres
from local.python import PythonServer, PythonStep
from local.server import Server
from tests.chaos import audit
from tests.chaos.nursery import Nursery, NurseryServer, NurseryStep

SECRET = "0123456789abcdef0123456789abcdef"
SLOTS = 6
_START_SECONDS = 120.0
_MODULES = {"producer": "producer", "relay": "producer.relay", "consumer": "consumer", "notifier": "notifier"}

T = TypeVar("T")


class Street:
    """Kafka, Postgres, the provider's simulator, and two of each of our processes, by name: `consumer-1`, `kafka`.

    `periods` are environment variables of every process. What is started by hand (`add`) goes with the next `mend`.
    Our processes are started as anybody would start them, or by the `nursery`.
    """

    def __init__(
        self,
        folder: Path,
        periods: Mapping[str, str],
        *,
        slots: int = SLOTS,
        consumers: int = 2,
        durable: bool = False,
        webhooks: bool = False,
        nursery: Nursery | None = None,
    ) -> None:
        self.folder = folder
        self._nursery = nursery
        self.slots = slots
        #: calls to the simulator before it was last killed: it forgets them
        self.earlier_calls: list[dict[str, Any]] = []
        self.in_flight_max = 0
        # a child dies with the thread that started it: these threads live as long as the street
        self._hands = ThreadPoolExecutor(max_workers=16, thread_name_prefix="street")
        many = {"consumer": consumers}
        self._names = [f"{kind}-{number}" for kind in _MODULES for number in range(1, many.get(kind, 2) + 1)]
        free = iter(ports.free(len(self._names) + 3 + 8))
        self.kafka = Kafka(
            "kafka", self._log("kafka"), folder=folder / "kafka", port=next(free), controller_port=next(free)
        )
        self.postgres = Postgres("postgres", self._log("postgres"), folder=folder / "postgres", durable=durable)
        self.simulator = self._python(
            "simulator",
            "local.modelslab",
            next(free),
            {},
            ["--slots", "1000", "--prerender", "2", "--profile", "instant", "--journal", str(folder / "jobs")],
        )
        self._ports = {name: next(free) for name in self._names}
        self._spare_ports = list(free)
        self.environment = {
            "SCENEWIRE_DATABASE_URL": self.postgres.url(),
            "SCENEWIRE_KAFKA_SERVERS": self.kafka.servers,
            "SCENEWIRE_MEDIA_URL": (folder / "media").as_uri(),
            "SCENEWIRE_JWT_SECRET": SECRET,
            "SCENEWIRE_API_URL": f"http://127.0.0.1:{self._ports['producer-1']}",
            "SCENEWIRE_PUSH_URL": f"http://127.0.0.1:{self._ports['notifier-1']}",
            "SCENEWIRE_PROVIDER_SLOTS": str(slots),
            "MODELSLAB_API_KEY": "any",
            "MODELSLAB_BASE_URL": self.simulator.http_url,
            **periods,
        }
        if webhooks:
            self.environment["SCENEWIRE_PUBLIC_URL"] = self.environment["SCENEWIRE_API_URL"]
        self.servers: dict[str, Server] = {
            "kafka": self.kafka,
            "postgres": self.postgres,
            "simulator": self.simulator,
            **{name: self._ours(name, self._ports[name]) for name in self._names},
        }
        self._own = list(self.servers)

    def urls(self, kind: str) -> list[str]:
        """Where the processes of a kind serve, running or not."""
        return [self.servers[name].http_url or "" for name in self._names if name.startswith(kind)]

    def add(
        self, name: str, *, module: str | None = None, arguments: Sequence[str] = (), **environment: str
    ) -> PythonServer:
        """One more process, not started yet; `environment` by the names of the variables."""
        if name in self.servers:
            raise ValueError(f"there is a {name} already")
        server = self._ours(name, self._spare_ports.pop(), module=module, arguments=arguments, more=environment)
        self.servers[name] = server
        return server

    async def open(self) -> None:
        """Start everything, on empty data the first time."""
        (self.folder / "media").mkdir(parents=True, exist_ok=True)
        await asyncio.gather(self._prepare_kafka(), self._prepare_postgres(), self.start("simulator"))
        await self.start(*self._names)

    def close(self) -> None:
        """End everything."""
        for server in self.servers.values():
            server.resume()
            server.kill()
        self._hands.shutdown()

    async def mend(self) -> None:
        """As it was at first: what was added is gone, what was killed or paused runs."""
        for server in self.servers.values():
            await self.do(server.resume)
        # told to stop: a group waits for a member that was killed, and so would whoever comes next
        added = [self.servers.pop(name) for name in list(self.servers) if name not in self._own]
        await asyncio.gather(*(self.do(server.stop) for server in added))
        for server in added:
            assert isinstance(server, PythonServer)
            self._spare_ports.append(server.port)
        await self.start("kafka", "postgres", "simulator")
        await self.start(*self._names)

    async def start(self, *names: str) -> None:
        """Start these where they do not run, and wait until they are ready."""
        await asyncio.gather(*(self.do(self.servers[name].start, _START_SECONDS) for name in names))

    async def kill(self, *names: str) -> None:
        """SIGKILL, all at once; gone when this returns."""
        if "simulator" in names:
            await self.keep_calls()
        await asyncio.gather(*(self.do(self.servers[name].kill) for name in names))

    async def pause(self, *names: str) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        await asyncio.gather(*(self.do(self.servers[name].pause) for name in names))

    async def resume(self, *names: str) -> None:
        await asyncio.gather(*(self.do(self.servers[name].resume) for name in names))

    async def stop(self, name: str, within: float = 30.0) -> int | None:
        """SIGTERM, and its exit code; it must end by itself."""
        server = self.servers[name]
        server.ask_to_stop()
        assert await self.do(server.wait_stopped, within), f"{name} did not stop within {within:g} s"
        return server.exit_code

    async def retire(self, *names: str) -> None:
        """SIGTERM to all at once, waited for: others take their places, and no group waits for them."""
        await asyncio.gather(*(self.stop(name) for name in names))

    def is_stopped(self, name: str) -> bool:
        """Whether the process stands still under SIGSTOP."""
        pid = self.servers[name].pid
        return pid is not None and _state(pid) == "T"

    async def active_relay(self) -> str:
        """The name of the relay that works; waits for one."""
        async with httpx.AsyncClient(timeout=2.0) as client:
            for _ in range(600):
                for name in (name for name in self._names if name.startswith("relay")):
                    try:
                        shown = (await client.get(f"{self.servers[name].http_url}/metrics")).text
                    except httpx.HTTPError:
                        continue
                    if "scenewire_relay_active 1.0" in shown:
                        return name
                await asyncio.sleep(0.05)
        raise AssertionError("no relay works")

    async def sql(self, statements: str) -> str:
        """Statements by psql; rows as lines."""
        return await self.do(self.postgres.sql, statements, "scenewire")

    # the provider's own side

    async def script(self, *rules: dict[str, Any], **more: Any) -> None:
        """How the provider behaves from now on; without a rule it makes everything at once."""
        body = {"profile": "instant", "slots": 1000, "rules": rules, **more}
        async with self._asking() as client:
            answer = await client.put("/simulator/script", json=body)
            assert answer.status_code == 200, answer.text

    async def calls(self) -> list[dict[str, Any]]:
        """Every submit and fetch since `forget`."""
        await self.keep_calls(only_look=True)
        async with self._asking() as client:
            seen = (await client.get("/simulator/calls")).json()
        return [*self.earlier_calls, *seen["calls"]]

    async def jobs(self) -> list[dict[str, Any]]:
        """Every job the provider has made since `forget`; they outlive it."""
        async with self._asking() as client:
            found: list[dict[str, Any]] = (await client.get("/simulator/jobs")).json()["jobs"]
        return found

    async def keep_calls(self, *, only_look: bool = False) -> None:
        """Before the simulator is killed: what it was asked."""
        async with self._asking() as client:
            seen = (await client.get("/simulator/calls")).json()
        self.in_flight_max = max(self.in_flight_max, seen["counters"]["in_flight_max"])
        if not only_look:
            self.earlier_calls += seen["calls"]

    async def forget(self) -> None:
        """The provider forgets calls, jobs and script."""
        self.earlier_calls, self.in_flight_max = [], 0
        async with self._asking() as client:
            assert (await client.post("/simulator/reset")).status_code == 200

    async def do(self, call: Callable[..., T], *arguments: Any) -> T:
        """A blocking call, from a thread that outlives the test."""
        return await asyncio.get_running_loop().run_in_executor(self._hands, call, *arguments)

    async def _prepare_kafka(self) -> None:
        await self.start("kafka")
        await self._step("provision", "messaging.provision")

    async def _prepare_postgres(self) -> None:
        await self.start("postgres")
        await self._step("migrate", "storage.migrate")
        await self.sql(audit.MADE)

    async def _step(self, name: str, module: str) -> None:
        log, environment = self._log(name), self._plain(self.environment)
        step = (
            PythonStep(name, log, module=module, environment=environment)
            if self._nursery is None
            else NurseryStep(name, log, module=module, environment=environment, nursery=self._nursery)
        )
        await self.do(step.launch)
        assert await self.do(step.wait_stopped, _START_SECONDS)
        assert step.exit_code == 0, step.log.read_text()

    def _asking(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.simulator.http_url, timeout=30.0)

    def _ours(
        self,
        name: str,
        port: int,
        *,
        module: str | None = None,
        arguments: Sequence[str] = (),
        more: Mapping[str, str] | None = None,
    ) -> PythonServer:
        kind = name.partition("-")[0]
        return self._python(name, module or _MODULES[kind], port, {**self.environment, **(more or {})}, arguments)

    def _python(
        self, name: str, module: str, port: int, environment: Mapping[str, str], arguments: Sequence[str]
    ) -> PythonServer:
        log, plain = self._log(name), self._plain(environment)
        if self._nursery is None:
            return PythonServer(name, log, module=module, port=port, environment=plain, arguments=arguments)
        return NurseryServer(
            name, log, module=module, port=port, environment=plain, arguments=arguments, nursery=self._nursery
        )

    def _plain(self, environment: Mapping[str, str]) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], **environment}

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


def _state(pid: int) -> str:
    """One letter of /proc: R, S, T (stopped), Z."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
