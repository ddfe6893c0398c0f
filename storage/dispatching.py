"""Dispatch: due records, in fair order, for free slots (PIPELINE D2 to D5)."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from pydantic_core import from_json, to_json
from sqlalchemy import Row
from uuid_utils.compat import uuid7

from storage import probes
from storage.breakers import Rules
from storage.database import Database, Transaction
from storage.fragments import ANSWERED, DEADLINE, KEPT, OPEN_SECONDS_NOW, READ_WOKEN, WOKEN, tell_status
from storage.probes import NO_PROBE_YET, OPEN_BREAKERS, Shut
from storage.tables import WAITING
from storage.turns import LANE_WEIGHTS, take_turns


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a draft of the next attempt is made from."""

    record_id: UUID
    attempt: int
    image_type: str
    scene_description: str
    style: str
    aspect_ratio: str
    custom_prompt: str | None
    user_tier: str
    reference_urls: list[str]


@dataclass(frozen=True, slots=True)
class Draft:
    """One attempt as it will be sent; frozen in its row, so that any resume uses the same. `cost` in US dollars."""

    model_id: str
    prompt: str
    path: str
    payload: dict[str, object]
    cost: float | None
    webhook_token: str | None = None

    def columns(self) -> tuple[object, ...]:
        """Of generation_attempts: model_id, prompt, path, payload as text, cost, webhook_token."""
        return (self.model_id, self.prompt, self.path, to_json(self.payload).decode(), self.cost, self.webhook_token)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A worker's fenced right to work on one record, and the attempt it works on."""

    record_id: UUID
    attempt_id: UUID
    attempt: int
    claim_token: UUID
    model_id: str
    prompt: str
    path: str
    payload: dict[str, object]
    webhook_token: str | None
    retry_count: int
    takeovers: int
    lane: str
    user_tier: str
    image_type: str
    scene_description: str
    style: str
    aspect_ratio: str
    custom_prompt: str | None
    reference_urls: list[str]
    traceparent: str | None
    sent: bool
    # seconds from the submit to the claim, of an attempt that somebody sent before
    sent_for: float | None
    outcome: str | None
    provider_request_id: str | None
    # the id is a webhook's word: a fetch must confirm it before it counts; where the picture is made it says nothing
    unconfirmed: bool
    fetch_url: str | None
    eta: float | None
    output_urls: list[str] | None
    proxy_urls: list[str]
    # seconds from the claim to the record's deadline
    seconds_left: float


REFERENCE_URLS = "g.metadata -> 'character_image_urls' AS reference_urls"
SECONDS_LEFT = f"extract(epoch FROM {DEADLINE} - now())::float8"

CLAIMED_COLUMNS = f"""g.id AS record_id, a.id AS attempt_id, a.attempt, g.claim_token, a.model_id, a.prompt, a.path,
    a.payload, a.webhook_token, g.retry_count, g.takeovers, g.lane, g.user_tier, g.image_type, g.scene_description,
    g.style, g.aspect_ratio, g.custom_prompt, {REFERENCE_URLS}, g.traceparent, a.sent_at IS NOT NULL AS sent,
    extract(epoch FROM now() - a.sent_at)::float8 AS sent_for, a.outcome,
    coalesce(a.provider_request_id, CASE WHEN a.output_urls IS NULL THEN a.webhook_request_id END)
        AS provider_request_id,
    a.provider_request_id IS NULL AND a.webhook_request_id IS NOT NULL AND a.output_urls IS NULL AS unconfirmed,
    a.fetch_url,
    a.eta::float8 AS eta, a.output_urls, a.proxy_urls,
    {SECONDS_LEFT} AS seconds_left"""


def claimed(row: Row[Any]) -> Claimed:
    """The `Claimed` that a row of `CLAIMED_COLUMNS` holds."""
    values = dict(row._mapping)
    values.pop("woken", None)
    values["payload"] = from_json(values["payload"])
    values["reference_urls"] = _addresses(values["reference_urls"])
    values["output_urls"] = from_json(values["output_urls"]) if values["output_urls"] else None
    values["proxy_urls"] = from_json(values["proxy_urls"]) if values["proxy_urls"] else []
    return Claimed(**values)


