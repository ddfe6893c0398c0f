"""A whole notifier on real Kafka and Postgres, for the tests that look at it from outside."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from messaging.lookout import Lookout
from messaging.provision import provision
from messaging.sender import Outgoing, Sender, SendFailed
from notifier.app import Notifier, build
from notifier.settings import Settings
from schemas.frames import BEARER_SUBPROTOCOL_PREFIX, SUBPROTOCOL
from schemas.requests import SceneImageRequest
from schemas.topics import BY_NAME, STATUS
from schemas.words import Tier
from storage.accepting import Acceptor, NewRequest
from storage.database import Database
from storage.fragments import tell_status
from web import serving

SECRET = "0123456789abcdef0123456789abcdef"
PATIENCE = 30.0
"""Seconds for what comes at once on a machine that is free; nothing is measured by it."""


def token_for(user: UUID | str, *, expires_in: float = 600, at: float | None = None, **claims: Any) -> str:
    """`expires_in` counts from `at`, or from now."""
    expires_at = (time.time() if at is None else at) + expires_in
    return jwt.encode({"sub": str(user), "exp": expires_at, **claims}, SECRET, algorithm="HS256")


class StoppedClock:
    """For a notifier's `clock`: what is left of a token when it comes is then the same however late it comes."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def subprotocol_of(token: str) -> str:
    return BEARER_SUBPROTOCOL_PREFIX + base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


class Client:
    """One socket: frames as dicts."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def next(self, *kinds: str, within: float = PATIENCE) -> dict[str, Any]:
        """The next frame; of these kinds, when any are named (others are passed over)."""
        async with asyncio.timeout(within):
            while True:
                frame: dict[str, Any] = json.loads(await self.socket.recv())
                if not kinds or frame["type"] in kinds:
                    return frame

    async def pong(self) -> list[dict[str, Any]]:
        """All frames up to the answer to a ping sent now: what is not among them was not sent before it."""
        await self.send(type="ping")
        frames: list[dict[str, Any]] = []
        while (frame := await self.next())["type"] != "pong":
            frames.append(frame)
        return _but_pings(frames)

    async def watch(self, **scope: Any) -> dict[str, Any]:
        """Subscribe; its snapshot."""
        scope = {name: str(value) if isinstance(value, UUID) else value for name, value in scope.items()}
        await self.send(type="subscribe", **{"id": "s", **scope})
        return await self.next("snapshot")

    async def closed(self, within: float = PATIENCE) -> tuple[int, list[dict[str, Any]]]:
        """The close code, and the frames before it."""
        frames: list[dict[str, Any]] = []
        async with asyncio.timeout(within):
            try:
                while True:
                    frames.append(json.loads(await self.socket.recv()))
            except ConnectionClosed as end:
                return (end.rcvd.code if end.rcvd else 1006), _but_pings(frames)


def _but_pings(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The server's own come with time alone."""
    return [frame for frame in frames if frame["type"] != "ping"]


