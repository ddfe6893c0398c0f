"""Replay: what died gets another try, by an operator's word alone (PIPELINE F1, F2).

A record returns to `pending` by one UPDATE that is fenced by the attempt that died: whoever replays second, or holds an
older letter, changes nothing. Its attempts and letters stay as history, so that an answer that the provider gave is not
paid for again. An event is put into the outbox as it was.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas import events, topics
from schemas.letters import LetterChoice, LetterGroup, Refusal, Refused, ReplayOutcome
from storage import letters
from storage.admitting import TURN
from storage.database import Database, Transaction
from storage.fragments import OPEN_SECONDS_NOW, READ_WOKEN, WOKEN, cloud_event, tell_status
from storage.letters import AND_ITS_RECORD, REFUSAL, Condition
from storage.settling import RETRY_DATA

SOURCE = "replay"
TOGETHER = 100
"""Letters that are replayed in one transaction, at most."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay would do: the groups it would touch, and how many letters it would skip for what."""

    #: of the first `limit`; `replayable` counts all
    groups: list[LetterGroup]
    replayable: int
    reasons: dict[Refusal, int]


@dataclass(frozen=True, slots=True)
class Replayed:
    """By letter: replayed, or why not."""

    done: list[int] = field(default_factory=list)
    refused: dict[int, Refusal] = field(default_factory=dict)

    def add(self, more: "Replayed") -> None:
        self.done.extend(more.done)
        self.refused.update(more.refused)


def _chosen(choice: LetterChoice, ids: Sequence[int] | None) -> Condition:
    where = Condition(choice)
    if ids is not None:
        return where.also("l.id = ANY({}::bigint[])", list(ids))
    # what was replayed is no candidate; named by its id it is refused
    return where.also("l.replayed_at IS NULL")


async def plan(
    database: Database, choice: LetterChoice, *, ids: Sequence[int] | None = None, limit: int | None = None
) -> Plan:
    """Count what `replay` would do for these letters, `limit` of them at most, the oldest first."""
    where = _chosen(choice, ids)
    rows = await database.fetch(
        f"SELECT {REFUSAL} AS refusal, count(*) AS letters FROM {AND_ITS_RECORD} WHERE {where} GROUP BY 1",
        *where.values,
    )
    replayable = sum(row.letters for row in rows if row.refusal is None)
    reasons = {Refusal(row.refusal): int(row.letters) for row in rows if row.refusal is not None}
    if ids is not None and (unknown := len(set(ids)) - replayable - sum(reasons.values())):
        reasons[Refusal.UNKNOWN] = unknown
    most = where.parameter(limit)
    source = f"""(SELECT l.* FROM {AND_ITS_RECORD} WHERE {where} AND {REFUSAL} IS NULL
        ORDER BY l.failed_at, l.id LIMIT {most}::bigint) l"""
    return Plan(await letters.groups(database, source, where.values), replayable, reasons)


async def candidates(database: Database, choice: LetterChoice, *, limit: int | None = None) -> list[int]:
    """Letters that can be replayed, `limit` at most, the oldest first."""
    where = _chosen(choice, None)
    most = where.parameter(limit)
    rows = await database.fetch(
        f"SELECT l.id FROM {AND_ITS_RECORD} WHERE {where} AND {REFUSAL} IS NULL"
        f" ORDER BY l.failed_at, l.id LIMIT {most}::bigint",
        *where.values,
    )
    return [row.id for row in rows]


# The retry event wakes a dispatcher at once. `admitted_at` stays: who was admitted waits again, with a turn of its own,
# so that a thousand replays stand behind other users' first scenes.
_RECORDS = f"""
WITH asked AS (
    SELECT l.id AS letter_id, l.record_id, l.attempt FROM dead_letters l
    WHERE l.id = ANY($1::bigint[]) AND l.body IS NULL AND l.replayed_at IS NULL
), held AS (
    SELECT g.id, g.user_id, g.lane, g.attempt, g.admitted_at IS NOT NULL AS admitted, a.letter_id AS ordinal
    FROM image_generations g JOIN asked a ON a.record_id = g.id
    WHERE g.attempt = a.attempt AND g.status = 'failed' AND g.lane IS NOT NULL
    ORDER BY g.id FOR UPDATE OF g
), turns AS (
    SELECT h.id, {TURN.format(row="h")} AS turn FROM held h WHERE h.admitted
), told_rows AS (
    UPDATE image_generations g SET status = 'pending', stage = 'queued', progress = 0, version = g.version + 1,
        attempt = g.attempt + 1, replay_attempt = g.attempt + 1, retry_count = 0, takeovers = 0, retry_at = NULL,
        error_class = NULL, error_code = NULL, error_message = NULL, turn = coalesce(turns.turn, g.turn),
        first_dispatched_at = NULL, deadline_at = now() + make_interval(secs => $2),
        paused_seconds = {OPEN_SECONDS_NOW}, completed_at = NULL, updated_at = now()
    FROM held LEFT JOIN turns USING (id)
    WHERE g.id = held.id AND g.attempt = held.attempt AND g.status = 'failed' AND g.lane IS NOT NULL
    RETURNING g.*
), marked AS (
    UPDATE dead_letters l SET replayed_at = now() FROM told_rows g
    WHERE l.record_id = g.id AND l.attempt = g.attempt - 1 AND l.body IS NULL AND l.replayed_at IS NULL
), told AS ({tell_status(SOURCE, "told_rows")}), wakes AS (
    INSERT INTO outbox (topic, key, headers, body)
    SELECT '{topics.retry(topics.RETRY_TIERS[0])}', g.id::text, jsonb_build_object(
            'not-before', ceil(extract(epoch FROM now()) * 1000)::bigint::text, 'attempt', g.attempt::text),
        {cloud_event(SOURCE, events.RETRY_TYPE, RETRY_DATA, key="g.id::text")}
    FROM told_rows g
), {WOKEN}
SELECT asked.letter_id, {READ_WOKEN}
FROM told_rows g JOIN asked ON asked.record_id = g.id AND asked.attempt = g.attempt - 1
"""