# OFFSET 0 keeps the question about attempts one look per candidate: as a join it would read every open attempt for each
# of them. Who has no turn yet stands behind all others in the index and is not looked at.
DUE = f"""{WAITING} AND g.turn IS NOT NULL AND g.admitted_at IS NOT NULL
        AND (g.retry_at IS NULL OR g.retry_at <= now()) AND {DEADLINE} > now()
        AND NOT EXISTS (
            SELECT FROM generation_attempts a
            WHERE a.record_id = g.id AND a.sent_at IS NOT NULL AND a.outcome IS NULL OFFSET 0)
        AND NOT EXISTS (
            SELECT FROM generation_attempts o
            WHERE o.record_id = g.id AND (o.outcome IS NULL OR o.outcome = 'uncertain') AND {ANSWERED} OFFSET 0)
        AND NOT EXISTS (SELECT FROM generation_attempts k WHERE k.record_id = g.id AND {KEPT} OFFSET 0)"""
"""A record `g` that may be dispatched."""

LIGHT = """(
    SELECT count(*) < 4 * (SELECT count(*) FROM provider_slots) FROM image_generations
    WHERE claim_token IS NOT NULL AND stage = 'storing' AND status = 'in_progress')"""
"""Not too much is being stored."""


def _due(lane: str) -> str:
    return f"""{lane} AS (
    SELECT g.id AS record_id, g.attempt, g.image_type, g.scene_description, g.style, g.aspect_ratio, g.custom_prompt,
        g.user_tier, {REFERENCE_URLS}, g.lane, g.turn, g.created_at
    FROM image_generations g
    WHERE {DUE} AND g.lane = '{lane}'
    ORDER BY g.turn, g.created_at, g.id LIMIT (SELECT count(*) FROM free) FOR UPDATE OF g SKIP LOCKED)"""


# One dispatcher decides at a time: the lanes' rows are its lock, and what they keep is the fairness. Each lane offers
# as many as there are free slots; while too much is being stored nothing new is begun (D2).
_OFFER = f"""
WITH load AS (SELECT {LIGHT} AS light
), free AS (
    SELECT slot FROM provider_slots WHERE attempt_id IS NULL AND free_at <= now() AND (SELECT light FROM load)
        AND NOT {NO_PROBE_YET}
    ORDER BY slot LIMIT $1 FOR UPDATE SKIP LOCKED
), order_kept AS (SELECT lane, credit, turn FROM lanes ORDER BY lane FOR UPDATE
), {", ".join(_due(lane) for lane in LANE_WEIGHTS)}
SELECT due.*, (SELECT array_agg(slot) FROM free) AS slots,
    (SELECT json_agg(json_build_array(lane, credit, turn)) FROM order_kept) AS lanes, {OPEN_BREAKERS}
FROM ({" UNION ALL ".join(f"SELECT * FROM {lane}" for lane in LANE_WEIGHTS)}) due
ORDER BY due.lane, due.turn, due.created_at, due.record_id
"""

# an attempt that was handed back unsent keeps its row: its model, prompt and payload stay as they were frozen
_CLAIM = f"""
WITH picked AS (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[],
        $9::jsonb[], $10::float8[], $11::text[])
    AS p(record_id, attempt, slot, attempt_id, token, model_id, prompt, path, payload, cost, webhook_token)
), a AS (
    INSERT INTO generation_attempts AS t (id, record_id, attempt, pass, worker_id, claim_token, model_id, prompt, path,
        payload, cost, webhook_token, claimed_at)
    SELECT p.attempt_id, p.record_id, p.attempt, g.retry_count, $12, p.token, p.model_id, p.prompt, p.path,
        p.payload, p.cost, p.webhook_token, now()
    FROM picked p JOIN image_generations g ON g.id = p.record_id
    ON CONFLICT (record_id, attempt)
        DO UPDATE SET worker_id = excluded.worker_id, claim_token = excluded.claim_token, claimed_at = now()
        WHERE t.sent_at IS NULL AND t.outcome IS NULL
    RETURNING t.*
), bound AS (
    UPDATE provider_slots s SET attempt_id = a.id FROM picked p JOIN a USING (record_id) WHERE s.slot = p.slot
    RETURNING s.slot
), told_rows AS (
    UPDATE image_generations g SET status = 'in_progress', stage = 'submitting', progress = 5,
        version = g.version + 1, claim_token = a.claim_token, worker_id = $12, model_id = a.model_id, retry_at = NULL,
        deadline_at = CASE WHEN g.first_dispatched_at IS NOT NULL THEN g.deadline_at
            ELSE now() + make_interval(secs => CASE g.lane WHEN 'bulk' THEN $14::float8 ELSE $13::float8 END) END,
        paused_seconds = CASE WHEN g.first_dispatched_at IS NOT NULL THEN g.paused_seconds ELSE {OPEN_SECONDS_NOW} END,
        first_dispatched_at = coalesce(g.first_dispatched_at, now()), updated_at = now()
    FROM a WHERE g.id = a.record_id RETURNING g.*
), kept AS (
    UPDATE lanes SET credit = k.credit, turn = greatest(lanes.turn, k.turn)
    FROM unnest($15::text[], $16::int[], $17::bigint[]) AS k(lane, credit, turn) WHERE lanes.lane = k.lane
), told AS ({tell_status("consumer", "told_rows")}), {WOKEN}
SELECT {CLAIMED_COLUMNS}, {READ_WOKEN} FROM told_rows g JOIN a ON a.record_id = g.id
"""


