"""Who has no socket: what an open stream and a held poll cost, and how many polls a second are told "nothing new".

    .venv/bin/python bench/polls.py                                        # three rounds, medians: some four minutes
    .venv/bin/python bench/polls.py --rounds 1 --streams 500 --held 500 --only streams held

A real notifier alone on core 0, beside a real Kafka and Postgres; clients and those on core 1. Streams and held polls
are of a chapter of each client's own; one more than a notifier holds must be told to come back. A plain poll names
what it has seen (`If-None-Match`) and is answered 304: of a scene whose picture is there, of one that is on its way, of
a record, of a whole chapter.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cores import alone, announce, apart
from ground import SECRET, Ground, Site, accept, connected, cpu_of, percentile, raise_open_files, rss_kb
from listeners import token_of

from local.python import PythonServer

PARTS = ["streams", "held", "plain"]
FIGURES = {
    "stream_rss": ("memory of an open stream", "KB", 35.0),
    "held_rss": ("memory of a held poll", "KB", 35.0),
    "ready_rate": ("304s a second, a scene whose picture is there", "/s", 2_000.0),
    "ready_cpu": ("the same: notifier's CPU", "us", None),
    "ready_p99": ("the same: p99", "ms", None),
    "waiting_rate": ("304s a second, a scene that is on its way", "/s", 2_000.0),
    "waiting_cpu": ("the same: notifier's CPU", "us", None),
    "waiting_p99": ("the same: p99", "ms", None),
    "record_rate": ("304s a second, a record", "/s", 2_000.0),
    "record_cpu": ("the same: notifier's CPU", "us", None),
    "record_p99": ("the same: p99", "ms", None),
    "chapter_rate": ("304s a second, a chapter of ten scenes", "/s", None),
    "chapter_cpu": ("the same: notifier's CPU", "us", None),
    "chapter_p99": ("the same: p99", "ms", None),
}


_WAITS = 2
_READY = f"""UPDATE image_generations SET status = 'completed', stage = 'done',
    image_url = 'https://pictures.example/1.png' WHERE scene_number <> {_WAITS}"""
_ONE_OF_EACH_CHAPTER = """SELECT user_id, chapter_id, scene_number, id FROM image_generations WHERE scene_number = $1
    ORDER BY chapter_id"""


class Line(asyncio.Protocol):
    """A client's keep-alive line, of which little is kept."""

    __slots__ = ("_answer", "_seen", "token", "transport")

    transport: asyncio.Transport

    def __init__(self, token: str) -> None:
        self.token = token
        self._seen = b""
        self._answer: asyncio.Future[str] | None = None

    def ask(self, path: str, *headers: str) -> "asyncio.Future[str]":
        """The answer, as text; of a stream its head."""
        lines = (f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {self.token}", *headers)
        self.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    def leave(self) -> None:
        self._answer = None
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            return
        self._seen += data
        head, ended, body = self._seen.partition(b"\r\n\r\n")
        _, sized, rest = head.lower().partition(b"content-length: ")
        if ended and (not sized or len(body) >= int(rest.partition(b"\r\n")[0])):
            answer, self._answer, seen, self._seen = self._answer, None, self._seen, b""
            answer.set_result(seen.decode())

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None:
            self._answer.set_exception(ConnectionError("the server closed the line"))


class Measurement:
    def __init__(self, site: Site, server: PythonServer, asked: argparse.Namespace) -> None:
        self._site = site
        self._server = server
        self._asked = asked
        self.found: dict[str, float] = {}

    async def run(self, part: str) -> dict[str, float]:
        for begin in (self._stream, self._hold):
            await self._close(await self._lines(100, begin))
        if part == "streams":
            await self._waiting("stream_rss", self._asked.streams, self._stream)
        elif part == "held":
            await self._waiting("held_rss", self._asked.held, self._hold)
        else:
            await self._plain()
        return self.found

    # what waits

    async def _waiting(self, name: str, count: int, begin: Callable[[Line], Awaitable[None]]) -> None:
        await asyncio.sleep(self._asked.quiet)
        before = rss_kb(self._server.pid)
        lines = await self._lines(count, begin)
        await asyncio.sleep(self._asked.quiet)
        self.found[name] = (rss_kb(self._server.pid) - before) / count
        try:
            await self._lines(1, begin)
        except ConnectionRefusedError as error:
            print(f"    one more: {error}", flush=True)
        else:
            print("    one more was taken", flush=True)
        await self._close(lines)

    async def _lines(self, count: int, begin: Callable[[Line], Awaitable[None]]) -> list[Line]:
        """So many, each of somebody else."""
        lines = [Line(token_of(uuid.uuid4(), SECRET)) for _ in range(count)]
        waiting = iter(lines)

        async def some() -> None:
            for line in waiting:
                await self._connect(line)
                await begin(line)

        await asyncio.gather(*(some() for _ in range(32)))
        return lines

    async def _connect(self, line: Line) -> None:
        await asyncio.get_running_loop().create_connection(lambda: line, "127.0.0.1", self._server.port)

    @staticmethod
    async def _close(lines: Sequence[Line]) -> None:
        for line in lines:
            line.leave()
        await asyncio.sleep(0.5)

    @staticmethod
    async def _stream(line: Line) -> None:
        head = await line.ask(f"/chapters/{uuid.uuid4()}/events")
        if " 200 " not in head[:20]:
            raise ConnectionRefusedError(_refusal(head))

    @staticmethod
    async def _hold(line: Line) -> None:
        path = f"/chapters/{uuid.uuid4()}/images"
        answer = await line.ask(path)
        cursor = json.loads(answer.partition("\r\n\r\n")[2])["cursor"]
        held = line.ask(f"{path}?cursor={quote(cursor)}", "Prefer: wait=60")
        # those that are refused are refused at once
        done, _ = await asyncio.wait({held}, timeout=0.05)
        if done:
            raise ConnectionRefusedError(_refusal(held.result()))

    # who asks again and again

    async def _plain(self) -> None:
        async with self._site.database() as database:
            await accept(database, 10 * self._asked.lines, users=1)
        async with connected(self._site) as connection:
            await connection.execute(_READY)
            ready = await connection.fetch(_ONE_OF_EACH_CHAPTER, 1)
            waiting = await connection.fetch(_ONE_OF_EACH_CHAPTER, _WAITS)
        scene = "/chapters/{chapter_id}/images/scenes/{scene_number}/status"
        for name, path, rows in (
            ("ready", scene, ready),
            ("waiting", scene, waiting),
            ("record", "/images/{id}", ready),
            ("chapter", "/chapters/{chapter_id}/images", ready),
        ):
            token = token_of(rows[0]["user_id"], SECRET)
            await self._again_and_again(name, token, [path.format(**row) for row in rows])

    async def _again_and_again(self, name: str, token: str, paths: Sequence[str]) -> None:
        lines = [Line(token) for _ in paths]
        took: list[float] = []
        stop = 0.0

        async def one_after_another(line: Line, path: str) -> None:
            answer = await line.ask(path)
            (etag,) = [one[6:] for one in answer.split("\r\n") if one.startswith("etag: ")]
            again = f"If-None-Match: {etag}"
            while (began := time.perf_counter()) < stop:
                answer = await line.ask(path, again)
                took.append(time.perf_counter() - began)
                if not answer.startswith("HTTP/1.1 304"):
                    sys.exit(f"{path}: {answer[:300]}")

        for line in lines:
            await self._connect(line)
        for seconds in (1.0, self._asked.seconds):
            took.clear()
            stop, cpu = time.perf_counter() + seconds, cpu_of(self._server)[0]
            await asyncio.gather(*(one_after_another(*each) for each in zip(lines, paths, strict=True)))
        self.found[f"{name}_rate"] = len(took) / self._asked.seconds
        self.found[f"{name}_cpu"] = (cpu_of(self._server)[0] - cpu) / len(took) * 1e6
        self.found[f"{name}_p99"] = percentile(took, 0.99) * 1000
        await self._close(lines)


def _refusal(answer: str) -> str:
    told = [line for line in answer.split("\r\n") if line.lower().startswith(("http/", "retry-after"))]
    return ", ".join(told)


async def measured(ground: Ground, asked: argparse.Namespace, part: str) -> dict[str, float]:
    """By a notifier of its own: what another part leaves would be taken for less memory."""
    async with ground.site() as site:
        server = site.process("notifier", "notifier")
        with alone(server):
            return await Measurement(site, server, asked).run(part)


async def rounds(ground: Ground, asked: argparse.Namespace) -> dict[str, list[float]]:
    results: dict[str, list[float]] = {}
    for number in range(asked.rounds):
        print(f"round {number + 1} of {asked.rounds} (load {os.getloadavg()[0]:.1f})", flush=True)
        for part in asked.only:
            for name, value in (await measured(ground, asked, part)).items():
                results.setdefault(name, []).append(value)
                words, unit, _ = FIGURES[name]
                print(f"    {words:62} {value:9.1f} {unit}", flush=True)
    return results


def main() -> None:
    asked = arguments()
    announce(asked)
    raise_open_files(2 * max(asked.streams, asked.held))
    with apart() as servers:
        results = uvloop.run(rounds(servers, asked))
    print("\n| what | measured | aim |\n| --- | --- | --- |")
    for name, (words, unit, aim) in FIGURES.items():
        if values := results.get(name):
            spread = f"{statistics.median(values):.4g} {unit} ({min(values):.4g} to {max(values):.4g})"
            print(f"| {words} | {spread} | {f'{aim:g} {unit}' if aim else ''} |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are printed (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="default: all of them")
    parser.add_argument("--streams", type=int, default=2_000, help="open streams (default %(default)s: all it takes)")
    parser.add_argument("--held", type=int, default=5_000, help="held polls (default %(default)s: all it takes)")
    parser.add_argument("--lines", type=int, default=16, help="lines that poll, each its own (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each kind of plain poll (default %(default)s)")
    parser.add_argument("--quiet", type=float, default=2.0, help="seconds before memory is read (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
