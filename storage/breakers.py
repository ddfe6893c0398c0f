"""Breakers: while the provider, or one of its models, fails everybody, nobody's scenes are spent on it (PIPELINE K).

Scope `provider` opens by refusals of the account and by outages; scope `model:<id>` by that model's own refusals. Each
attempt carries the epoch in which it was sent, and only answers of the current one count: what was on its way while the
breaker opened or closed says nothing of what it is now. Epochs are drawn from one sequence for all scopes, so that one
number in the attempt is enough. Rows of this table are locked after all others.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from storage.database import Database, Transaction

PROVIDER = "provider"


def model_scope(model_id: str) -> str:
    return f"model:{model_id}"


class Failing(StrEnum):
    """What fails in a row. Another kind of failure begins a row of its own."""

    AUTH = "auth"
    QUOTA = "quota"
    OUTAGE = "outage"
    MODEL = "model_unavailable"


@dataclass(frozen=True, slots=True)
class Rules:
    """When a breaker opens, and how often it is probed (`span`, `probe` in seconds)."""

    denials: int = 3
    outages: int = 10
    span: float = 10.0
    records: int = 5
    probe: float = 15.0


@dataclass(frozen=True, slots=True)
class Row:
    """Failures of one kind in a row, since `age` seconds, of at least these records."""

    failing: Failing
    failures: int
    age: float
    records: Collection[UUID]


def opens(row: Row, rules: Rules, *, others_open: bool) -> bool:
    """Whether this row opens its breaker.

    A refusal is an answer, so few are enough. An outage is believed when it lasts and hits several records; where there
    are not so many, when it hits all that are open (`others_open`: some open record is not among `row.records`).
    """
    if row.failing is not Failing.OUTAGE:
        return row.failures >= rules.denials
    if row.failures < rules.outages or row.age < rules.span:
        return False
    return len(row.records) >= rules.records or not others_open


@dataclass(frozen=True, slots=True)
class Noted:
    """What stands after a failure was noted: `paused`, the provider's breaker is open; `opened`, by this very failure.

    `shut`: models whose breaker is open, with the seconds to their next probe.
    """

    paused: bool
    opened: Sequence[str] = ()
    shut: Mapping[str, float] = field(default_factory=dict)


# the attempt's own number is taken away with it: the same answer counts once, however often it is written down
_TAKE = """
SELECT record_id, model_id, breaker_epoch FROM generation_attempts
WHERE id = $1 AND breaker_epoch IS NOT NULL FOR UPDATE
"""
_SPEND = "UPDATE generation_attempts SET breaker_epoch = NULL WHERE id = $1"

_MAKE_SCOPE = "INSERT INTO breakers (scope) VALUES ($1) ON CONFLICT (scope) DO NOTHING"

_LOCK = """
SELECT scope, epoch, failing_class, failures, records, opened_at IS NOT NULL AS open,
    coalesce(extract(epoch FROM clock_timestamp() - failing_since), 0)::float8 AS age
FROM breakers WHERE scope = $1 FOR UPDATE
"""

_OTHERS_OPEN = """
SELECT EXISTS (SELECT FROM image_generations WHERE lane IS NOT NULL AND status IN ('pending', 'in_progress')
    AND id <> ALL ($1::uuid[])) AS others
"""

_COUNT = """
UPDATE breakers SET failing_class = $2, failures = $3, records = $4::uuid[],
    failing_since = CASE WHEN $5::bool THEN clock_timestamp() ELSE failing_since END, updated_at = clock_timestamp()
WHERE scope = $1
"""

_OPEN = """
UPDATE breakers SET opened_at = clock_timestamp(), epoch = (SELECT max(epoch) + 1 FROM breakers), probe_attempt = NULL,
    probe_until = clock_timestamp() + make_interval(secs => $2), updated_at = clock_timestamp()