class Dispatcher:
    """Claims for one worker. Both callables must be pure functions.

    `draft` makes the next attempt of a waiting record without the models named, or None where its chain has no other;
    `models` names its chain. `run_deadline` and `bulk_deadline`: seconds from the first dispatch in which a record must
    end.
    """

    def __init__(
        self,
        database: Database,
        draft: Callable[[Waiting, Collection[str]], Draft | None],
        *,
        run_deadline: float,
        bulk_deadline: float,
        models: Callable[[Waiting], Collection[str]] = lambda _: (),
        rules: Rules = Rules(),  # noqa: B008 - frozen
    ) -> None:
        self._database = database
        self._draft = draft
        self._models = models
        self._rules = rules
        self._run_deadline = run_deadline
        self._bulk_deadline = bulk_deadline

    async def claim(self, worker_id: UUID, *, limit: int = 50) -> list[Claimed]:
        """Claim as many due records as there are free slots, `limit` at most, in fair order. Raises `Unavailable`."""

        async def work(tx: Transaction) -> tuple[list[Claimed], int]:
            return await self._claim(tx, worker_id, limit)

        while True:
            claims, put_off = await self._database.run(work)
            # whoever was put off stands no longer before the others
            if claims or not put_off:
                return claims

    async def _claim(self, tx: Transaction, worker_id: UUID, limit: int) -> tuple[list[Claimed], int]:
        due = await tx.fetch(_OFFER, limit)
        if not due:
            return [], 0
        lanes: dict[str, list[int]] = {lane: [credit, turn] for lane, credit, turn in from_json(due[0].lanes)}
        free: list[int] = due[0].slots
        shut = Shut(due[0].open_breakers, self._rules)
        if shut.provider:
            if not await shut.probe(tx):
                return [], 0
            # the one that was tried least: one that fails for reasons of its own must not probe for ever
            due = [min(due, key=lambda row: (row.attempt, row.turn, row.created_at, row.record_id))]
        rows, put_off = [], []
        for row, slot in zip(take_turns(due, lanes, len(free)), free, strict=False):
            waiting = _waiting(row)
            draft = await shut.choose(tx, partial(self._drafted, waiting))
            if draft is None:
                put_off.append((row.record_id, shut.pause(self._models(waiting))))
                continue
            rows.append(
                (
                    row.record_id,
                    row.attempt,
                    slot,
                    uuid7(),
                    uuid4(),
                    *draft.columns(),
                )
            )
        if put_off:
            await probes.put_off(tx, put_off)
        if not rows:
            return [], len(put_off)
        made = await tx.fetch(
            _CLAIM,
            *(list(column) for column in zip(*rows, strict=True)),
            worker_id,
            self._run_deadline,
            self._bulk_deadline,
            list(lanes),
            [credit for credit, _ in lanes.values()],
            [turn for _, turn in lanes.values()],
        )
        await shut.name(tx, made)
        # in the order in which they were picked: it is also the order in which the worker begins
        order = {record_id: place for place, (record_id, *_) in enumerate(rows)}
        return sorted(map(claimed, made), key=lambda one: order[one.record_id]), len(put_off)

    def _drafted(self, waiting: Waiting, shut: Collection[str]) -> tuple[Draft, str] | None:
        draft = self._draft(waiting, shut)
        return None if draft is None else (draft, draft.model_id)


def _waiting(row: Row[Any]) -> Waiting:
    return Waiting(
        record_id=row.record_id,
        attempt=row.attempt,
        image_type=row.image_type,
        scene_description=row.scene_description,
        style=row.style,
        aspect_ratio=row.aspect_ratio,
        custom_prompt=row.custom_prompt,
        user_tier=row.user_tier,
        reference_urls=_addresses(row.reference_urls),
    )


def _addresses(kept: str | None) -> list[str]:
    """Of `metadata`, which others may have written too: whatever is no list of texts counts as none."""
    found = from_json(kept) if kept else None
    return [address for address in found if isinstance(address, str)] if isinstance(found, list) else []
