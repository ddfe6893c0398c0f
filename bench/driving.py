"""What measurements share: the service started and stopped, its processes' CPU, a lean client, a browser's view."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools
import jwt
from websockets.asyncio.client import connect

ROOT = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")


class Http:
    """One keep-alive HTTP/1.1 connection, lean enough not to be what is measured."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes, token: str) -> int:
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        self._writer.write(
            b"POST %b HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b"
            % (path.encode(), self._parts.netloc.encode(), token.encode(), len(body), body)
        )
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        while not answer.complete:
            data = await self._reader.read(65536)
            if not data:
                raise ConnectionError("the producer closed the connection")
            parser.feed_data(data)
        return parser.get_status_code()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Answer:
    complete = False

    def on_message_complete(self) -> None:
        self.complete = True


@contextmanager
def service(extra: dict[str, str], ports: int) -> Iterator[dict[str, Any]]:
    """Everything, by `python -m local`; gives its ready file."""
    with tempfile.TemporaryDirectory(prefix="scenewire-bench-") as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", "local", "--state", folder, "--ports", str(ports), "--ready-file", str(ready)]
        environment = {**os.environ, **extra}
        with open(Path(folder) / "supervisor.log", "wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while not ready.exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                if process.returncode is not None or time.monotonic() > deadline:
                    sys.exit((Path(folder) / "supervisor.log").read_text()[-2000:])
            yield json.loads(ready.read_text())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@contextmanager
def paused(ready: dict[str, Any], names: tuple[str, ...]) -> Iterator[None]:
    """Stop these processes for a while, so that they take no CPU."""
    pids = [p["pid"] for p in ready["processes"] if p["name"].startswith(names)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def cpu_seconds(ready: dict[str, Any]) -> dict[str, float]:
    """CPU of each process so far; Postgres with all of its backends."""
    return cpu_of_trees({p["name"]: p["pid"] for p in ready["processes"]})


def cpu_of_trees(pids: Mapping[str, int]) -> dict[str, float]:
    """User and system time so far of each of these processes, with all of its descendants."""
    children: dict[int, list[int]] = {}
    times: dict[int, float] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
                # with the time of children that have ended
                times[int(entry)] = sum(int(fields[i]) for i in (11, 12, 13, 14)) / TICK

    def total(pid: int) -> float:
        return times.get(pid, 0.0) + sum(total(child) for child in children.get(pid, []))

    return {name: total(pid) for name, pid in pids.items()}


def somebody(ready: dict[str, Any]) -> dict[str, Any]:
    """The same service, asked by a user who has no pictures yet: a snapshot of thousands is not what is measured."""
    claims = {"sub": str(uuid.uuid4()), "exp": int(time.time()) + 3600}
    if ready["jwt_audience"]:
        claims["aud"] = ready["jwt_audience"]
    return {**ready, "token": jwt.encode(claims, ready["jwt_secret"], algorithm="HS256")}


@asynccontextmanager
async def completions(ready: dict[str, Any]) -> AsyncIterator[dict[str, float]]:
    """Record id -> wall-clock time of its completed frame, as a browser subscribed to `mine` sees it."""
    done: dict[str, float] = {}
    bearer = base64.urlsafe_b64encode(ready["token"].encode()).rstrip(b"=").decode()
    url = ready["push"].replace("http", "ws", 1) + "/ws"
    protocols = ["scenewire.v1+json", f"base64url.bearer.scenewire.{bearer}"]
    async with connect(url, subprotocols=protocols, max_size=None, compression=None) as socket:  # type: ignore[arg-type]
        await socket.send(json.dumps({"type": "subscribe", "id": "bench", "mine": True}))
        while json.loads(await socket.recv())["type"] != "snapshot":
            pass

        async def listen() -> None:
            async for frame in socket:
                now = time.time()
                text = frame if isinstance(frame, str) else frame.decode()
                if '"completed"' in text and text.startswith('{"type":"status"'):
                    done[json.loads(text)["image"]["record_id"]] = now
                elif text.startswith('{"type":"ping"'):
                    await socket.send('{"type":"ping"}')

        listener = asyncio.create_task(listen())
        try:
            yield done
        finally:
            listener.cancel()


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.005)
    return True