WHERE scope = $1
"""

TROUBLED = "EXISTS (SELECT FROM breakers WHERE failures > 0 OR opened_at IS NOT NULL)"
"""Whether an answer may change anything here: `well` is asked only then."""

_STATE = """
SELECT scope, extract(epoch FROM probe_until - clock_timestamp())::float8 AS pause
FROM breakers WHERE opened_at IS NOT NULL
"""

_WELL = """
WITH a AS (
    SELECT 'model:' || model_id AS model, breaker_epoch AS epoch FROM generation_attempts
    WHERE id = ANY ($1::uuid[]) AND breaker_epoch IS NOT NULL
), well AS (
    SELECT b.scope FROM breakers b
    WHERE (b.failures > 0 OR b.opened_at IS NOT NULL)
        AND EXISTS (SELECT FROM a WHERE b.scope IN ('provider', a.model) AND a.epoch >= b.epoch)
        AND (b.scope = 'provider' OR $2::bool)
    ORDER BY b.scope FOR UPDATE
)
UPDATE breakers b SET failures = 0, failing_class = NULL, failing_since = NULL, records = '{}',
    open_seconds = b.open_seconds + coalesce(extract(epoch FROM clock_timestamp() - b.opened_at), 0),
    epoch = CASE WHEN b.opened_at IS NULL THEN b.epoch ELSE (SELECT max(epoch) + 1 FROM breakers) END,
    opened_at = NULL, probe_attempt = NULL, probe_until = NULL, updated_at = clock_timestamp()
FROM well WHERE b.scope = well.scope
RETURNING b.scope
"""


async def failed(database: Database, attempt_id: UUID, failing: Failing, rules: Rules) -> Noted:
    """Note a failure that may open a breaker, and tell what is open now. Raises `Unavailable`."""

    async def work(tx: Transaction) -> Noted:
        taken = await tx.fetch(_TAKE, attempt_id)
        opened: list[str] = []
        for attempt in taken:
            scope = PROVIDER
            if failing is Failing.MODEL:
                # of the provider itself it is an answer
                await tx.fetch(_WELL, [attempt_id], False)
                scope = model_scope(attempt.model_id)
                await tx.fetch(_MAKE_SCOPE, scope)
            if await _count(tx, scope, failing, attempt.record_id, attempt.breaker_epoch, rules):
                opened.append(scope)
            await tx.fetch(_SPEND, attempt_id)
        return await _noted(tx, opened)

    return await database.run(work)


async def stands(database: Database) -> Noted:
    """What is open, with nothing noted. Raises `Unavailable`."""
    return await database.run(_noted)


async def _count(tx: Transaction, scope: str, failing: Failing, record_id: UUID, epoch: int, rules: Rules) -> bool:
    (stands,) = await tx.fetch(_LOCK, scope)
    if stands.open or epoch < stands.epoch:
        return False
    goes_on = stands.failing_class == failing
    records = [*dict.fromkeys([*(stands.records if goes_on else ()), record_id])][: max(rules.records, 1)]
    row = Row(failing, stands.failures + 1 if goes_on else 1, stands.age if goes_on else 0.0, records)
    await tx.fetch(_COUNT, scope, failing.value, row.failures, records, not goes_on)
    if not opens(row, rules, others_open=False):
        return False
    if not opens(row, rules, others_open=True):
        (open_records,) = await tx.fetch(_OTHERS_OPEN, records)
        if open_records.others:
            return False
    await tx.fetch(_OPEN, scope, rules.probe)
    return True


async def _noted(tx: Transaction, opened: Sequence[str] = ()) -> Noted:
    pauses = {row.scope: max(0.0, row.pause) for row in await tx.fetch(_STATE)}
    shut = {scope.removeprefix("model:"): pause for scope, pause in pauses.items() if scope != PROVIDER}
    return Noted(PROVIDER in pauses, tuple(opened), shut)


async def well(tx: Transaction, attempt_ids: Sequence[UUID], *, model: bool = True) -> list[str]:
    """The provider answered these attempts: end the rows of failures they belong to, close what they probed.

    `model`: their models did, too. Gives the scopes that were in trouble.
    """
    return [row.scope for row in await tx.fetch(_WELL, list(attempt_ids), model)]


async def answered(database: Database, attempt_id: UUID, *, model: bool = True) -> list[str]:
    """The same for one attempt, in a transaction of its own. Raises `Unavailable`."""

    async def work(tx: Transaction) -> list[str]:
        return await well(tx, [attempt_id], model=model)

    return await database.run(work)


_SHOW = """
SELECT scope, opened_at IS NOT NULL AS open,
    coalesce(extract(epoch FROM clock_timestamp() - opened_at), 0)::float8 AS open_for, open_seconds::float8 AS total
FROM breakers
"""


@dataclass(frozen=True, slots=True)
class State:
    """One breaker; `open_for` and `total` (of all earlier times) in seconds."""

    open: bool
    open_for: float
    total: float


async def states(database: Database) -> Mapping[str, State]:
    """Every scope that ever failed, and `provider`."""
    return {row.scope: State(row.open, row.open_for, row.total) for row in await database.fetch(_SHOW)}
