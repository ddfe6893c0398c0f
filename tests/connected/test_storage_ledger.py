"""What attempts have cost: settled, uncertain, open or released, and exact sums of them."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from uuid_utils.compat import uuid7

from schemas.errors import ErrorClass
from schemas.usage import Spent
from storage import ledger, settling
from storage.dispatching import Claimed, Waiting
from storage.ledger import Period
from storage.reading import Reader
from storage.settling import Failure
from tests.connected.steps import BUSY, Steps, claim_of, draft, request

pytestmark = pytest.mark.connected

USER, CHAPTER = uuid4(), uuid4()
PRICE = Decimal("0.033")


async def record(
    steps: Steps, *, user: UUID = USER, chapter: UUID | None = CHAPTER, at: datetime | None = None
) -> UUID:
    """A record as it stands long after it was accepted."""
    record_id = uuid7()
    await steps.sql(
        """INSERT INTO image_generations (id, user_id, chapter_id, scene_number, status, version, lane, created_at)
        VALUES ($1, $2, $3, 1, 'failed', 1, 'standard', $4)""",
        record_id,
        user,
        chapter,
        at or datetime.now(UTC),
    )
    return record_id


async def attempt(steps: Steps, record_id: UUID, cost: str | None = "0.033", **columns: Any) -> None:
    given = {"model_id": "m", "sent_at": datetime.now(UTC), "outcome": None, "error_code": None, **columns}
    names = ", ".join(given)
    values = ", ".join(f"${number}" for number in range(3, 3 + len(given)))
    await steps.sql(
        f"""INSERT INTO generation_attempts (id, record_id, attempt, prompt, path, payload, cost, {names})
        SELECT gen_random_uuid(), $1, 1 + count(*), 'p', '/', '{{}}', $2::text::numeric, {values}
        FROM generation_attempts WHERE record_id = $1""",
        record_id,
        cost,
        *given.values(),
    )


async def spent(steps: Steps, **asked: Any) -> Spent:
    return (await ledger.usage(steps.database, USER, Period(), **asked)).total


UNSENT = {"sent_at": None}
NAMED = {"provider_request_id": "job-1"}
STATES: list[tuple[dict[str, Any], str]] = [
    ({"outcome": "success", **NAMED}, "settled"),
    # a synchronous success has no id of its own, and is not stored yet
    ({"output_urls": "[]"}, "settled"),
    ({"outcome": "success"}, "settled"),
    ({"outcome": "late_success", **NAMED}, "settled"),
    ({"outcome": "failed", "error_code": "provider_unavailable", **NAMED}, "settled"),
    ({"outcome": "late_failure", **NAMED}, "settled"),
    ({"outcome": "handed_over", "error_code": "model_busy", **NAMED}, "settled"),
    (NAMED, "settled"),
    ({"outcome": "failed", "error_code": "nsfw_flagged"}, "settled"),
    ({"outcome": "failed", "error_code": "empty_output"}, "settled"),
    ({"outcome": "uncertain"}, "uncertain"),
    # a webhook's word is not confirmed yet
    ({"outcome": "uncertain", "webhook_request_id": "job-1"}, "uncertain"),
    ({}, "open"),
    (UNSENT, "released"),
    ({"outcome": "not_sent"}, "released"),
    ({"outcome": "superseded", **UNSENT}, "released"),
    ({"outcome": "cancelled", **UNSENT}, "released"),
    ({"outcome": "handed_over", "error_code": "model_busy"}, "released"),
    ({"outcome": "deferred", "error_code": "rate_limited"}, "released"),
    ({"outcome": "failed", "error_code": "connect_failed"}, "released"),
    ({"outcome": "failed", "error_code": "invalid_prompt"}, "released"),
    ({"outcome": "failed", "error_code": "api_key_refused"}, "released"),
]


async def test_what_becomes_of_an_attempts_price(steps: Steps) -> None:
    for columns, state in STATES:
        user = uuid4()
        record_id = await record(steps, user=user)
        await attempt(steps, record_id, **columns)
        total = (await ledger.usage(steps.database, user, Period())).total
        found = {"settled": total.cost_usd, "uncertain": total.uncertain_usd, "open": total.open_usd}
        assert found == {name: PRICE if name == state else 0 for name in found}, columns
        assert (total.attempts, total.uncertain_attempts) == (state != "released", state == "uncertain")
        image = await Reader(steps.database).record(user, record_id)
        assert image is not None
        assert f'"cost_usd" : {"0.033" if state == "settled" else "0"},' in image.text


async def test_sums_are_exact(steps: Steps) -> None:
    record_id = await record(steps)
    for _ in range(10):
        await attempt(steps, record_id, "0.1", outcome="success")
    await attempt(steps, record_id, "0.000001", outcome="success")
    # of before prices were kept
    await attempt(steps, record_id, None, outcome="success")
    total = await spent(steps)
    assert (total.cost_usd, total.pictures, total.attempts) == (Decimal("1.000001"), 12, 12)
    assert '"cost_usd":1.000001' in total.model_dump_json()


def waiting_of(claimed: Claimed) -> Waiting:
    return Waiting(**{name: getattr(claimed, name) for name in Waiting.__dataclass_fields__})


async def test_a_real_ways_price_from_step_to_step(steps: Steps) -> None:
    """Refused by one model, uncertain with the next, made by the third."""
    worker = await steps.worker()
    new = request(USER, chapter=CHAPTER)
    claimed = await steps.claimed(worker, new)
    assert await spent(steps) == Spent(
        images=1, pictures=0, attempts=0, cost_usd=0, uncertain_attempts=0, uncertain_usd=0, open_usd=0
    )
    await steps.mark(claimed)
    assert (await spent(steps)).open_usd == PRICE
    busy = Failure(ErrorClass.MODEL_UNAVAILABLE, "model_busy", "Later.")
    second = draft(waiting_of(claimed), model="second-model")
    assert second is not None
    following = await settling.next_model(steps.database, claim_of(claimed), busy, second)
    assert following is not None
    await steps.mark(following)
    silent = Failure(ErrorClass.TIMEOUT, "no_answer", "It is not known.")
    assert await steps.retry(following, silent, uncertain=True)
    total = await spent(steps)
    assert (total.cost_usd, total.uncertain_usd, total.uncertain_attempts) == (0, PRICE, 1)
    await steps.due(new.record_id)
    (third,) = await steps.claim(worker)
    await steps.mark(third)
    await steps.named(third)
    assert (await spent(steps)).cost_usd == PRICE
    await steps.generated(third)
    await steps.stored(third)
    usage = await ledger.usage(steps.database, USER, Period())
    assert usage.total == Spent(
        images=1, pictures=1, attempts=2, cost_usd=PRICE, uncertain_attempts=1, uncertain_usd=PRICE, open_usd=0
    )
    assert [(one.model_id, one.images, one.pictures, one.cost_usd) for one in usage.by_model] == [
        ("first-model", 1, 1, PRICE),
        ("second-model", 1, 0, 0),
    ]
    assert [(one.chapter_id, one.cost_usd) for one in usage.by_chapter] == [(CHAPTER, PRICE)]
    # the events of the way say nothing of it: they are written in the statement that changes it
    assert {one.data["cost_usd"] for one in await steps.told() if "cost_usd" in one.data} == {None}


async def test_a_retry_costs_again_and_a_refusal_does_not(steps: Steps) -> None:
    claimed = await steps.sent(None, request(USER))
    await steps.named(claimed)
    await steps.retry(claimed)
    assert (await spent(steps)).cost_usd == PRICE
    await steps.due(claimed.record_id)
    worker = await steps.worker()
    (again,) = await steps.claim(worker)
    await steps.mark(again)
    assert await settling.defer(steps.database, claim_of(again), BUSY, delay=1)
    total = await spent(steps)
    assert (total.cost_usd, total.attempts) == (PRICE, 1)


def at(day: str, clock: str = "12:00:00") -> datetime:
    return datetime.fromisoformat(f"{day}T{clock}+00:00")


async def test_days_are_of_utc_and_of_the_request_and_both_ends_are_included(steps: Steps) -> None:
    moments = [
        at("2026-03-01", "00:00:00"),
        at("2026-03-01", "23:59:59.999999"),
        at("2026-03-02", "00:00:00"),
        at("2026-03-05"),
    ]
    for moment in moments:
        # sent whenever it was
        await attempt(steps, await record(steps, at=moment), outcome="success")

    async def days(first: str, last: str) -> list[tuple[str, int]]:
        period = Period(date.fromisoformat(first), date.fromisoformat(last))
        usage = await ledger.usage(steps.database, USER, period)
        assert (usage.first, usage.last) == (period.first, period.last)
        assert usage.total.images == sum(one.images for one in usage.by_day)
        assert usage.total.cost_usd == sum(one.cost_usd for one in usage.by_day)
        return [(one.day.isoformat(), one.images) for one in usage.by_day]

    assert await days("2026-03-01", "2026-03-05") == [("2026-03-01", 2), ("2026-03-02", 1), ("2026-03-05", 1)]
    assert await days("2026-03-02", "2026-03-04") == [("2026-03-02", 1)]
    assert await days("2026-02-01", "2026-02-28") == []


async def test_a_period_without_ends_is_the_last_thirty_days(steps: Steps) -> None:
    today = datetime.now(UTC).date()
    usage = await ledger.usage(steps.database, USER, Period())
    # midnight may have passed meanwhile
    assert usage.last - today in (timedelta(0), timedelta(1))
    assert usage.last - usage.first == timedelta(29)
    until = await ledger.usage(steps.database, USER, Period(last=date(2026, 3, 30)))
    assert until.first == date(2026, 3, 1)
    since = await ledger.usage(steps.database, USER, Period(first=date(2026, 3, 1)))
    assert since.last >= today


async def test_nobody_elses_and_nothing_of_the_old_system_is_counted(steps: Steps) -> None:
    await attempt(steps, await record(steps, user=uuid4()), outcome="success")
    old = await record(steps)
    await steps.sql("UPDATE image_generations SET lane = NULL WHERE id = $1", old)
    assert (await spent(steps)).images == 0
    image = await Reader(steps.database).record(USER, old)
    assert image is not None
    assert '"cost_usd" : null' in image.text


async def test_chapters_are_told_apart_the_costliest_first(steps: Steps) -> None:
    cheap, dear, idle = uuid4(), uuid4(), uuid4()
    for chapter, cost, count in ((cheap, "0.033", 2), (dear, "0.18", 1), (None, "0.01", 1)):
        for _ in range(count):
            await attempt(steps, await record(steps, chapter=chapter), cost, outcome="success")
    await record(steps, chapter=idle)
    usage = await ledger.usage(steps.database, USER, Period())
    assert [(one.chapter_id, one.cost_usd, one.images) for one in usage.by_chapter] == [
        (dear, Decimal("0.18"), 1),
        (cheap, Decimal("0.066"), 2),
        (None, Decimal("0.01"), 1),
        (idle, 0, 1),
    ]
    assert usage.total.cost_usd == Decimal("0.256")
    # nothing was tried for the idle one's
    assert sum(one.images for one in usage.by_model) == 4
    one = await ledger.usage(steps.database, USER, Period(), chapter_id=cheap)
    assert (one.total.cost_usd, [chapter.chapter_id for chapter in one.by_chapter]) == (Decimal("0.066"), [cheap])


async def test_of_many_chapters_the_costliest_thousand_are_told(steps: Steps) -> None:
    await steps.sql(
        """INSERT INTO image_generations (id, user_id, chapter_id, scene_number, status, version, lane, created_at)
        SELECT gen_random_uuid(), $1, gen_random_uuid(), 1, 'pending', 1, 'standard', now()
        FROM generate_series(1, 1100)""",
        USER,
    )
    usage = await ledger.usage(steps.database, USER, Period())
    assert (len(usage.by_chapter), usage.total.images) == (1000, 1100)


async def test_it_reads_what_it_adds_up_and_not_the_tables(steps: Steps) -> None:
    await steps.sql(
        """INSERT INTO image_generations (id, user_id, chapter_id, scene_number, status, version, lane, created_at)
        SELECT gen_random_uuid(), CASE WHEN i % 100 = 0 THEN $1 ELSE gen_random_uuid() END, gen_random_uuid(), 1,
            'completed', 1, 'standard', now() - make_interval(days => i / 100)
        FROM generate_series(0, 19999) i""",
        USER,
    )
    await steps.sql(
        """INSERT INTO generation_attempts (id, record_id, attempt, model_id, prompt, path, payload, outcome, cost)
        SELECT gen_random_uuid(), id, 1, 'm', 'p', '/', '{}', 'success', 0.033 FROM image_generations"""
    )
    await steps.sql("ANALYZE")
    await spent(steps)
    before = await _rows_read(steps)
    assert (await spent(steps)).cost_usd == 30 * PRICE
    assert await _rows_read(steps) - before < 200


async def _rows_read(steps: Steps) -> int:
    await steps.sql("SELECT pg_stat_force_next_flush()")
    (row,) = await steps.sql(
        "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint AS rows FROM pg_stat_user_tables"
        " WHERE relname IN ('image_generations', 'generation_attempts')"
    )
    return int(row.rows)