# What an older version buried goes without key and headers: it kept neither. The relay's own rows go back as they were.
_EVENTS = f"""
WITH held AS (
    SELECT l.* FROM dead_letters l
    WHERE l.id = ANY($1::bigint[]) AND l.body IS NOT NULL AND l.replayed_at IS NULL ORDER BY l.id FOR UPDATE
), marked AS (
    UPDATE dead_letters l SET replayed_at = now() FROM held WHERE l.id = held.id RETURNING l.id
), sent AS (
    INSERT INTO outbox (topic, key, headers, body, original)
    SELECT coalesce(h.origin_topic, h.topic), CASE WHEN h.origin_topic IS NULL THEN h.headers ->> 'key' END,
        CASE WHEN h.origin_topic IS NULL THEN h.headers - 'key' END, h.body,
        CASE WHEN h.origin_topic IS NULL THEN h.original
            ELSE coalesce(h.original, '{{"key": null, "headers": []}}') END
    FROM held h ORDER BY h.id
), {WOKEN}
SELECT m.id AS letter_id, {READ_WOKEN} FROM marked m
"""

# in a statement of its own: who waited for another replay must see what that one wrote
_REFUSED = f"""
SELECT l.id, coalesce({REFUSAL}, '{Refusal.NOT_FAILED}') AS refusal FROM {AND_ITS_RECORD} WHERE l.id = ANY($1::bigint[])
"""


async def replay(database: Database, ids: Sequence[int], *, deadline: float) -> Replayed:
    """Replay these letters, `TOGETHER` at most, in one transaction.

    `deadline`: seconds that a record may take in all from now on. Raises `Unavailable`: then it is not known whether
    they were; asked again, those that were are refused.
    """
    assert len(ids) <= TOGETHER

    async def work(tx: Transaction) -> Replayed:
        done = [row.letter_id for row in await tx.fetch(_RECORDS, list(ids), deadline)]
        done += [row.letter_id for row in await tx.fetch(_EVENTS, list(ids))]
        left = set(ids) - set(done)
        refused = dict.fromkeys(left, Refusal.UNKNOWN)
        if left:
            refused |= {row.id: Refusal(row.refusal) for row in await tx.fetch(_REFUSED, sorted(left))}
        return Replayed(sorted(done), dict(sorted(refused.items())))

    return await database.run(work)


def would(plan: Plan, *, limit: int | None = None) -> ReplayOutcome:
    """What to tell of a dry run."""
    replayed = plan.replayable if limit is None else min(limit, plan.replayable)
    return ReplayOutcome(
        dry_run=True,
        replayed=replayed,
        skipped=sum(plan.reasons.values()),
        reasons=plan.reasons,
        refused=[],
        left=plan.replayable - replayed,
        groups=plan.groups,
    )


def outcome(plan: Plan, replayed: Replayed, *, named: bool, left: int) -> ReplayOutcome:
    """What to tell of a replay after which `left` letters are still to be asked for.

    `named`: by their ids. Then each one that was skipped is told, and the plan's reasons are among them.
    """
    reasons = Counter(replayed.refused.values()) + Counter({} if named else plan.reasons)
    told = [Refused(id=letter, code=code, message=code.sentence) for letter, code in replayed.refused.items()]
    return ReplayOutcome(
        dry_run=False,
        replayed=len(replayed.done),
        skipped=reasons.total(),
        reasons=dict(reasons),
        refused=told if named else [],
        left=left,
        groups=[],
    )