class House:
    """The running notifier, and what the rest of the system would do to it."""

    def __init__(self, notifier: Notifier, settings: Settings, url: str, stop: asyncio.Event) -> None:
        self.notifier = notifier
        self.settings = settings
        self.url = url
        self.stop = stop
        self.database = Database(settings, application="test")
        self.sender = Sender(settings)
        self.http = httpx.AsyncClient(base_url=url, timeout=PATIENCE)
        self._acceptor = Acceptor(self.database, deadline=3600)

    async def accept(self, user: UUID, chapter: UUID, scene: int = 1) -> UUID:
        """A request on record, its status told to Kafka."""
        body = SceneImageRequest(scene_description="a long table under a tree")
        request = NewRequest(uuid4(), user, chapter, scene, body, Tier.STANDARD)
        accepted = await self._acceptor.accept(request)
        await self.relay()
        return accepted.record_id

    async def statements(self) -> int:
        """How many this process has run."""
        text = (await self.http.get("/metrics")).text
        (line,) = [line for line in text.splitlines() if 'database_seconds_count{kind="statement"}' in line]
        return int(float(line.split()[-1]))

    async def change(self, record_id: UUID, *, relay: bool = True, **columns: Any) -> None:
        """One more version of a record, with these columns, told to Kafka unless `relay` is false."""
        given = ", ".join(f"{name} = ${number}" for number, name in enumerate(columns, start=2))
        await self.database.fetch(
            f"""WITH changed AS (
                UPDATE image_generations SET version = version + 1, updated_at = now(), {given}
                WHERE id = $1 RETURNING *
            ) {tell_status("test", "changed")}""",
            record_id,
            *columns.values(),
        )
        if relay:
            await self.relay()

    async def complete(self, record_id: UUID, url: str = "http://pictures.test/a.png") -> None:
        await self.change(record_id, status="completed", stage="done", progress=100, image_url=url)

    async def relay(self) -> None:
        """What waits in the outbox, to Kafka; again while that is only just up."""
        rows = await self.database.fetch("DELETE FROM outbox RETURNING id, topic, key, body")
        told = [Outgoing(row.topic, row.key, bytes(row.body)) for row in sorted(rows) if row.topic == STATUS]
        async with asyncio.timeout(PATIENCE):
            while told:
                with contextlib.suppress(SendFailed):
                    await self.sender.send(told)
                    return

    async def caught_up(self) -> None:
        """The notifier has read all that Kafka has now."""
        lookout = Lookout(self.settings)
        try:
            ends = (await lookout.ends([STATUS], committed=False))[STATUS]
        finally:
            await lookout.close()
        assert await self.notifier.memory.reached(ends, PATIENCE)

    async def say(self, key: UUID, body: bytes) -> None:
        """Any bytes, on the topic of status events."""
        await self.sender.send([Outgoing(STATUS, str(key), body)])

    def bearer(self, user: UUID, **claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {token_for(user, **claims)}"}

    @asynccontextmanager
    async def socket(
        self, token: str | None, *, protocols: list[str] | None = None, **more: Any
    ) -> AsyncIterator[Client]:
        offered = [SUBPROTOCOL] if protocols is None else protocols
        if token is not None:
            offered = [*offered, subprotocol_of(token)]
        url = self.url.replace("http", "ws", 1) + "/ws"
        # pinged by the server alone: a client that asks as well would leave by itself where it is kept from reading
        quiet: dict[str, Any] = {"compression": None, "ping_interval": None, "open_timeout": PATIENCE, **more}
        async with connect(url, subprotocols=offered or None, **quiet) as socket:  # type: ignore[arg-type]
            yield Client(socket)

    @asynccontextmanager
    async def client(self, user: UUID, **more: Any) -> AsyncIterator[Client]:
        """A socket of a user, welcomed."""
        async with self.socket(token_for(user), **more) as client:
            assert (await client.next())["type"] == "welcome"
            yield client

    async def close(self) -> None:
        await self.http.aclose()
        await self.sender.discard()
        await self.database.close()


def settings_for(database_url: str, kafka_servers: str, namespace: str, media: Path, **changes: Any) -> Settings:
    given = {
        "database_url": database_url,
        "kafka_servers": kafka_servers,
        "namespace": namespace,
        "media_url": f"file://{media}",
        "jwt_secret": SECRET,
        **changes,
    }
    return Settings.model_validate(given)


@asynccontextmanager
async def house(settings: Settings, **given: Any) -> AsyncIterator[House]:
    """A notifier that follows the log already; `given` are keyword arguments of its `build`."""
    await provision(settings, topics=[BY_NAME[STATUS]])
    notifier = build(settings, **given)
    stop, started = asyncio.Event(), asyncio.Event()
    bound = serving.bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    serving_it = asyncio.create_task(
        serving.serve(
            notifier,
            bound,
            stop,
            grace=1.0,
            ws=notifier.sockets,
            started=started.set,
        )
    )
    built = House(notifier, settings, url, stop)
    try:
        async with asyncio.timeout(2 * PATIENCE):
            await started.wait()
            await notifier.events.started.wait()
        yield built
    finally:
        stop.set()
        await built.close()
        async with asyncio.timeout(2 * PATIENCE):
            await serving_it


class Builder:
    """`house` on one test's Kafka and Postgres; `given` are keyword arguments of the notifier's `build`, `changes`
    settings."""

    def __init__(self, database_url: str, kafka_servers: str, namespace: str, media: Path) -> None:
        self._settings_for = partial(settings_for, database_url, kafka_servers, namespace, media)

    @asynccontextmanager
    async def __call__(self, given: Mapping[str, Any] | None = None, /, **changes: Any) -> AsyncIterator[House]:
        async with house(self._settings_for(**changes), **given or {}) as running:
            yield running
