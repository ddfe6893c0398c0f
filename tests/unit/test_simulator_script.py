"""Scripts: which call a rule takes, and every way a call can go."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.modelslab.director import Director
from local.modelslab.faults import FAULTS
from local.modelslab.jobs import JobBook
from local.modelslab.journal import Journal
from local.modelslab.orders import read
from local.modelslab.periods import LongTail, Period, Uniform, draw
from local.modelslab.profiles import PROFILES
from local.modelslab.script import Action, Rule, Script
from local.modelslab.settings import SimulatorSettings
from tests.unit.simulated import SUBMIT, HandClock, Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    made = Simulator()
    yield made
    await made.close()


def chosen(script: dict[str, Any], calls: list[tuple[str, str]]) -> list[str]:
    """The names of the rules that took these submits of (prompt, model); `-` where it was the profile's."""
    director = Director(SimulatorSettings(profile="instant"))
    director.play(Script.model_validate(script))
    names = [director.choose("submit", prompt, model)[1] for prompt, model in calls]
    return ["-" if name == "at once" else name for name in names]


@pytest.mark.parametrize(
    ("rule", "prompts", "taken"),
    [
        ({"text": "HATTER"}, ["the hatter", "the hare"], "r-"),
        ({"pattern": r"h(att|ar)e\b"}, ["the hatter", "the hare"], "-r"),
        ({"model": "imagen-4"}, ["a"], "-"),
        ({"model": "flux"}, ["a"], "r"),
        ({"nth": 2}, ["a", "b", "c"], "-r-"),
        ({"nth": [1, 3]}, ["a", "b", "c"], "r-r"),
        ({"first": 2}, ["a", "b", "c"], "rr-"),
        ({"first": 1, "per": "prompt"}, ["a", "b", "a", "b"], "rr--"),
        ({"text": "a", "nth": 2}, ["a", "b", "a"], "--r"),
        ({"times": 2}, ["a", "b", "c"], "rr-"),
        ({"probability": 0}, ["a", "b"], "--"),
    ],
)
def test_which_submits_a_rule_takes(rule: dict[str, Any], prompts: list[str], taken: str) -> None:
    script = {"rules": [{"name": "r", "action": {"nsfw": True}, **rule}]}
    assert "".join(chosen(script, [(prompt, "flux") for prompt in prompts])) == taken


def test_the_first_rule_that_fits_decides_and_the_others_count_all_the_same() -> None:
    rules = [
        {"name": "1", "nth": 1, "action": {}},
        {"name": "2", "nth": 2, "action": {}},
        {"name": "3", "action": {}},
    ]
    assert chosen({"rules": rules}, [("a", "flux")] * 3) == ["1", "2", "3"]


def test_probability_follows_the_seed() -> None:
    script = {"seed": 3, "rules": [{"name": "r", "probability": 0.3, "action": {}}]}
    once = chosen(script, [("a", "flux")] * 400)
    assert once == chosen(script, [("a", "flux")] * 400)
    assert 80 < once.count("r") < 160


def test_mercy_ends_a_row_of_bad_fates() -> None:
    script = {"mercy": 2, "rules": [{"name": "bad", "action": {"answer": "reset"}}]}
    assert chosen(script, [("a", "flux")] * 4 + [("b", "flux")]) == ["bad", "bad", "-", "bad", "bad"]


@pytest.mark.parametrize(
    ("script", "field"),
    [
        ({"rules": [{"action": {"answer": "error"}}]}, "rules.0.action"),
        ({"rules": [{"pattern": "(", "action": {}}]}, "rules.0.pattern"),
        ({"rules": [{"action": {"fault": "no such"}}]}, "rules.0.action.fault"),
        ({"rules": [{"action": {"latency": {"low": 2, "high": 1}}}]}, "rules.0.action.latency"),
        ({"ruels": []}, "ruels"),
        ({"profile": "sunny"}, "profile"),
    ],
)
async def test_a_script_that_does_not_pass_names_the_field_and_changes_nothing(
    simulator: Simulator, script: dict[str, Any], field: str
) -> None:
    await simulator.script({"name": "kept", "action": {}})
    answer = await simulator.http.put("/simulator/script", json=script)
    assert answer.status_code == 422
    assert any(error["field"].startswith(field) for error in answer.json()["errors"])
    assert (await simulator.http.get("/simulator/script")).json()["rules"][0]["name"] == "kept"


