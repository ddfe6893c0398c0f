"""ModelsLab's own paths, as the simulator answers them: in process, on a clock that a test moves by hand."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.simulated import KEY, SUBMIT, Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    made = Simulator()
    yield made
    await made.close()


async def test_a_synchronous_success_has_the_documented_fields_and_a_picture(simulator: Simulator) -> None:
    answer = await simulator.submit(track_id="t-1", seed=42)
    body = answer.json()
    assert answer.status_code == 200
    assert body["status"] == "success"
    assert isinstance(body["id"], int)
    assert body["track_id"] == "t-1"
    assert body["meta"]["seed"] == 42
    assert body["output"][0].startswith("http://simulator/generations/0-")
    picture = await simulator.http.get(body["output"][0])
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG\r\n\x1a\n")
    assert (await simulator.http.get(body["proxy_links"][0])).content == picture.content


async def test_processing_becomes_success_when_its_time_has_come(simulator: Simulator) -> None:
    await simulator.script({"action": {"answer": "processing", "duration": 4}})
    body = (await simulator.submit()).json()
    assert body["status"] == "processing"
    assert isinstance(body["eta"], float)
    assert body["output"] == []
    assert body["fetch_result"] == f"http://simulator/api/v7/images/fetch/{body['id']}"
    assert (await simulator.http.get(body["future_links"][0])).status_code == 404
    simulator.clock.now += 3.9
    assert (await simulator.fetch(body["id"])).json()["status"] == "processing"
    simulator.clock.now += 0.2
    done = (await simulator.fetch(body["id"])).json()
    assert done["status"] == "success"
    assert done["output"] == body["future_links"]
    assert (await simulator.http.get(done["output"][0])).status_code == 200


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"prompt": None}, 400, "prompt is required"),
        ({"prompt": ["a"]}, 400, "prompt must be a string"),
        ({"model_id": None}, 400, "model_id is required"),
        ({"model_id": "runway_image"}, 404, "Model not found: runway_image"),
        ({"model_id": "nano-banana"}, 404, "Model not found: nano-banana"),
        ({"aspect_ratio": "5:9"}, 400, "aspect_ratio must be one of"),
        ({"aspect_ratio": None}, 400, "aspect_ratio is required"),
        ({"model_id": "seedream-t2i"}, 400, "width is required"),
        ({"model_id": "seedream-t2i", "width": "9999", "height": 512}, 400, "width must be between 256 and 1024"),
        ({"samples": 5}, 400, "samples must be between 1 and 4"),
        ({"guidance_scale": 50}, 400, "guidance_scale must be between 1 and 20"),
        ({"webhook": "ftp://x"}, 400, "webhook must be a valid URL"),
        ({"key": None}, 401, "API key required"),
        ({"key": "another"}, 401, "Invalid API key"),
    ],
)
async def test_what_is_refused(simulator: Simulator, fields: dict[str, Any], code: int, message: str) -> None:
    answer = await simulator.submit(**{"prompt": "x", **fields})
    assert answer.status_code == code
    assert answer.json()["status"] == "error"
    assert answer.json()["message"].startswith(message)
    assert (await simulator.counters())["charged"] == 0


async def test_a_body_that_is_no_json_object(simulator: Simulator) -> None:
    for content in (b"", b"[1]", b"{"):
        assert (await simulator.http.post(SUBMIT, content=content)).json()["message"] == "Invalid API Request"


async def test_validation_as_an_object_and_errors_in_200(simulator: Simulator) -> None:
    await simulator.script(validation="object")
    answer = await simulator.submit("")
    assert answer.json()["message"] == {"prompt": ["prompt is required"]}
    await simulator.script(errors_in_200=True)
    refused = await simulator.submit(model_id="no-such")
    assert (refused.status_code, refused.json()["status"]) == (200, "error")


async def test_more_than_the_slots_in_flight_is_429_per_key() -> None:
    simulator = Simulator(key=None, slots=2, retry_after=30)
    await simulator.script({"action": {"answer": "processing", "duration": 10}})
    first = (await simulator.submit()).json()
    await simulator.submit()
    refused = await simulator.submit()
    assert refused.status_code == 429
    assert refused.json() == {
        "status": "error",
        "message": "Rate limit exceeded. Maximum 2 queued requests allowed.",
        "retry_after": 30,
    }
    assert (await simulator.submit(key="another account")).status_code == 200
    simulator.clock.now += 11
    assert (await simulator.submit()).status_code == 200
    counters = await simulator.counters()
    assert (counters["submits"], counters["charged"], counters["rate_limited"]) == (5, 4, 1)
    assert counters["in_flight_max"] == 2
    assert (await simulator.fetch(first["id"], "another account")).json()["message"] == "Request not found"


async def test_an_open_synchronous_call_holds_a_place_until_it_is_answered() -> None:
    simulator = Simulator(slots=1)
    await simulator.script({"action": {"latency": 5}})
    simulator.clock.held = True
    open_call = asyncio.create_task(simulator.submit())
    await simulator.clock.asleep.wait()
    assert (await simulator.submit()).status_code == 429
    simulator.clock.now += 5
    simulator.clock.awake.set()
    assert (await open_call).json()["status"] == "success"
    assert (await simulator.counters())["in_flight"] == 0


async def test_unknown_id_is_failed_with_an_empty_id(simulator: Simulator) -> None:
    for job_id in ("12345", "not-a-number", "9" * 30):
        body = (await simulator.fetch(job_id)).json()
        assert (body["status"], body["id"], body["output"]) == ("failed", "", "")


async def test_the_size_follows_ratio_or_width_and_height(simulator: Simulator) -> None:
    for fields, size in (
        ({"aspect_ratio": "21:9"}, (1024, 439)),
        ({"aspect_ratio": "9:16"}, (576, 1024)),
        ({"model_id": "imagen-3"}, (1024, 1024)),
        ({"model_id": "seedream-t2i", "width": "768", "height": 512}, (768, 512)),
    ):
        meta = (await simulator.submit(**fields)).json()["meta"]
        assert (meta["W"], meta["H"]) == size


async def test_without_a_seed_each_submit_of_a_prompt_has_another_but_the_same_in_every_run() -> None:
    one, other = Simulator(), Simulator()
    seeds = [(await one.submit()).json()["meta"]["seed"] for _ in range(3)]
    assert len(set(seeds)) == 3
    assert [(await other.submit()).json()["meta"]["seed"] for _ in range(3)] == seeds


async def test_image_to_image_wants_its_images(simulator: Simulator) -> None:
    path = "/api/v7/images/image-to-image"
    one, two = "https://example.org/hare.png", "https://example.org/hatter.png"

    async def submit(model: str, **images: Any) -> dict[str, Any]:
        body = {"key": KEY, "model_id": model, "prompt": "the same hare, older", **images}
        answer: dict[str, Any] = (await simulator.http.post(path, json=body)).json()
        return answer

    assert (await submit("flux-kontext-pro"))["message"] == "init_image is required"
    assert (await submit("flux-kontext-pro", init_image=[]))["message"] == "init_image is required"
    assert (await submit("flux-kontext-pro", init_image=7))["message"] == "init_image must be a valid URL"
    assert (await submit("seededit-i2i", init_image=["file:///x"]))["message"] == "init_image must be a valid URL"
    assert "more than 1" in (await submit("flux-kontext-pro", init_image=[one, two]))["message"]
    assert (await submit("seedream-4", init_image=one))["message"] == "Model not found: seedream-4"
    assert (await submit("flux-kontext-pro", init_image=one))["status"] == "success"
    assert (await submit("seededit-i2i", init_image=[one, two]))["status"] == "success"
    assert (await submit("nano-banana", init_image=one, init_image_2=two))["status"] == "success"
    calls = (await simulator.http.get("/simulator/calls")).json()["calls"]
    assert [call["references"] for call in calls][-3:] == [1, 2, 2]


async def test_the_key_is_in_no_log_and_no_answer(simulator: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await simulator.script({"nth": 2, "action": {"answer": "error", "fault": "invalid_key"}})
    job = (await simulator.submit(f"a prompt with {KEY} in it", track_id=KEY)).json()
    await simulator.submit()
    await simulator.submit(model_id=KEY)
    await simulator.fetch(job["id"])
    seen = [job, caplog.text]
    for path in ("/simulator/calls", "/simulator/jobs", "/simulator/script", "/simulator/counters", "/"):
        seen.append((await simulator.http.get(path)).text)
    assert KEY not in str(seen)
    assert "[key]" in str(seen)
