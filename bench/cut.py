"""What clients see of a minute in which each of them is cut off for 2 s of every 10, here and with the usual pattern.

    .venv/bin/python bench/cut.py                                   # 200 clients, some three minutes
    .venv/bin/python bench/cut.py --clients 50 --seconds 20

A real notifier, and then Starlette's usual pattern (`bench/usual.py`), each fed from a real Kafka and cut by the same
dice at the TCP level, half of the times without a word until the line is back (`tests/chaos/cables.py`). All clients
watch one chapter, in which one record after another gets its next version; they come back at once with what they have
(`tests/chaos/pages.py`), as a browser's would.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from aiokafka import AIOKafkaProducer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cores import alone, announce, apart
from ground import SECRET, Ground, raise_open_files
from listeners import status_event, token_of
from push import SIDES

from messaging.names import real_topic
from schemas.topics import STATUS
from tests.chaos.cables import Cable
from tests.chaos.pages import Page, Place
from tests.chaos.storm import watching

RECORDS = 400
PATIENCE = 10.0


class Clients:
    """Of one server, with a cable for each."""

    def __init__(self, url: str, count: int, user: uuid.UUID, chapter: uuid.UUID) -> None:
        self.cables = [Cable([url]) for _ in range(count)]
        scope, token = {"chapter_id": str(chapter)}, token_of(user, SECRET)
        self.pages = [Page("socket", scope, token, self._way(cable)) for cable in self.cables]

    @staticmethod
    def _way(cable: Cable) -> Callable[[], Place]:
        return lambda: ("127.0.0.1", cable.port)

    async def cut(self, chance: random.Random, up: float, down: float) -> None:
        """Until cancelled; then all are whole."""
        try:
            await asyncio.gather(*(cable.wear(chance, up=up, down=down) for cable in self.cables))
        finally:
            for cable in self.cables:
                cable.mend()

    async def settled(self, last: dict[str, int]) -> int:
        """How many show the last version of each record, having had some time for it."""
        until = asyncio.get_running_loop().time() + PATIENCE

        def right(page: Page) -> bool:
            return all(page.seen.get(record, {}).get("version") == version for record, version in last.items())

        return sum(
            [
                await page.until(lambda page=page: right(page), max(0.0, until - asyncio.get_running_loop().time()))
                for page in self.pages
            ]
        )


async def measure(ground: Ground, side: str, asked: argparse.Namespace) -> dict[str, object]:
    user, chapter = uuid.uuid4(), uuid.uuid4()
    async with ground.site() as site, AsyncExitStack() as stack:
        server = site.process(side, SIDES[side])
        producer = AIOKafkaProducer(bootstrap_servers=site.kafka_servers, linger_ms=0, acks=1)
        stack.enter_context(alone(server))
        await producer.start()
        stack.push_async_callback(producer.stop)
        clients = Clients(server.http_url, asked.clients, user, chapter)
        for cable in clients.cables:
            await cable.open()
            stack.push_async_callback(cable.close)
        await stack.enter_async_context(watching(clients.pages))
        cutting = asyncio.create_task(clients.cut(random.Random(7), asked.up, asked.down))
        last: dict[str, int] = {}
        count, began = round(asked.rate * asked.seconds), time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / asked.rate - time.perf_counter()))
            record = str(uuid.UUID(int=1 + number % RECORDS))
            last[record] = 1 + number // RECORDS
            event = status_event(str(user), str(chapter), record, last[record])
            await producer.send(real_topic(site.kafka, STATUS), event, key=str(chapter).encode())
        cutting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await cutting
        right = await clients.settled(last)
        return {
            "seen": sum(page.news for page in clients.pages) / (count * asked.clients),
            "right": right,
            "backwards": sum(page.backwards for page in clients.pages),
            "cuts": sum(cable.cuts for cable in clients.cables),
            "resumed": dict(sum((page.resumed for page in clients.pages), Counter[str]())),
        }


async def run(ground: Ground, asked: argparse.Namespace) -> None:
    print("| | changes seen | final views that are right | versions that went back | cuts | came back |")
    print("| --- | --- | --- | --- | --- | --- |")
    for side in asked.sides:
        found = await measure(ground, side, asked)
        print(
            f"| {side} | {found['seen']:.1%} | {found['right']} of {asked.clients} | {found['backwards']} "
            f"| {found['cuts']} | {found['resumed']} |",
            flush=True,
        )


def main() -> None:
    asked = arguments()
    announce(asked)
    raise_open_files(5 * asked.clients)
    with apart() as servers:
        uvloop.run(run(servers, asked))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES), help="default: both")
    parser.add_argument("--clients", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=20.0, help="changes a second (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--up", type=float, default=8.0, help="seconds that a line is whole (default %(default)s)")
    parser.add_argument("--down", type=float, default=2.0, help="seconds that it is cut (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