@pytest.mark.parametrize("name", sorted(FAULTS))
async def test_every_fault_is_said_as_written(simulator: Simulator, name: str) -> None:
    await simulator.script({"action": {"answer": "error", "fault": name}})
    answer = await simulator.submit()
    fault = FAULTS[name]
    assert answer.status_code == fault.code
    assert "{" not in answer.text or fault.content_type == "application/json"
    assert "{model}" not in answer.text
    assert "{slots}" not in answer.text
    assert "{retry_after}" not in answer.text
    if isinstance(fault.body, dict):
        assert answer.json()["status"] == fault.body["status"]
    assert (await simulator.counters())["charged"] == 0


async def test_both_forms_of_a_rate_limit_say_how_long_to_wait(simulator: Simulator) -> None:
    rules = [
        {"nth": 1, "action": {"answer": "error", "fault": "rate_limited"}},
        {"nth": 2, "action": {"answer": "error", "fault": "rate_limited_legacy"}},
    ]
    await simulator.script(*rules)
    assert '"retry_after": 30}' in (await simulator.submit()).text
    assert "please wait for 30 seconds and try again" in (await simulator.submit()).json()["tips"]
    await simulator.script(*rules, retry_after=2.0)
    assert (await simulator.submit()).json()["retry_after"] == 2
    assert "wait for 2 seconds" in (await simulator.submit()).json()["tips"]


async def test_a_kind_of_file_that_is_not_on_the_shelf_is_drawn(simulator: Simulator) -> None:
    await simulator.script({"text": "webp", "action": {"picture": "webp"}}, pictures="prerendered")
    for prompt, magic in (("webp", b"RIFF"), ("any", b"\x89PNG")):
        url = (await simulator.submit(prompt)).json()["output"][0]
        assert (await simulator.picture(url)).content.startswith(magic)


async def test_an_answer_in_the_scripts_own_words_and_code(simulator: Simulator) -> None:
    await simulator.script(
        {"nth": 1, "action": {"answer": "error", "code": 418, "body": {"status": "error", "message": {"a": ["b"]}}}},
        {"nth": 2, "action": {"answer": "error", "code": 520, "body": "<html>"}},
        {"nth": 3, "action": {"answer": "error", "code": 200, "fault": "credits"}},
    )
    assert [(await simulator.submit()).status_code for _ in range(3)] == [418, 520, 200]


async def test_a_cut_connection_with_and_without_a_job(simulator: Simulator) -> None:
    await simulator.script(
        {"nth": 1, "action": {"answer": "reset"}}, {"nth": 2, "action": {"answer": "reset", "created": True}}
    )
    for _ in range(2):
        with pytest.raises(httpx.ReadError):
            await simulator.submit()
    calls = (await simulator.http.get("/simulator/calls")).json()["calls"]
    assert [(call["charged"], call["http_status"]) for call in calls] == [(False, None), (True, None)]


async def test_a_call_that_hangs_past_its_caller_has_made_a_job(simulator: Simulator) -> None:
    await simulator.script({"action": {"answer": "hang", "latency": 300, "duration": 2}})
    simulator.clock.held = True
    caller = asyncio.create_task(simulator.submit(track_id="lost"))
    await simulator.clock.asleep.wait()
    caller.cancel()
    await asyncio.wait([caller])
    (call,) = (await simulator.http.get("/simulator/calls?track_id=lost")).json()["calls"]
    assert (call["charged"], call["http_status"]) == (True, None)
    simulator.clock.now += 3
    assert (await simulator.fetch(call["id"])).json()["status"] == "success"


