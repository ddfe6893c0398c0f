"""A Kafka that hangs or is gone makes nobody unhealthy, for however long; when it is back, work goes on by itself."""

import asyncio
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from local.kafka import Kafka
from tests.connected.steps import request
from tests.flow.living import PERIODS, READERS, STALL, alive_for, asked, down, ready, until
from tests.flow.pushing import House, house, settings_for
from tests.flow.working import line_of, settings_of

pytestmark = [pytest.mark.chaos, pytest.mark.connected, pytest.mark.lengthy]


async def test_an_outage_is_no_stall(database_url: str, private_kafka: Kafka, namespace: str, tmp_path: Path) -> None:
    user, chapter = uuid4(), uuid4()
    # what is asked while Kafka is away is dispatched without its event
    periods = {**PERIODS, **READERS, "admit_after": 0.2}
    working = settings_of(database_url, private_kafka.servers, namespace, tmp_path / "media", **periods)
    pushing = settings_for(database_url, private_kafka.servers, namespace, tmp_path / "media", **PERIODS, **READERS)
    async with line_of(working) as line, house(pushing) as here:
        consumer = line.start().consumer.health
        await ready(consumer)
        for scene, strike in enumerate((private_kafka.pause, private_kafka.kill), start=1):
            strike()
            since = (await down(consumer, "kafka"))["since"]
            await _down(here)
            new = request(user=user, chapter=chapter, scene=scene)
            await line.ask(new)
            await asyncio.gather(alive_for(consumer, 3 * STALL), _alive_for(here.http, 3 * STALL))
            # what needs no Kafka has gone on
            await line.ended(new.record_id)
            assert (await down(consumer, "kafka"))["since"] == since
            private_kafka.resume()
            await asyncio.to_thread(private_kafka.start)
            await asyncio.gather(ready(consumer), until(lambda: _ready(here)))
        # and nothing is called a stall for having waited meanwhile
        await asyncio.gather(alive_for(consumer, 2 * STALL), _alive_for(here.http, 2 * STALL))
        last = request(user=user, chapter=chapter, scene=3)
        async with here.client(user) as client:
            await client.watch(chapter_id=chapter)
            await line.ask(last)
            await line.ended(last.record_id)
            while (await client.next("status"))["image"]["status"] != "completed":
                pass
        assert (await asked(consumer, "/healthz")).status_code == 200


async def _down(here: House) -> None:
    async def is_down() -> bool:
        told = (await here.http.get("/readyz")).json()["dependencies"]
        return bool(told["kafka"]["status"] == "down" and told["postgres"]["status"] == "up")

    await until(is_down)


async def _ready(here: House) -> bool:
    return (await here.http.get("/readyz")).status_code == 200


async def _alive_for(http: httpx.AsyncClient, seconds: float) -> None:
    async with asyncio.timeout(seconds + 10):
        until_then = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until_then:
            answer = await http.get("/healthz")
            assert answer.status_code == 200, answer.text
