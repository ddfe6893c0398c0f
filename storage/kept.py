"""Attempts whose records have ended or gone on without them: followed to their end under the attempt's own claim, their
pictures kept, and what a replay makes of those (PIPELINE F3, T2, W6).

Nothing here but `complete_replayed` touches a record.
"""

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Row

from storage.answers import COMPLETED, Stored
from storage.database import Database
from storage.fragments import ANSWERED, ENDED, KEPT, READ_WOKEN
from storage.settling import Claim, Failure

# the record is locked: while it is replayed nothing is written that the replay would not see
_HELD = f"""held AS (
    SELECT a.id FROM generation_attempts a JOIN image_generations g ON g.id = a.record_id
    WHERE a.id = $2 AND a.claim_token = $1 AND {ENDED} FOR UPDATE OF g
)"""
_FREED = "UPDATE provider_slots s SET attempt_id = NULL FROM a WHERE s.attempt_id = a.id"
_OURS = "a.id = held.id AND a.claim_token = $1 AND (a.outcome IS NULL OR a.outcome = 'uncertain')"

_MADE = f"""
WITH {_HELD}, a AS (
    UPDATE generation_attempts a SET provider_request_id = coalesce(a.provider_request_id, $3),
        output_urls = coalesce(a.output_urls, $4::jsonb), proxy_urls = coalesce(a.proxy_urls, $5::jsonb),
        generated_at = coalesce(a.generated_at, now())
    FROM held WHERE {_OURS} RETURNING a.id
), freed AS ({_FREED})
SELECT id FROM a
"""


async def made(
    database: Database,
    claim: Claim,
    *,
    provider_request_id: str | None,
    output_urls: Sequence[str],
    proxy_urls: Sequence[str],
) -> bool:
    """The provider has made the picture of an ended record: keep its addresses and free the slot.

    False: the record has not ended, or the attempt is in other hands: whoever has it goes on.
    """
    return bool(
        await database.fetch(
            _MADE,
            claim.claim_token,
            claim.attempt_id,
            provider_request_id,
            to_json(list(output_urls)).decode(),
            to_json(list(proxy_urls)).decode(),
        )
    )


_STORED = f"""
WITH {_HELD}, a AS (
    UPDATE generation_attempts a SET outcome = 'late_success', counted = true, closed_at = now(),
        image_key = $3, image_url = $4, picture = $5::jsonb
    FROM held WHERE {_OURS} RETURNING a.id
), freed AS ({_FREED})
SELECT id FROM a
"""


async def stored(database: Database, picture: Stored) -> bool:
    """The picture of an ended record is stored: a replay completes from it. False as in `made`."""
    return bool(
        await database.fetch(
            _STORED,
            picture.claim_token,
            picture.attempt_id,
            picture.image_key,
            picture.image_url,
            to_json(picture.facts).decode(),
        )
    )


# A record that was replayed while the call was open does not wait for this attempt's answer: without one it is closed
# here, with one it is resumed by whoever comes.
_CLOSE = f"""
WITH a AS (
    UPDATE generation_attempts o SET
        outcome = CASE WHEN o.outcome = 'uncertain' AND $3 = 'failed' THEN 'late_failure' ELSE $3 END,
        counted = true, closed_at = now(), error_class = coalesce($4, o.error_class),
        error_code = coalesce($5, o.error_code), error_detail = coalesce($6, o.error_detail)
    FROM image_generations g
    WHERE o.id = $2 AND o.claim_token = $1 AND g.id = o.record_id
        AND (o.outcome IS NULL OR o.outcome = 'uncertain' AND $3 <> 'uncertain')
        AND ({ENDED} OR o.outcome IS NULL AND g.claim_token IS DISTINCT FROM o.claim_token AND NOT {ANSWERED})
    RETURNING o.id
), freed AS ({_FREED})
SELECT id FROM a
"""


async def close(database: Database, claim: Claim, outcome: str, why: Failure | None = None) -> bool:
    """Note how an attempt ended whose record ended before it, or goes on without it; its slot falls free.

    `outcome`: `failed`, `uncertain`, or `late_success` where only the picture's addresses are left. False: it has been
    noted, or is somebody else's to note.
    """
    reasons = (None, None, None) if why is None else (why.error_class.value, why.code, why.detail)
    return bool(await database.fetch(_CLOSE, claim.claim_token, claim.attempt_id, outcome, *reasons))


_LET_GO = f"""
UPDATE generation_attempts a SET claim_token = NULL, worker_id = NULL FROM image_generations g
WHERE a.id = $2 AND a.claim_token = $1 AND g.id = a.record_id AND {ENDED}
    AND (a.outcome IS NULL OR a.outcome = 'uncertain')
"""


async def let_go(database: Database, claim: Claim) -> None:
    """Give the attempt of an ended record up to whoever sweeps next."""
    await database.fetch(_LET_GO, claim.claim_token, claim.attempt_id)


_COMPLETE_REPLAYED = f"""
WITH a AS (
    SELECT g.id AS record_id, k.model_id, k.cost, k.prompt, k.image_key, k.image_url, k.picture AS facts
    FROM image_generations g CROSS JOIN LATERAL (
        SELECT * FROM generation_attempts k WHERE k.record_id = g.id AND {KEPT} ORDER BY k.attempt DESC LIMIT 1) k
    WHERE g.replay_attempt IS NOT NULL AND g.claim_token IS NULL AND g.status IN ('pending', 'in_progress')
        AND g.lane IS NOT NULL
    ORDER BY g.id LIMIT $1 FOR UPDATE OF g
), {COMPLETED}
SELECT done.lane, {READ_WOKEN} FROM done
"""


async def complete_replayed(database: Database, *, limit: int = 100) -> Sequence[Row[Any]]:
    """Complete replayed records whose picture came after their end: no claim, no submit. Rows of `lane`."""
    return await database.fetch(_COMPLETE_REPLAYED, limit)