@pytest.mark.parametrize(("outcome", "status"), [("failed", "failed"), ("error", "error"), ("never", "processing")])
async def test_how_processing_ends(simulator: Simulator, outcome: str, status: str) -> None:
    await simulator.script(
        {"action": {"answer": "processing", "duration": 1, "outcome": outcome, "fault": "dimensions"}}
    )
    job = (await simulator.submit()).json()
    assert job["status"] == "processing"
    simulator.clock.now += 1e6
    body = (await simulator.fetch(job["id"])).json()
    assert body["status"] == status
    assert body["id"] == job["id"]
    if status != "processing":
        assert body["message"] == "Processing failed: Invalid input dimensions"


async def test_faults_of_a_fetch_leave_the_job_as_it_is(simulator: Simulator) -> None:
    await simulator.script(
        {"call": "fetch", "per": "job", "nth": 1, "action": {"answer": "error", "fault": "bad_gateway"}},
        {"call": "fetch", "per": "job", "nth": 2, "action": {"answer": "reset"}},
    )
    job = (await simulator.submit()).json()
    assert (await simulator.fetch(job["id"])).status_code == 502
    with pytest.raises(httpx.ReadError):
        await simulator.fetch(job["id"])
    assert (await simulator.fetch(job["id"])).json()["status"] == "success"


async def test_pictures_that_are_late_gone_expired_or_none(simulator: Simulator) -> None:
    await simulator.script(
        {"text": "late", "action": {"fresh_404": 2}},
        {"text": "gone", "action": {"gone": True}},
        {"text": "expired", "action": {"expires_after": 60}},
        {"text": "page", "action": {"picture": "not_a_picture"}},
        {"text": "plain", "action": {"picture": "text/plain"}},
        {"text": "base64", "action": {"picture": "base64"}},
        {"text": "jpeg", "action": {"picture": "jpeg"}},
        {"text": "webp", "action": {"picture": "webp"}},
    )
    late = (await simulator.submit("late")).json()["output"][0]
    assert [(await simulator.picture(late)).status_code for _ in range(3)] == [404, 404, 200]
    gone = (await simulator.submit("gone")).json()
    assert (await simulator.picture(gone["output"][0])).status_code == 404
    assert (await simulator.picture(gone["proxy_links"][0])).status_code == 200
    expired = (await simulator.submit("expired")).json()["output"][0]
    assert (await simulator.picture(expired)).status_code == 200
    simulator.clock.now += 61
    assert (await simulator.picture(expired)).status_code == 404
    first_bytes = {"page": b"<html>", "plain": b"\x89PNG", "base64": b"iVBOR", "jpeg": b"\xff\xd8\xff", "webp": b"RIFF"}
    for prompt, magic in first_bytes.items():
        url = (await simulator.submit(prompt)).json()["output"][0]
        assert (await simulator.picture(url)).content.startswith(magic)
        assert url.endswith(".base64") == (prompt == "base64")


async def test_the_shapes_an_answer_may_have(simulator: Simulator) -> None:
    shape = {
        "id": "text",
        "fetch_result": "missing",
        "message": "messege",
        "tip": "tips",
        "proxy_links": "object",
        "pending_output": "text",
        "future_links": False,
        "eta": "int",
        "generation_time": False,
    }
    await simulator.script({"action": {"answer": "processing", "duration": 2, "shape": shape}})
    pending = (await simulator.submit()).json()
    assert isinstance(pending["id"], str)
    assert isinstance(pending["eta"], int)
    assert pending["output"] == ""
    assert {"messege", "tips"} <= pending.keys()
    assert pending.keys().isdisjoint({"fetch_result", "future_links", "message", "tip"})
    simulator.clock.now += 2
    done = (await simulator.fetch(pending["id"])).json()
    assert done["proxy_links"]["0"].startswith("http://simulator/proxy/")
    assert "generationTime" not in done
    await simulator.script({"action": {"answer": "processing", "duration": 1, "shape": {"fetch_result": "foreign"}}})
    assert (await simulator.submit()).json()["fetch_result"].startswith("https://fetch.example.net/")
    await simulator.script({"nth": 1, "action": {"output": "empty"}}, {"nth": 2, "action": {"output": "text"}})
    assert [(await simulator.submit()).json()["output"] for _ in range(2)] == [[], ""]
    await simulator.script({"action": {"nsfw": True}})
    assert (await simulator.submit()).json()["nsfw_content_detected"] is True


