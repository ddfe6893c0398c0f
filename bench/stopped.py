"""One client that stops reading beside hundreds that go on: how soon it is gone, what it costs, and who else waits.

    .venv/bin/python bench/stopped.py                       # three rounds, medians: some six minutes
    .venv/bin/python bench/stopped.py --rounds 1 --live 200

A real notifier alone on core 0, beside a real Kafka and Postgres; clients, producer and those on core 1. Each round has
four parts of the same length: a flood and quiet news, each with a stopped client and without (the control). In a flood
the stopped one watches what the others do, and who is gone is followed by the next, so that there always is one. While
it is quiet it watches a chapter in which nothing happens: only the pings tell. What the kernel keeps for it is read
from `/proc/net/tcp`, which says when the notifier has closed it too.
"""

import argparse
import asyncio
import os
import socket
import statistics
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import uvloop
from aiokafka import AIOKafkaProducer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cores import alone, announce, apart
from ground import SECRET, Ground, percentile, raise_open_files, rss_kb
from listeners import Crowd, Listener, status_event, token_of

from local.python import PythonServer
from messaging.names import real_topic
from schemas.topics import BY_NAME, STATUS

LOOK = 0.1
LONGEST = 60.0
WORDS = {
    "flood_gone": "flood: the stopped one is gone after, longest",
    "flood_kernel": "flood: most bytes that the kernel kept for it",
    "flood_grown": "flood: the notifier's memory grew meanwhile by",
    "control_grown": "flood: and in the control by",
    "flood_control": "flood: p99 of the live ones, control",
    "flood_p99": "flood: p99 of the live ones beside a stopped one",
    "flood_ratio": "flood: ratio",
    "quiet_gone": "quiet: the stopped one is gone after",
    "quiet_control": "quiet: p99 of the live ones, control",
    "quiet_p99": "quiet: p99 of the live ones beside a stopped one",
    "quiet_ratio": "quiet: ratio",
}
UNITS = {"gone": "s", "kernel": "KB", "grown": "KB", "control": "ms", "p99": "ms", "ratio": ""}
AIMS = {"flood_gone": 5.0, "quiet_gone": 25.0, "flood_kernel": 512.0, "flood_ratio": 1.5, "quiet_ratio": 1.5}


class Stopped:
    """A client that is welcomed, subscribes, and then takes nothing more."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._raw = socket.socket()
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._raw.setblocking(False)
        self.kernel = 0.0

    async def until_gone(self, user: uuid.UUID, chapter: str) -> float:
        """Seconds from its stop until the notifier has closed the line."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._raw, ("127.0.0.1", self._port))
        listener = Listener(Crowd(), token_of(user, SECRET))
        await loop.create_connection(lambda: listener, sock=self._raw)
        try:
            await listener.welcomed
            answered = listener.next_frame()
            listener.send({"type": "subscribe", "id": "s", "chapter_id": chapter})
            await answered
            own_port = self._raw.getsockname()[1]
            listener.transport.pause_reading()
            stopped_at = time.perf_counter()
            while (kept := _kept_for(self._port, own_port)) is not None:
                self.kernel = max(self.kernel, kept / 1024)
                await asyncio.sleep(LOOK)
                if time.perf_counter() - stopped_at > LONGEST:
                    sys.exit(f"the stopped client is there after {LONGEST:g} s")
            return time.perf_counter() - stopped_at
        finally:
            listener.transport.abort()


def _kept_for(port: int, of: int) -> int | None:
    """Bytes in the kernel of the server's end of a line; None when no process holds that end any more."""
    here, there = f"0100007F:{port:04X}", f"0100007F:{of:04X}"
    with open("/proc/net/tcp") as table:
        for line in table:
            if here in line and there in line:
                fields = line.split()
                if fields[1] == here and fields[9] != "0":
                    return int(fields[4].partition(":")[0], 16)
    return None


