"""Postgres is away for long, with submits open and callers at the door.

What was learned meanwhile is written first, nothing is paid twice, and every caller is told to come again.
"""

import asyncio
import time
from pathlib import Path
from typing import Literal
from uuid import UUID, uuid4

import httpx
import pytest

from local.postgres import Postgres
from tests.connected.steps import request
from tests.flow import accepting
from tests.flow.living import PERIODS, STALL, alive_for, asked, down, ready
from tests.flow.pushing import House, house, settings_for
from tests.flow.working import Held, line_of, processing, settings_of, success

pytestmark = [pytest.mark.chaos, pytest.mark.connected]

PATIENCE = 60.0
Fate = Literal["killed", "stopped"]


def _strike(postgres: Postgres, fate: Fate) -> None:
    if fate == "killed":
        postgres.kill()
    else:
        postgres.pause()


async def _mend(postgres: Postgres) -> None:
    postgres.resume()
    await asyncio.to_thread(postgres.start)


@pytest.mark.parametrize("fate", ["killed", pytest.param("stopped", marks=pytest.mark.lengthy)])
async def test_what_was_learned_meanwhile_is_written_first_and_nothing_is_sent_again(
    private_postgres: Postgres, kafka_servers: str, namespace: str, tmp_path: Path, fate: Fate
) -> None:
    """Two consumers, away for far longer than a worker lives: neither may take the other's silence for death (W3)."""
    settings = settings_of(
        private_postgres.url(),
        kafka_servers,
        namespace,
        tmp_path / "media",
        admit_after=0.001,
        database_timeout=1.0,
        **PERIODS,
    )
    async with line_of(settings, topics=False) as line:
        consumers = [line.start(), line.start()]
        answers = [Held(success("j1")), Held(processing("j2")), Held(processing("j3"))]
        line.provider.scripted(*answers)
        records = [await line.ask(request(scene=scene)) for scene in (1, 2, 3)]
        for answer in answers:
            await answer.asked.wait()
        _strike(private_postgres, fate)
        for answer in answers:
            answer.go.set()
        # until after their lives and what others would wait before they call a submit uncertain
        away = settings.worker_life + settings.uncertain_after + 2 * STALL
        for running in consumers:
            await down(running.consumer.health, "postgres")
        await asyncio.gather(*(alive_for(running.consumer.health, away) for running in consumers))
        await _mend(private_postgres)
        for record_id in records:
            row = await line.ended(record_id, within=PATIENCE)
            assert (row.attempt, row.retry_count) == (1, 0)
            assert await line.outcomes(record_id) == ["success"]
        assert len(line.provider.submits) == len(records)
        await line.steps.check()
        for running in consumers:
            await ready(running.consumer.health)
            assert (await asked(running.consumer.health, "/healthz")).status_code == 200


@pytest.mark.parametrize("fate", ["killed", pytest.param("stopped", marks=pytest.mark.lengthy)])
async def test_every_route_answers_come_again_and_then_as_before(
    private_postgres: Postgres, kafka_servers: str, namespace: str, tmp_path: Path, fate: Fate
) -> None:
    user, chapter = uuid4(), uuid4()
    url = private_postgres.url()
    push = settings_for(url, kafka_servers, namespace, tmp_path, database_timeout=0.5)
    api = accepting.settings_of(url, accept_timeout=1.0, database_timeout=0.5)
    async with house(push) as here, accepting.client_of(api) as producer:
        record = await here.accept(user, chapter)
        await here.complete(record)
        waiting = await here.accept(user, chapter, scene=2)
        paths = [
            f"/chapters/{chapter}/images/scenes/1/status",
            f"/chapters/{chapter}/images",
            f"/images/{record}",
            f"/images/{record}/file",
        ]
        headers = here.bearer(user)
        before = [(await here.http.get(path, headers=headers)).status_code for path in paths]
        assert all(status < 500 for status in before)
        # one is held while Postgres goes: its time ends before Postgres is back
        held = asyncio.create_task(
            here.http.get(f"/images/{waiting}", headers=headers | {"Prefer": "wait=2"}, timeout=PATIENCE)
        )
        while b"scenewire_long_polls 1.0" not in (await here.http.get("/metrics")).content:
            pass
        _strike(private_postgres, fate)
        for path in paths:
            _come_again(await here.http.get(path, headers=headers, timeout=PATIENCE))
            _come_again(await here.http.get(path, headers=headers | {"Prefer": "wait=30"}, timeout=PATIENCE))
        _come_again(await held)
        _come_again(await _post(producer, user, scene=3))
        await _socket_is_sent_away(here, user, chapter)
        began = time.monotonic()
        assert (await here.http.get("/healthz")).status_code == 200
        assert time.monotonic() - began < 1
        for client in (here.http, producer):
            assert (await client.get("/readyz")).json()["dependencies"]["postgres"]["status"] == "down"

        await _mend(private_postgres)
        # the very first of each
        assert [(await here.http.get(path, headers=headers)).status_code for path in paths] == before
        assert (await _post(producer, user, scene=3)).status_code == 202
        async with here.client(user) as client:
            assert len((await client.watch(chapter_id=chapter))["images"]) == 2


def _come_again(answer: httpx.Response) -> None:
    accepting.problem_of(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def _post(producer: httpx.AsyncClient, user: UUID, scene: int) -> httpx.Response:
    return await producer.post(accepting.path_of(scene), json=accepting.BODY, headers=accepting.bearer(user))


async def _socket_is_sent_away(here: House, user: UUID, chapter: UUID) -> None:
    async with here.client(user) as client:
        await client.send(type="subscribe", id="s", chapter_id=str(chapter))
        code, frames = await client.closed()
    assert code == 4503
    assert frames[-1]["retry_after_ms"] > 0