@pytest.mark.parametrize(
    ("fate", "received", "counted"),
    [
        ({}, ["success"], "webhooks_sent"),
        ({"lost": 1}, [], "webhooks_lost"),
        ({"duplicated": 1, "delay": 3}, ["success", "success"], "webhooks_sent"),
        ({"early": True}, ["processing", "success"], "webhooks_sent"),
    ],
)
async def test_webhooks(simulator: Simulator, fate: dict[str, Any], received: list[str], counted: str) -> None:
    await simulator.script({"action": {"answer": "processing", "duration": 2, "webhook": fate}})
    job = (await simulator.submit(track_id="w", webhook="https://hooks.example.org/very-secret-token")).json()
    await simulator.app.state.postman.delivered()
    assert [payload["status"] for payload in simulator.received] == received
    assert all(payload["id"] == job["id"] and payload["track_id"] == "w" for payload in simulator.received)
    assert (await simulator.counters())[counted] == max(1, len(received))
    shown = (await simulator.http.get("/simulator/jobs")).text
    assert "very-secret-token" not in shown


async def test_a_webhook_of_a_failure_says_failed_and_why(simulator: Simulator) -> None:
    await simulator.script({"action": {"answer": "processing", "outcome": "failed", "fault": "dimensions"}})
    await simulator.submit(webhook="https://hooks.example.org/x")
    await simulator.app.state.postman.delivered()
    (payload,) = simulator.received
    assert payload["status"] == "failed"
    assert payload["message"] == "Processing failed: Invalid input dimensions"


async def test_reset_forgets_all_but_never_uses_an_id_twice(simulator: Simulator) -> None:
    await simulator.script({"action": {"nsfw": True}})
    before = (await simulator.submit()).json()["id"]
    await simulator.http.post("/simulator/reset")
    calls = (await simulator.http.get("/simulator/calls")).json()
    assert calls["calls"] == []
    assert set(calls["counters"].values()) == {0}
    after = (await simulator.submit()).json()
    assert after["id"] > before
    assert after["nsfw_content_detected"] is False


async def test_calls_and_jobs_can_be_narrowed(simulator: Simulator) -> None:
    for number in range(3):
        job = (await simulator.submit(f"scene {number}", track_id=f"t{number}")).json()
        await simulator.fetch(job["id"])
    shown = (await simulator.http.get("/simulator/calls?kind=submit&after=1&limit=1")).json()["calls"]
    assert [call["prompt"] for call in shown] == ["scene 2"]
    jobs = (await simulator.http.get("/simulator/jobs?track_id=t1")).json()["jobs"]
    assert [(job["state"], job["fetches"], job["charged"]) for job in jobs] == [("success", 1, True)]


def test_jobs_outlive_a_restart_in_their_journal(tmp_path: Path) -> None:
    clock, file = HandClock(), tmp_path / "deep" / "jobs.jsonl"
    order = read({"model_id": "flux", "prompt": "kept"}, "text-to-image")
    first = Journal(file)
    made = JobBook(clock, first).make("owner", order, Action(answer="processing", nsfw=True), 5.0, charged=True)
    first.close()
    with file.open("a") as out:
        out.write('{"id": 1, "cut')
    second = Journal(file)
    again = JobBook(clock, second)
    found = again.find(made.id)
    assert found is not None
    assert (found.order, found.action, found.seed, found.names) == (order, made.action, made.seed, made.names)
    assert again.in_flight("owner") == 1
    assert again.make("owner", order, Action(), 0.0, charged=True).id > made.id
    second.close()
    assert len(file.read_text().splitlines()) == 2


