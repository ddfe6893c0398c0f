"""Each way in which the provider behaves, a scene each, through the real line: `docs/provider.md` says how it ends.

The simulator, the consumer, Kafka and Postgres are processes of their own; what the consumer says, keeps and sends is
searched for the key afterwards.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import Row

from local import chapter
from schemas.topics import BY_NAME
from schemas.words import Tier
from tests.connected.steps import request
from tests.flow.provider_line import CHECKOUT, Collector, Consumers, simulator
from tests.flow.provider_modes import KEY, MODES, Mode, other_code
from tests.flow.working import Line, line_of, settings_of

pytestmark = [pytest.mark.flow, pytest.mark.connected]

PAPER = CHECKOUT / "docs" / "provider.md"
WITHIN = 120.0

LINES: dict[str, dict[str, str]] = {
    "usual": {},
    "hooked": {},
    "careful": {"SCENEWIRE_UNCERTAIN": "fail"},
    # what is still out when its record ends is followed for a submit timeout more, and found so
    "impatient": {"SCENEWIRE_RUN_DEADLINE": "3", "SCENEWIRE_SUBMIT_TIMEOUT": "60"},
}


@dataclass(frozen=True, slots=True)
class Ending:
    """A row of the paper: what one scene cost, how it ended, and what its user reads."""

    submits: int
    paid: int
    retries: int
    attempts: str
    topic: str
    reads: str


def told() -> dict[str, Ending]:
    """The table of the paper, by mode."""
    rows = [line.strip("| ").split(" | ") for line in PAPER.read_text().splitlines() if line.startswith("| `")]
    return {
        row[0].strip("`"): Ending(int(row[2]), int(row[3]), int(row[4]), row[5], row[6].strip("`"), row[7])
        for row in rows
    }


@pytest.fixture
async def line(database_url: str, kafka_servers: str, namespace: str, tmp_path: Path) -> AsyncIterator[Line]:
    async with line_of(settings_of(database_url, kafka_servers, namespace, tmp_path / "media")) as line:
        yield line


def test_the_paper_tells_of_every_mode_and_of_no_other() -> None:
    assert list(told()) == [mode.name for mode in MODES]


async def test_every_mode_ends_as_the_paper_says_and_the_key_is_nowhere(line: Line, tmp_path: Path) -> None:
    others = {mode.name: other for mode in MODES if (other := other_code(mode)) is not None}
    collector = Collector()
    async with simulator(KEY) as provider, collector.listening() as spans:
        address = str(provider.base_url).rstrip("/")
        consumers = Consumers(line.settings, key=KEY, provider=address, spans=spans, log=tmp_path / "log")
        found = await play(line, provider, consumers, [*MODES, *others.values()])
    expected = told()
    assert {mode: asdict(found[mode]) for mode in expected} == {mode: asdict(row) for mode, row in expected.items()}
    # the same refusal in HTTP 200, or with an error's code, is the same refusal
    assert {name: asdict(found[other.name]) for name, other in others.items()} == {
        name: asdict(found[name]) for name in others
    }
    assert b"provider.submit" in collector.spans
    assert b"provider_call_broken" not in consumers.log.read_bytes()
    kept = {
        "spans": collector.spans,
        "logs and metrics": consumers.log.read_bytes(),
        "tables": await every_table(line),
        "topics": await every_topic(line),
    }
    assert [place for place, content in kept.items() if not content] == []
    assert [place for place, content in kept.items() if KEY[:16].encode() in content] == []


async def test_an_account_smaller_than_our_slots_costs_nobody_a_retry(line: Line, tmp_path: Path) -> None:
    """Another program uses the key, or the plan was changed: the provider turns away what it does not take."""
    async with simulator(KEY) as provider:
        address = str(provider.base_url).rstrip("/")
        consumers = Consumers(line.settings, key=KEY, provider=address, spans="", log=tmp_path / "log")
        await script(provider, slots=2, rules=[{"action": {"answer": "processing", "duration": 0.3}}])
        async with consumers.running({}):
            asked = [await line.ask(request(scene=number, tier=Tier.STANDARD)) for number in range(1, 7)]
            await line.until(lambda: all_ended(line), WITHIN)
        counters = (await provider.get("/simulator/counters")).json()
    rows = [await line.steps.record(record_id) for record_id in asked]
    assert [(row.status, row.retry_count) for row in rows] == [("completed", 0)] * 6
    assert (counters["in_flight_max"], counters["charged"]) == (2, 6)
    assert counters["rate_limited"] > 0


async def test_a_chapter_completes_on_a_bad_day(line: Line, tmp_path: Path) -> None:
    """The profile of `make run PROFILE=bad-day`, with the breakers as they are; only periods are shorter."""
    async with simulator(KEY) as provider:
        address = str(provider.base_url).rstrip("/")
        consumers = Consumers(line.settings, key=KEY, provider=address, spans="", log=tmp_path / "log")
        await script(provider, profile="bad-day")
        usual = {"SCENEWIRE_BREAKER_DENIALS": "3", "SCENEWIRE_BREAKER_OUTAGES": "10", "SCENEWIRE_PROBE": "1"}
        async with consumers.running(usual):
            asked = [
                await line.ask(request(scene=scene.scene_number, text=scene.scene_description, tier=Tier.PREMIUM))
                for scene in chapter.load().scenes
            ]
            await line.until(lambda: all_ended(line), WITHIN)
    rows = [await line.steps.record(record_id) for record_id in asked]
    assert [(row.status, row.error_code) for row in rows] == [("completed", None)] * 7
    assert all((tmp_path / "media" / row.image_key).stat().st_size > 1_000 for row in rows)


async def play(line: Line, provider: httpx.AsyncClient, consumers: Consumers, modes: list[Mode]) -> dict[str, Ending]:
    """How each of these ended: all at once, each on the consumer it is for."""
    records: dict[str, UUID] = {}
    await script(provider, rules=[rule for mode in modes for rule in mode.script()])
    for name, settings in LINES.items():
        here = [mode for mode in modes if mode.line == name]
        async with consumers.running(settings, webhooks=name == "hooked") as own:
            for mode in here:
                records[mode.name] = await line.ask(request(text=mode.words, tier=Tier.STANDARD))

            await line.until(lambda: all_ended(line), WITHIN)
            async with httpx.AsyncClient() as client:
                consumers.say((await client.get(own + "/metrics")).content)
    calls = (await provider.get("/simulator/calls", params={"kind": "submit"})).json()["calls"]
    return {mode: await ending(line, record_id, calls) for mode, record_id in records.items()}


async def script(provider: httpx.AsyncClient, **words: Any) -> None:
    answer = await provider.put("/simulator/script", json={"retry_after": 1, "pictures": "prerendered", **words})
    assert answer.status_code == 200, answer.text


async def all_ended(line: Line) -> bool:
    (count,) = await line.steps.sql(
        "SELECT count(*) AS n FROM image_generations WHERE status IN ('pending', 'in_progress')"
    )
    return bool(count.n == 0)


async def ending(line: Line, record_id: UUID, submits: list[dict[str, Any]]) -> Ending:
    row = await line.steps.record(record_id)
    attempts = await line.steps.attempts(record_id)
    tracks = {str(attempt.id) for attempt in attempts}
    ours = [call for call in submits if call["track_id"] in tracks]
    letters = await line.steps.sql("SELECT topic FROM dead_letters WHERE record_id = $1", record_id)
    assert (row.status == "completed") == (not letters)
    return Ending(
        submits=len(ours),
        paid=sum(call["charged"] for call in ours),
        retries=row.retry_count,
        attempts=_told(attempts),
        topic=letters[0].topic.removeprefix("scene-images.").removesuffix(".v1") if letters else "completed",
        reads=row.error_message or "the picture",
    )


def _told(attempts: Sequence[Row[Any]]) -> str:
    """Outcome and code of each in order; the same several times in a row is said once."""
    each = [
        attempt.outcome or "open" if attempt.error_code is None else f"{attempt.outcome}: {attempt.error_code}"
        for attempt in attempts
    ]
    runs = [(said, len(list(run))) for said, run in groupby(each)]
    return ", ".join(said if count == 1 else f"{count} × {said}" for said, count in runs)


async def every_table(line: Line) -> bytes:
    """All rows of all tables as text, bytes among them as they are."""
    tables = await line.steps.sql("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    found = b""
    for table in tables:
        rows = await line.steps.sql(f'SELECT t::text AS row FROM "{table.tablename}" t')
        found += "\n".join(row.row for row in rows).encode()
    for letter in await line.steps.sql("SELECT body FROM dead_letters WHERE body IS NOT NULL"):
        found += bytes(letter.body)
    return found


async def every_topic(line: Line) -> bytes:
    """All that Kafka holds for this line: keys, headers, values."""
    client = AIOKafkaConsumer(bootstrap_servers=line.settings.kafka_servers)
    await client.start()
    try:
        places = [
            TopicPartition(line.settings.namespace + name, partition)
            for name, topic in BY_NAME.items()
            for partition in range(topic.partitions)
        ]
        ends = await client.end_offsets(places)
        client.assign(places)
        await client.seek_to_beginning(*places)
        found = b""
        while any([await client.position(place) < ends[place] for place in places]):
            for records in (await client.getmany(timeout_ms=200)).values():
                found += b"\n".join(repr((record.key, record.headers, record.value)).encode() for record in records)
        return found
    finally:
        await client.stop()
