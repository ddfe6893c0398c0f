"""The push side on one core, beside Starlette's usual pattern (`bench/usual.py`) in the same run.

    .venv/bin/python bench/push.py                                       # three rounds, medians
    .venv/bin/python bench/push.py --rounds 1 --idle 1000 --crowd 500    # short

A real Kafka and a real Postgres on a folder of their own. The server under measurement has core 0, clients, producer
and Postgres core 1; Kafka has both, for beside the clients it would be what is measured. It runs by Java's defaults,
without what makes a start quick, and is warm. CPU is the server's alone, user and system, by the kernel's count. When
an event was appended Kafka itself says, to the millisecond.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from append_times import append_times
from bare_send import bare_send
from cores import alone, announce, apart
from ground import SECRET, Ground, Site, cpu_of, percentile, raise_open_files, rss_kb
from listeners import Crowd, status_event, token_of
from push_figures import FIGURES, show

from local.python import PythonServer
from local.server import Server
from messaging.names import real_topic
from schemas.topics import BY_NAME, STATUS

_TICK = 0.001
_WARM = 2.0
"""Seconds of each side's own, once Kafka is warm."""
_FRAME_BYTES = 1_150
"""Of an event as it is sent here."""
_MOST_TOGETHER = 500
"""Events in one batch, after a moment in which this process had no core."""
PARTS = ["idle", "targeted", "fan"]
SIDES = {"scenewire": "notifier", "usual": "bench.usual"}


