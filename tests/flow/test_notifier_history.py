"""What an owner looks back at over HTTP: attempts with their prompts and ends, and the pictures of a scene."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from schemas.history import ATTEMPTS_SHOWN, PICTURES_SHOWN, ImageAttempts, ScenePictures
from tests.flow.asking import Caller, problem
from tests.flow.pushing import House

pytestmark = [pytest.mark.flow, pytest.mark.connected]

SECRETS = ("the-providers-answer", "https://fetch.example/1", "https://cdn.example/1.png", "hook-token", "job-77")


async def tried(here: House, record: UUID, number: int, **columns: Any) -> None:
    answer, fetch_url, output_url, hook, job = SECRETS
    known = {
        "model_id": "seedream-4",
        "prompt": "a long table, wide shot",
        "error_detail": answer,
        "fetch_url": fetch_url,
        "webhook_token": f"{hook}-{number}",
        "provider_request_id": job,
        **columns,
    }
    names = ", ".join(known)
    values = ", ".join(f"${number}" for number in range(4, 4 + len(known)))
    await here.database.fetch(
        f"""INSERT INTO generation_attempts (id, record_id, attempt, path, payload, output_urls, cost, {names})
        VALUES (gen_random_uuid(), $1, $2, '/', '{{}}', to_jsonb(ARRAY[$3::text]), 0.033, {values})""",
        record,
        number,
        output_url,
        *known.values(),
    )


async def test_attempts_tell_their_owner_what_was_tried(here: House, user: UUID, chapter: UUID) -> None:
    caller, record = Caller(here, user), await here.accept(user, chapter)
    path = f"/images/{record}/attempts"
    before = await caller.get(path)
    assert before.json() == {"record_id": str(record), "version": 1, "attempts": []}
    now = datetime.now(UTC)
    await tried(
        here,
        record,
        1,
        sent_at=now,
        closed_at=now + timedelta(seconds=2),
        outcome="handed_over",
        counted=False,
        error_class="model_unavailable",
        error_code="model_busy",
    )
    await tried(here, record, 2, model_id="imagen-4", sent_at=now, outcome="success", counted=True)
    answer = await caller.get(path)
    assert answer.headers["cache-control"] == "private, no-cache"
    first, second = ImageAttempts.model_validate_json(answer.content).attempts
    assert (first.attempt, first.model_id, first.prompt) == (1, "seedream-4", "a long table, wide shot")
    assert (first.outcome, first.counted, first.error_code) == ("handed_over", False, "model_busy")
    assert first.message == "This model could not at that moment. The next model was asked."
    assert (second.attempt, second.model_id, second.outcome) == (2, "imagen-4", "success")
    assert answer.json()["attempts"][1]["cost_usd"] == 0.033
    assert second.charge == "settled"
    assert [secret for secret in SECRETS if secret in answer.text] == []


async def test_attempts_are_their_owners_alone(here: House, user: UUID, chapter: UUID) -> None:
    record = await here.accept(user, chapter)
    await tried(here, record, 1)
    problem(await Caller(here, uuid4()).get(f"/images/{record}/attempts"), 404, "not_found")
    problem(await Caller(here, user).get(f"/images/{uuid4()}/attempts"), 404, "not_found")
    problem(await Caller(here, user).get("/images/seven/attempts"), 422, "invalid")
    problem(await here.http.get(f"/images/{record}/attempts"), 401, "token_missing")
    # who was shown the chapter is shown neither prompts nor prices
    shared = await here.http.post(f"/chapters/{chapter}/share", headers=here.bearer(user))
    viewer = {"Authorization": f"Bearer {shared.json()['token']}"}
    for path in (f"/images/{record}/attempts", f"/chapters/{chapter}/images/scenes/1/pictures"):
        problem(await here.http.get(path, headers=viewer), 403, "share_token_refused")


async def test_of_very_many_attempts_the_newest_are_shown(here: House, user: UUID, chapter: UUID) -> None:
    record = await here.accept(user, chapter)
    await here.database.fetch(
        """INSERT INTO generation_attempts (id, record_id, attempt, model_id, prompt, path, payload)
        SELECT gen_random_uuid(), $1, n, 'm', 'p', '/', '{}' FROM generate_series(1, $2::int) n""",
        record,
        ATTEMPTS_SHOWN + 3,
    )
    attempts = (await Caller(here, user).get(f"/images/{record}/attempts")).json()["attempts"]
    assert [one["attempt"] for one in attempts] == list(range(4, ATTEMPTS_SHOWN + 4))


async def test_the_pictures_a_scene_has_had(here: House, user: UUID, chapter: UUID) -> None:
    caller = Caller(here, user)
    path = f"/chapters/{chapter}/images/scenes/2/pictures"
    assert (await caller.get(path)).json() == {"images": []}
    records = [await here.accept(user, chapter, 2) for _ in range(4)]
    for record in records[:2]:
        await here.change(record, status="completed", stage="done", image_url=f"https://pictures.example/{record}.png")
    await here.change(records[2], status="failed", stage="done")
    # of another scene, and of another person
    other, strangers = await here.accept(user, chapter, 3), await here.accept(uuid4(), chapter, 2)
    for record in (other, strangers):
        await here.change(record, status="completed", stage="done", image_url="https://pictures.example/x.png")
    answer = await caller.get(path)
    images = ScenePictures.model_validate_json(answer.content).images
    assert [image.record_id for image in images] == [records[1], records[0]]
    current = (await caller.get(f"/chapters/{chapter}/images/scenes/2/status")).json()["current"]
    assert current["record_id"] == str(records[1])
    problem(await caller.get(f"/chapters/{chapter}/images/scenes/0/pictures"), 422, "invalid")
    problem(await here.http.get(path), 401, "token_missing")


async def test_of_very_many_pictures_the_newest_are_shown(here: House, user: UUID, chapter: UUID) -> None:
    await here.database.fetch(
        """INSERT INTO image_generations (id, user_id, chapter_id, scene_number, status, version, image_url, created_at)
        SELECT gen_random_uuid(), $1, $2, 1, 'completed', 1, 'https://pictures.example/' || n,
            now() + make_interval(secs => n) FROM generate_series(1, $3::int) n""",
        user,
        chapter,
        PICTURES_SHOWN + 1,
    )
    images = (await Caller(here, user).get(f"/chapters/{chapter}/images/scenes/1/pictures")).json()["images"]
    assert [image["image_url"].rpartition("/")[2] for image in images] == [
        str(number) for number in range(PICTURES_SHOWN + 1, 1, -1)
    ]
