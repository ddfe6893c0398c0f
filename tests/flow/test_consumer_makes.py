"""From an event to a stored picture, through the whole consumer: each picture asked for once."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from schemas import topics
from schemas.errors import ErrorClass
from schemas.requests import SceneImageRequest
from schemas.words import Lane, Tier
from tests.connected.steps import request
from tests.flow.working import PNG, Line, error, line_of, processing, settings_of, success

pytestmark = [pytest.mark.flow, pytest.mark.connected]


@pytest.fixture
async def line(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Line]:
    async with line_of(settings_of(database_url, kafka_servers, namespace, tmp_path / "media")) as line:
        line.start()
        yield line


async def test_a_request_becomes_a_stored_picture(line: Line, tmp_path: Path) -> None:
    record_id = await line.ask(request(text="A mad tea party", tier=Tier.PREMIUM))
    row = await line.ended(record_id)
    assert (len(line.provider.submits), line.provider.fetches) == (1, [])
    (call,) = line.provider.submits
    (attempt,) = await line.steps.attempts(record_id)
    assert (call.track_id, call.model) == (str(attempt.id), "seedream-4.5")
    assert call.prompt == attempt.prompt
    assert "A mad tea party" in call.prompt
    assert (tmp_path / "media" / row.image_key).read_bytes() == PNG
    assert row.image_url.startswith(f"https://push.scenewire.test/images/{record_id}/file/")
    (fact,) = await line.events(topics.COMPLETED, 1)
    assert (fact["data"]["cost"], fact["data"]["picture"]["width"]) == (0.06, 16)
    assert fact["data"]["version"] == row.version
    told = [event["data"]["version"] for event in await line.events(topics.STATUS, row.version)]
    assert told == list(range(1, row.version + 1))
    # the key is nowhere
    (leak,) = await line.steps.sql(
        "SELECT count(*) AS found FROM generation_attempts a WHERE to_json(a)::text LIKE '%the-key%'"
    )
    assert leak.found == 0


async def test_a_job_is_followed_until_it_is_done_and_never_asked_for_again(line: Line) -> None:
    line.provider.scripted(
        processing("j1", eta=0.3), fetches=(processing("j1"), processing("j1"), success("j1", proxy_links=["x"]))
    )
    record_id = await line.ask()
    row = await line.ended(record_id)
    assert (len(line.provider.submits), len(line.provider.fetches)) == (1, 3)
    assert {call.job for call in line.provider.fetches} == {"j1"}
    assert row.provider_request_id == "j1"
    events = await line.events(topics.STATUS, row.version)
    progress = [event["data"]["progress"] for event in events]
    assert progress == sorted(progress)
    stages = [event["data"]["stage"] for event in events]
    assert list(dict.fromkeys(stages)) == ["queued", "submitting", "generating", "storing", "done"]
    # while the provider worked, people saw it
    assert stages.count("generating") > 1


async def test_reference_pictures_go_to_the_provider_whichever_model_draws(line: Line) -> None:
    pictures = ["https://cdn.test/alice.png", "https://cdn.test/hare.png"]
    asked = request(text="Alice at tea", tier=Tier.PREMIUM)
    body = SceneImageRequest(scene_description="Alice at tea", character_image_urls=pictures)
    line.provider.scripted(
        error("Images cannot be generated at the moment, try use another model"), error("Model id not found")
    )
    record_id = await line.ask(replace(asked, body=body))
    row = await line.ended(record_id)
    attempts = await line.steps.attempts(record_id)
    assert [call.model for call in line.provider.submits] == ["seedream-4.5-i2i", "flux-kontext-pro", "nano-banana"]
    assert {attempt.path for attempt in attempts} == {"/api/v7/images/image-to-image"}
    assert {call.path for call in line.provider.submits} == {"/api/v7/images/image-to-image"}
    given = [json.loads(attempt.payload)["init_image"] for attempt in attempts]
    assert given == [pictures, pictures[0], pictures[0]]
    assert json.loads(attempts[2].payload)["init_image_2"] == pictures[1]
    assert row.model_id == "nano-banana"


async def test_another_services_event_is_worked_on_like_our_own(line: Line) -> None:
    record_id = uuid4()
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/chapters",
        "type": "scene-images.requested.v1",
        "data": {
            "record_id": str(record_id),
            "user_id": str(uuid4()),
            "chapter_id": str(uuid4()),
            "scene_number": 3,
            "scene_description": "The Hatter at tea",
            "aspect_ratio": "square",
        },
    }
    body = json.dumps(event).encode()
    await line.publish(topics.requested(Lane.BULK), body, str(record_id))
    await line.publish(topics.requested(Lane.BULK), body, str(record_id))

    async def known() -> bool:
        return bool(await line.steps.sql("SELECT id FROM image_generations WHERE id = $1", record_id))

    await line.until(known)
    row = await line.ended(record_id)
    assert (row.lane, row.user_tier, row.scene_number, row.aspect_ratio) == ("bulk", "standard", 3, "1:1")
    assert len(line.provider.submits) == 1


async def test_what_cannot_be_read_is_kept_and_holds_up_nobody(line: Line) -> None:
    topic = topics.requested(Lane.STANDARD)
    user, record = uuid4(), uuid4()
    invalid = {"specversion": "1.0", "id": "1", "source": "/x", "type": "t"}
    invalid_data = {"record_id": str(record), "user_id": str(user), "scene_description": ""}
    bad = [
        b"\xff\xfe not json",
        b"[1, 2]",
        json.dumps({**invalid, "data": {"hello": "world"}}).encode(),
        json.dumps({**invalid, "data": invalid_data}).encode(),
    ]
    for body in bad:
        await line.publish(topic, body, "key\x00")
    await line.publish(topics.retry(5), b"{}")
    record_id = await line.ask()
    await line.ended(record_id)
    poison = await line.events(topics.dead(ErrorClass.POISON), 4)
    assert {event["headers"]["error-code"] for event in poison} == {"unreadable", "not_a_request", "unreadable_retry"}
    (dead,) = await line.events(topics.dead(ErrorClass.INVALID), 1)
    assert dead["headers"]["origin-topic"] == topic
    assert dead["data"] == invalid_data
    assert "scene_description" in dead["headers"]["error-message"]
    rows = await line.steps.sql("SELECT * FROM dead_letters ORDER BY id")
    assert sorted(bytes(row.body) for row in rows) == sorted([*bad, b"{}"])
    (row,) = [row for row in rows if row.error_class == "invalid"]
    assert (row.record_id, row.user_id) == (record, user)
    (count,) = await line.steps.sql("SELECT count(*) AS records FROM image_generations")
    assert count.records == 1


async def test_many_at_once_never_exceed_the_slots(line: Line) -> None:
    line.start()
    asked = [await line.ask(request(scene=i, tier=tier)) for i in range(1, 9) for tier in (Tier.FREE, Tier.PREMIUM)]
    for record_id in asked:
        await line.ended(record_id)
    assert len(line.provider.submits) == 16
    assert line.provider.most_open <= 3
    assert await line.steps.used() == 0
    await line.steps.check()