class Measurement:
    """One server under load."""

    def __init__(
        self, site: Site, kafka: Server, server: PythonServer, asked: argparse.Namespace, producer: AIOKafkaProducer
    ) -> None:
        self._kafka = kafka
        self._asked = asked
        self._server = server
        self._producer = producer
        self._topic = real_topic(site.kafka, STATUS)
        self._partitions = BY_NAME[STATUS].partitions
        self._versions = 0
        # what a batch was stamped with -> when Kafka appended it, both in ns of the performance counter
        self._appended: dict[int, int] = {}
        self._sending: dict[int, asyncio.Future[RecordMetadata]] = {}
        self.found: dict[str, float] = {}

    def _cpu(self) -> float:
        return cpu_of(self._server)[0]

    def _beside(self) -> tuple[float, float]:
        """CPU seconds so far of what shares the other core: Kafka, and this process."""
        return cpu_of(self._kafka)[0], time.process_time()

    async def run(self) -> dict[str, float]:
        await self.warm(_WARM)
        users = [uuid.uuid4() for _ in range(self._asked.idle)]
        if "idle" in self._asked.only or "targeted" in self._asked.only:
            cursors = await self._idle(users)
            crowd = await self._come_back(users, cursors)
            if "targeted" in self._asked.only:
                await self._targeted(crowd, users, self._asked.low, "low")
                await self._targeted(crowd, users, self._asked.high, "targeted")
            await crowd.close()
        if "fan" in self._asked.only:
            await self._fan()
        return self.found

    async def warm(self, seconds: float) -> None:
        """Reach each place once, and go on for so long: Java compiles what is done often, and is slow until then."""
        crowd, users = Crowd(), [uuid.uuid4() for _ in range(100)]
        await crowd.connect(self._server.port, [token_of(user, SECRET) for user in users])
        await crowd.subscribe([str(user) for user in users])
        for _ in range(20):
            await self._send_all(crowd, [(str(user), str(user)) for user in users])
        for rate in (self._asked.high, self._asked.low):
            await self._steadily(crowd, users, rate, seconds / 2)
        await crowd.close()

    async def _send_all(self, crowd: Crowd, targets: Sequence[tuple[str, str]], each: int = 1) -> None:
        """One event to each of these (user, chapter), and wait until all are there."""
        arrived = crowd.expect(len(targets) * each)
        for user, chapter in targets:
            await self._publish(user, chapter)
        await self._all_there(crowd, arrived)

    @staticmethod
    async def _all_there(crowd: Crowd, arrived: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(60):
                await arrived.wait()
        except TimeoutError:
            sys.exit(f"{crowd.statuses} statuses came, and no more; {crowd.lost} sockets were closed: {crowd.why}")

    async def _publish(self, user: str, chapter: str, words: str = "") -> None:
        self._versions += 1
        event = status_event(user, chapter, str(uuid.UUID(int=self._versions)), 1, words)
        await self._producer.send(self._topic, event, partition=self._versions % self._partitions)

    async def _publish_together(self, users: Sequence[uuid.UUID], count: int) -> None:
        """Events to so many of these, in one batch, as a relay sends what it finds: an event at a time, the producer
        and Kafka would need more of their core than there is. All of a user's go to one partition."""
        partition = random.randrange(self._partitions)
        batch = self._producer.create_batch()
        stamp = time.perf_counter_ns()
        for user in map(str, random.choices(users[partition :: self._partitions], k=count)):
            self._versions += 1
            event = status_event(user, user, user, self._versions, f"@{stamp}@")
            if batch.append(key=None, value=event, timestamp=None) is None:
                sys.exit("the batch is full: a rate that this machine does not reach")
        batch.close()
        self._sending[stamp] = await self._producer.send_batch(batch, self._topic, partition=partition)
        self._sending[stamp].add_done_callback(lambda sent: self._note_append(stamp, sent.result().timestamp))

    def _note_append(self, stamp: int, milliseconds: int) -> None:
        """By Kafka's own clock, which is ours: the middle of the millisecond that it names."""
        del self._sending[stamp]
        before = time.time_ns() - milliseconds * 1_000_000 - 500_000
        self._appended[stamp] = time.perf_counter_ns() - before

    async def _idle(self, users: Sequence[uuid.UUID]) -> list[str | None]:
        """Many who wait; gives the cursors they leave with."""
        tokens = [token_of(user, SECRET) for user in users]
        crowd, pid = Crowd(), self._server.pid
        await asyncio.sleep(1)
        before, cpu = rss_kb(pid), self._cpu()
        await crowd.connect(self._server.port, tokens)
        await asyncio.sleep(self._asked.quiet)
        self.found["connect"] = (self._cpu() - cpu) / len(users) * 1e6
        self.found["idle_rss"] = (rss_kb(pid) - before) / len(users)
        cpu = self._cpu()
        snapshots = await crowd.subscribe([str(user) for user in users])
        await asyncio.sleep(self._asked.quiet)
        self.found["subscribe"] = (self._cpu() - cpu) / len(users) * 1e6
        self.found["subscribed_rss"] = (rss_kb(pid) - before) / len(users)
        cursors = {snapshot["chapter_id"]: snapshot.get("cursor") for snapshot in snapshots}
        await crowd.close()
        return [cursors[str(user)] for user in users]

    async def _come_back(self, users: Sequence[uuid.UUID], cursors: Sequence[str | None]) -> Crowd:
        """The same, with new tokens."""
        tokens = [token_of(user, SECRET, number) for number, user in enumerate(users)]
        crowd, cpu = Crowd(), self._cpu()
        await crowd.connect(self._server.port, tokens)
        snapshots = await crowd.subscribe([str(user) for user in users], cursors)
        self.found["resume"] = (self._cpu() - cpu) / len(users) * 1e6
        resumed = Counter(snapshot.get("resumed") for snapshot in snapshots)
        if resumed.keys() not in ({None}, {"memory"}):
            print(f"    resumed: {dict(resumed)}", flush=True)
        return crowd

    async def _targeted(self, crowd: Crowd, users: Sequence[uuid.UUID], rate: int, name: str) -> None:
        """Events at a steady rate, each to one of the crowd."""
        count = round(rate * self._asked.seconds)
        print(f"    {count} targeted events, {rate} a second", flush=True)
        crowd.arrivals = []
        cpu, beside = self._cpu(), self._beside()
        took = await self._steadily(crowd, users, rate, self._asked.seconds)
        if took > 1.1 * count / rate:
            print(f"    {name}: {count / took:.0f} a second were reached, {rate} asked for", flush=True)
        self.found[f"{name}_cpu"] = (self._cpu() - cpu) / count * 1e6
        now = self._beside()
        spent = " and ".join(
            f"{who} {(after - before) / took * 100:.0f} %"
            for who, after, before in zip(("Kafka", "clients and producer"), now, beside, strict=True)
        )
        print(f"    beside: {spent} of a core", flush=True)
        # a frame may be there before its producer knows that Kafka has the event
        await asyncio.gather(*self._sending.values())
        arrivals, crowd.arrivals = crowd.arrivals, None
        since_sent = [at - stamp for stamp, at in arrivals]
        since_append = [at - self._appended[stamp] for stamp, at in arrivals]
        self.found[f"{name}_sent_p50"] = percentile(since_sent, 0.5) / 1e6
        for share in (50, 99):
            self.found[f"{name}_p{share}"] = percentile(since_append, share / 100) / 1e6

    async def _steadily(self, crowd: Crowd, users: Sequence[uuid.UUID], rate: int, seconds: float) -> float:
        """Events to one of the crowd each, at this rate; seconds until the last was there."""
        arrived, count = crowd.expect(round(rate * seconds)), round(rate * seconds)
        began, sent = time.perf_counter(), 0
        while sent < count:
            due = min(count, sent + _MOST_TOGETHER, int((time.perf_counter() - began) * rate) + 1)
            if due > sent:
                await self._publish_together(users, due - sent)
            sent = due
            await asyncio.sleep(max(_TICK, began + sent / rate - time.perf_counter()))
        await self._all_there(crowd, arrived)
        return crowd.last_at - began

    async def _fan(self) -> None:
        crowd, user, size = Crowd(), uuid.uuid4(), self._asked.crowd
        await crowd.connect(self._server.port, [token_of(user, SECRET)] * size)
        await crowd.subscribe([str(user)] * size)
        target = (str(user), str(user))
        for _ in range(5):
            await self._send_all(crowd, [target], size)
        last, cpu = [], self._cpu()
        for _ in range(self._asked.fans):
            began = time.perf_counter()
            await self._send_all(crowd, [target], size)
            last.append((crowd.last_at - began) * 1000)
        self.found["fan_cpu"] = (self._cpu() - cpu) / (self._asked.fans * size) * 1e6
        self.found["fan_last"] = statistics.median(last)
        await asyncio.sleep(1)
        rates, cpu = [], self._cpu()
        for _ in range(self._asked.bursts):
            await self._send_all(crowd, [target] * 60, size)
            rates.append(60 * size / (crowd.last_at - crowd.first_at) / 1000)
        self.found["burst_rate"] = statistics.median(rates)
        self.found["burst_cpu"] = (self._cpu() - cpu) / (self._asked.bursts * 60 * size) * 1e6
        if crowd.lost:
            print(f"    {crowd.lost} sockets were lost", flush=True)
        await crowd.close()


@asynccontextmanager
async def measured(ground: Ground, side: str, asked: argparse.Namespace) -> AsyncIterator[Measurement]:
    async with ground.site() as site:
        server = site.process(side, SIDES[side])
        await append_times(site)
        producer = AIOKafkaProducer(bootstrap_servers=site.kafka_servers, linger_ms=0, acks=1, max_batch_size=900_000)
        with alone(server):
            await producer.start()
            try:
                yield Measurement(site, ground.kafka, server, asked, producer)
            finally:
                await producer.stop()


async def rounds(ground: Ground, asked: argparse.Namespace) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """What was found, by side and figure, and what a bare `send` cost after each round."""
    sends: list[float] = []
    results: dict[str, dict[str, list[float]]] = {side: {} for side in asked.sides}
    print("warming Kafka up", flush=True)
    for side in asked.sides:
        # each asks in a way of its own, which Java has to know
        async with measured(ground, side, asked) as measurement:
            await measurement.warm(asked.warm)
    for number in range(asked.rounds):
        for side in asked.sides:
            print(f"round {number + 1} of {asked.rounds}: {side} (load {os.getloadavg()[0]:.1f})", flush=True)
            async with measured(ground, side, asked) as measurement:
                for name, value in (await measurement.run()).items():
                    results[side].setdefault(name, []).append(value)
                    print(f"    {FIGURES[name].words:62} {value:9.2f} {FIGURES[name].unit}", flush=True)
        sends.append(bare_send(asked.crowd // 2, _FRAME_BYTES))
    return results, sends


def main() -> None:
    asked = arguments()
    announce(asked)
    allowed = raise_open_files(2 * asked.idle)
    asked.idle, asked.crowd = min(asked.idle, allowed - 500), min(asked.crowd, allowed - 500)
    with apart(kafka=False) as servers:
        results, sends = uvloop.run(rounds(servers, asked))
    show(results)
    print(
        f"\na bare `send` of one such frame: {statistics.median(sends):.1f} us ({min(sends):.1f} to {max(sends):.1f})"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are printed (default %(default)s)")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES), help="default: both")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="default: all of them")
    parser.add_argument("--idle", type=int, default=10_000, help="idle sockets (default %(default)s)")
    parser.add_argument("--crowd", type=int, default=4_000, help="sockets of one chapter (default %(default)s)")
    parser.add_argument("--fans", type=int, default=40, help="events to the crowd, one by one (default %(default)s)")
    parser.add_argument("--bursts", type=int, default=3, help="bursts to the crowd (default %(default)s)")
    parser.add_argument("--low", type=int, default=1_000, help="targeted events a second (default %(default)s)")
    parser.add_argument("--high", type=int, default=5_000, help="targeted events a second (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each rate (default %(default)s)")
    parser.add_argument(
        "--warm", type=float, default=30.0, help="seconds to warm Kafka up by each side (default %(default)s)"
    )
    parser.add_argument("--quiet", type=float, default=2.0, help="seconds before memory is read (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