def test_a_journal_drops_what_is_two_weeks_old(tmp_path: Path) -> None:
    class Calendar(HandClock):
        today = 1_800_000_000.0

        def wall(self) -> float:
            return self.today

    clock, journal = Calendar(), Journal(tmp_path / "jobs")
    order = read({"model_id": "flux", "prompt": "old"}, "text-to-image")
    JobBook(clock, journal).make("owner", order, Action(), 0.0, charged=True)
    journal.close()
    assert len(JobBook(clock, journal)) == 1
    journal.close()
    clock.today += 15 * 86_400
    assert len(JobBook(clock, journal)) == 0
    journal.close()


def test_periods() -> None:
    rng = random.Random(1)
    cases: list[tuple[Period, float, float]] = [
        (2.5, 2.5, 2.5),
        (Uniform(low=1, high=2), 1, 2),
        (LongTail(median=1, p99=5), 0, 10),
    ]
    for period, low, high in cases:
        assert all(low <= draw(period, rng) <= high for _ in range(500))
    drawn = sorted(draw(LongTail(median=1, p99=5), rng) for _ in range(2000))
    assert 0.85 < drawn[1000] < 1.15
    assert 3.5 < drawn[1980] < 8


@pytest.mark.parametrize("profile", list(PROFILES))
async def test_every_profile_brings_seven_scenes_home_within_three_retries(profile: str) -> None:
    simulator = Simulator(profile=profile, slots=1000)
    for scene in range(7):
        for _ in range(4):
            try:
                body = (await simulator.submit(f"scene {scene}")).json()
            except (httpx.ReadError, ValueError):
                continue
            simulator.clock.now += 100
            if body["status"] in ("success", "processing") and await _ends_well(simulator, body["id"]):
                break
        else:
            pytest.fail(f"scene {scene} had four bad fates")
    await simulator.close()


async def _ends_well(simulator: Simulator, job_id: int) -> bool:
    for _ in range(20):
        try:
            body = (await simulator.fetch(job_id)).json()
        except (httpx.ReadError, ValueError):
            continue
        if body.get("id") == job_id:
            return body["status"] == "success" and bool(body["output"])
    return False


def test_the_readme_names_every_fault_profile_and_word() -> None:
    readme = (Path(__file__).parents[2] / "local" / "modelslab" / "README.md").read_text()
    for name, fault in FAULTS.items():
        assert f"| `{name}` | {fault.code} |" in readme
    for word in (*PROFILES, *Script.model_fields, *Action.model_fields, *Rule.model_fields):
        assert f"`{word}`" in readme or f'"{word}"' in readme or f"`{word}." in readme, word


async def test_the_studios_page_alone_may_write_the_script() -> None:
    simulator = Simulator(allowed_origins="http://127.0.0.1:8701/, https://studio.example/page")
    try:
        asks = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}
        for origin, welcome in (("http://127.0.0.1:8701", True), ("https://studio.example", True), ("null", False)):
            asked = await simulator.http.options("/simulator/script", headers={"Origin": origin, **asks})
            assert (asked.headers.get("access-control-allow-origin") == origin) is welcome
            read = await simulator.http.get("/simulator/counters", headers={"Origin": origin})
            assert (read.headers.get("access-control-allow-origin") == origin) is welcome
        refused = await simulator.http.put(
            "/simulator/script", json={"x": 1}, headers={"Origin": "https://studio.example"}
        )
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (422, "https://studio.example")
        # the provider's own side answers a browser's page as the provider does: not at all
        submitted = await simulator.http.post(SUBMIT, json={}, headers={"Origin": "http://127.0.0.1:8701"})
        assert "access-control-allow-origin" not in submitted.headers
    finally:
        await simulator.close()
