"""`queue_position` and `eta_seconds` as people read them, and how near they come to what happens."""

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from schemas.statuses import ImageStatus
from storage import workers
from tests.connected.steps import Steps, asked, request
from tests.flow.pushing import PATIENCE, House
from tests.flow.working import Call, line_of, settings_of, success

pytestmark = [pytest.mark.flow, pytest.mark.connected]


async def read(here: House, user: UUID, path: str, **headers: str) -> tuple[dict[str, Any], str]:
    """The body and the entity tag."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await here.http.get(path, headers={**here.bearer(user), **named})
    assert answer.status_code == 200
    return answer.json(), answer.headers["etag"]


async def test_who_waits_is_told_where_it_stands_and_under_the_same_tag(here: House) -> None:
    steps, user, chapter = Steps(here.database), uuid4(), uuid4()
    await workers.provide_slots(here.database, 2)
    worker = await steps.worker()
    scenes = [request(user, chapter=chapter, scene=scene) for scene in range(1, 5)]
    others = [request() for _ in range(3)]
    await steps.admit(*(asked(new) for new in scenes), *(asked(new) for new in others))
    # everybody's first scene comes before this user's second
    retried, made = await steps.claim(worker)
    assert [retried.record_id, made.record_id] == [scenes[0].record_id, others[0].record_id]
    for claimed in (retried, made):
        await steps.mark(claimed)
    began = time.monotonic()
    await steps.retry(retried, delay=30)
    await steps.generated(made)
    await steps.stored(made)
    await steps.sql(
        "UPDATE generation_attempts SET claimed_at = now() - interval '40 s', sent_at = now() - interval '40 s',"
        " generated_at = now() - interval '4 s', closed_at = now()"
    )
    listed, _ = await read(here, user, f"/chapters/{chapter}/images")
    late = time.monotonic() - began
    told = [(image["queue_position"], image["eta_seconds"]) for image in listed["images"]]
    # its retry is due in 30 seconds; two others stand before its other scenes, and two slots are free
    assert told[1:] == [(3, 76), (4, 76), (5, 112)]
    assert told[0][0] is None
    assert 68 - late <= told[0][1] <= 70
    # one alone, and its scene
    first = scenes[1]
    for path in (f"/images/{first.record_id}", f"/chapters/{chapter}/images/scenes/{first.scene_number}/status"):
        body, etag = await read(here, user, path)
        assert ImageStatus.model_validate(body).queue_position == 3
        assert etag.startswith("W/")
        known = await here.http.get(path, headers={**here.bearer(user), "If-None-Match": etag})
        assert known.status_code == 304
    # a snapshot on the socket says the same, and a change says nothing of it
    async with here.client(user) as client:
        snapshot = await client.watch(record_id=first.record_id)
        assert snapshot["images"][0]["queue_position"] == 3
        await here.change(first.record_id, progress=1)
        frame = await client.next("status")
        assert (frame["image"]["queue_position"], frame["image"]["eta_seconds"]) == (None, None)
    # the tag is the version's: where it stands is not part of it
    before = await read(here, user, f"/images/{scenes[3].record_id}")
    await steps.claim(worker)
    async with asyncio.timeout(PATIENCE):
        while (after := await read(here, user, f"/images/{scenes[3].record_id}"))[0]["queue_position"] == 5:
            continue
    assert (before[0]["queue_position"], after[0]["queue_position"]) == (5, 3)
    assert before[1] == after[1] == f'W/"{scenes[3].record_id}.1"'


async def test_one_that_is_being_made_says_how_long_yet_under_a_weak_tag(here: House) -> None:
    steps, user = Steps(here.database), uuid4()
    await workers.provide_slots(here.database, 2)
    worker, began = await steps.worker(), time.monotonic()
    claimed = await steps.sent(worker, request(user))
    await steps.named(claimed)
    body, etag = await read(here, user, f"/images/{claimed.record_id}")
    assert (body["stage"], body["queue_position"]) == ("generating", None)
    # the provider said 4 seconds
    assert 3 - (time.monotonic() - began) <= body["eta_seconds"] <= 4
    assert etag == f'W/"{claimed.record_id}.{body["version"]}"'
    await steps.generated(claimed)
    await steps.stored(claimed)
    body, etag = await read(here, user, f"/images/{claimed.record_id}")
    assert (body["queue_position"], body["eta_seconds"]) == (None, None)
    assert etag == f'"{claimed.record_id}.{body["version"]}"'


async def test_what_is_estimated_is_near_to_what_happens(
    here: House, database_url: str, kafka_servers: str, namespace: str, tmp_path: Path
) -> None:
    """Within a factor of two and a second: an estimate is a whole second, and this machine is not alone. Where it stood
    still, that much less is asked of it."""
    stood = 0.0

    async def look_at_the_clock() -> None:
        nonlocal stood
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.05)
            stood += max(0.0, time.monotonic() - before - 0.1)

    async def takes_a_while(call: Call) -> dict[str, Any]:
        await asyncio.sleep(0.6)
        return success(f"made-{call.number}")

    user, chapter = uuid4(), uuid4()
    scenes = [request(user, chapter=chapter, scene=scene) for scene in range(1, 22)]
    looking = asyncio.create_task(look_at_the_clock())
    async with line_of(settings_of(database_url, kafka_servers, namespace, tmp_path / "media")) as line:
        line.provider.scripted(*[takes_a_while] * 30)
        line.start()
        # so that it is known what a picture takes
        for record_id in [await line.ask() for _ in range(6)]:
            await line.ended(record_id)
        await asyncio.gather(*(line.ask(new) for new in scenes))

        async def all_stand() -> bool:
            (row,) = await line.steps.sql("SELECT count(*) AS missing FROM image_generations WHERE turn IS NULL")
            return bool(row.missing == 0)

        await line.until(all_stand)
        (clock,) = await line.steps.sql("SELECT clock_timestamp() AS now")
        listed, _ = await read(here, user, f"/chapters/{chapter}/images")
        estimates = {
            UUID(image["record_id"]): image["eta_seconds"]
            for image in listed["images"]
            if image["status"] not in ("completed", "failed")
        }
        assert len(estimates) > 12
        assert None not in estimates.values()
        for record_id, estimate in estimates.items():
            row = await line.ended(record_id)
            truth = (row.completed_at - clock.now).total_seconds()
            told = (estimate, truth, stood, row.scene_number)
            assert (truth - stood) / 2 - 1 <= estimate <= (2 * truth + 1) * (1 + stood), told
    looking.cancel()