class Measurement:
    """One notifier with its live clients."""

    def __init__(self, server: PythonServer, producer: AIOKafkaProducer, topic: str, asked: argparse.Namespace) -> None:
        self._server = server
        self._producer = producer
        self._topic = topic
        self._asked = asked
        self._number = 0
        self._user, self._chapter = uuid.uuid4(), str(uuid.uuid4())
        self._crowd = Crowd()
        self.found: dict[str, float] = {}

    async def run(self, *, control_first: bool) -> dict[str, float]:
        await self._crowd.connect(self._server.port, [token_of(self._user, SECRET)] * self._asked.live)
        await self._crowd.subscribe([self._chapter] * self._asked.live)
        await self._news(self._asked.flood, self._asked.bytes, 3.0)
        for name, rate, size in (("flood", self._asked.flood, self._asked.bytes), ("quiet", self._asked.quiet, 0)):
            for control in (True, False) if control_first else (False, True):
                await asyncio.sleep(1)
                await (self._control if control else self._beside)(name, rate, size)
            self.found[f"{name}_ratio"] = self.found[f"{name}_p99"] / self.found[f"{name}_control"]
        if self._crowd.lost:
            sys.exit(f"{self._crowd.lost} live clients were closed: {self._crowd.why}")
        await self._crowd.close()
        return self.found

    async def _control(self, name: str, rate: float, size: int) -> None:
        before = rss_kb(self._server.pid)
        self.found[f"{name}_control"] = await self._news(rate, size, self._asked.seconds)
        if name == "flood":
            self.found["control_grown"] = rss_kb(self._server.pid) - before

    async def _beside(self, name: str, rate: float, size: int) -> None:
        before = rss_kb(self._server.pid)
        watched = self._chapter if name == "flood" else str(uuid.uuid4())
        gone: list[float] = []
        kernel: list[float] = []

        async def one_after_another() -> None:
            while True:
                stopped = Stopped(self._server.port)
                gone.append(await stopped.until_gone(self._user, watched))
                kernel.append(stopped.kernel)

        stopping = asyncio.create_task(one_after_another())
        self.found[f"{name}_p99"] = await self._news(rate, size, self._asked.seconds)
        if name == "flood":
            self.found["flood_grown"] = rss_kb(self._server.pid) - before
        while not gone:
            await asyncio.wait({stopping}, timeout=0.5)
            if stopping.done():
                stopping.result()
        stopping.cancel()
        with suppress(asyncio.CancelledError):
            await stopping
        self.found[f"{name}_gone"] = max(gone)
        if name == "flood":
            self.found["flood_kernel"] = max(kernel)

    async def _news(self, rate: float, size: int, seconds: float) -> float:
        """Events at a steady rate to all that are live; the p99 of what they take from here to each, in ms."""
        count = round(rate * seconds)
        self._crowd.arrivals = []
        arrived = self._crowd.expect(count * self._asked.live)
        began = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            self._number += 1
            words = f"@{time.perf_counter_ns()}@" + size * "x"
            record = str(uuid.UUID(int=self._number))
            event = status_event(str(self._user), self._chapter, record, 1, words)
            await self._producer.send(self._topic, event, partition=self._number % BY_NAME[STATUS].partitions)
        async with asyncio.timeout(60):
            await arrived.wait()
        arrivals, self._crowd.arrivals = self._crowd.arrivals, None
        return percentile([at - stamp for stamp, at in arrivals], 0.99) / 1e6


async def measured(ground: Ground, asked: argparse.Namespace, *, control_first: bool) -> dict[str, float]:
    async with ground.site() as site:
        server = site.process("notifier", "notifier")
        producer = AIOKafkaProducer(bootstrap_servers=site.kafka_servers, linger_ms=0, acks=1)
        with alone(server):
            await producer.start()
            try:
                measurement = Measurement(server, producer, real_topic(site.kafka, STATUS), asked)
                return await measurement.run(control_first=control_first)
            finally:
                await producer.stop()


async def rounds(ground: Ground, asked: argparse.Namespace) -> dict[str, list[float]]:
    results: dict[str, list[float]] = {}
    for number in range(asked.rounds):
        print(f"round {number + 1} of {asked.rounds} (load {os.getloadavg()[0]:.1f})", flush=True)
        for name, value in (await measured(ground, asked, control_first=number % 2 == 0)).items():
            results.setdefault(name, []).append(value)
            print(f"    {WORDS[name]:62} {value:9.2f} {UNITS[name.partition('_')[2]]}", flush=True)
    return results


def main() -> None:
    asked = arguments()
    announce(asked)
    raise_open_files(4 * asked.live)
    with apart() as servers:
        results = uvloop.run(rounds(servers, asked))
    print("\n| what | measured | aim |\n| --- | --- | --- |")
    for name, words in WORDS.items():
        values, unit = results[name], UNITS[name.partition("_")[2]]
        aim = f"{AIMS[name]:g} {unit}".strip() if name in AIMS else ""
        print(f"| {words} | {statistics.median(values):.3g} {unit} ({min(values):.3g} to {max(values):.3g}) | {aim} |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are printed (default %(default)s)")
    parser.add_argument("--live", type=int, default=500, help="clients that read (default %(default)s)")
    parser.add_argument("--flood", type=float, default=30.0, help="events a second in the flood (default %(default)s)")
    parser.add_argument(
        "--bytes", type=int, default=3_000, help="by which each of these is larger (default %(default)s)"
    )
    parser.add_argument("--quiet", type=float, default=10.0, help="events a second else (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=24.0, help="of each part (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
