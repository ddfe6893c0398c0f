"""What dispatch does about open breakers: probes, and models that are passed over (PIPELINE K3, K4)."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from pydantic_core import from_json
from sqlalchemy import Row

from schemas.errors import ErrorClass
from storage.breakers import PROVIDER, Rules, model_scope
from storage.database import Transaction
from storage.fragments import READ_WOKEN, WOKEN, tell_status

D = TypeVar("D")

OPEN_BREAKERS = """(SELECT json_agg(json_build_array(scope, probe_until <= now(),
        extract(epoch FROM probe_until - now()))) FROM breakers WHERE opened_at IS NOT NULL) AS open_breakers"""
"""The column that `Shut` reads."""

NO_PROBE_YET = (
    "EXISTS (SELECT FROM breakers WHERE scope = 'provider' AND opened_at IS NOT NULL AND probe_until > now())"
)
"""The provider's breaker is open and nobody may probe now: nothing new is dispatched."""

_TAKE = """
UPDATE breakers SET probe_attempt = NULL, probe_until = now() + make_interval(secs => $2)
WHERE scope = $1 AND opened_at IS NOT NULL AND probe_until <= now() RETURNING scope
"""
_NAME = "UPDATE breakers SET probe_attempt = $2 WHERE scope = $1 AND opened_at IS NOT NULL AND probe_attempt IS NULL"

_PUT_OFF = f"""
WITH told_rows AS (
    UPDATE image_generations g SET stage = 'retry_wait', version = g.version + 1,
        retry_at = now() + make_interval(secs => p.seconds), error_class = '{ErrorClass.MODEL_UNAVAILABLE}',
        error_code = 'models_unavailable',
        error_message = 'None of the models for this image can work at the moment. It is tried again by itself.',
        updated_at = now()
    FROM unnest($1::uuid[], $2::float8[]) AS p(record_id, seconds) WHERE g.id = p.record_id RETURNING g.*
), told AS ({tell_status("consumer", "told_rows")}), {WOKEN}
SELECT g.id, {READ_WOKEN} FROM told_rows g
"""


class Shut:
    """The open breakers as one dispatch sees them. `pauses` holds for each scope the seconds to its next probe."""

    def __init__(self, open_breakers: str | None, rules: Rules) -> None:
        found = from_json(open_breakers) if open_breakers else []
        self._rules = rules
        self.pauses: dict[str, float] = {scope: max(0.0, float(seconds)) for scope, _, seconds in found}
        # nobody has probed them for a while: one record may
        self._due = {scope for scope, due, _ in found if due}
        self.taken: list[str] = []

    @property
    def provider(self) -> bool:
        """Whether nothing is dispatched but a probe."""
        return PROVIDER in self.pauses

    async def probe(self, tx: Transaction, scope: str = PROVIDER) -> bool:
        """Become the one that probes `scope`; nobody else may for a while."""
        if scope not in self._due:
            return False
        self._due.discard(scope)
        # decided by this statement, not by what was read: another dispatcher may have been faster
        if not await tx.fetch(_TAKE, scope, self._rules.probe):
            return False
        self.taken.append(scope)
        return True

    async def choose(self, tx: Transaction, draft: Callable[[Collection[str]], tuple[D, str] | None]) -> D | None:
        """The draft with the first model of a chain that is open to it, as its probe where the breaker is open.

        `draft(shut)` gives the draft that avoids these models, and its model. None: all models of the chain are shut.
        """
        shut = {scope.removeprefix("model:") for scope in self.pauses if scope != PROVIDER} - {
            scope.removeprefix("model:") for scope in self._due
        }
        while (found := draft(shut)) is not None:
            made, model = found
            scope = model_scope(model)
            if scope not in self.pauses or await self.probe(tx, scope):
                return made
            shut.add(model)
        return None

    def pause(self, models: Collection[str]) -> float:
        """Seconds until the first of these models may be probed."""
        return min((self.pauses.get(model_scope(model), 0.0) for model in models), default=0.0) or self._rules.probe

    async def name(self, tx: Transaction, claims: Sequence[Row[Any]]) -> None:
        """Note which attempts are the probes of the scopes taken here."""
        for scope in self.taken:
            for row in claims:
                if scope in (PROVIDER, model_scope(row.model_id)):
                    await tx.fetch(_NAME, scope, row.attempt_id)


async def put_off(tx: Transaction, records: Sequence[tuple[object, float]]) -> None:
    """Let these records (locked by the caller) wait for so many seconds: no attempt is made of it (K4)."""
    await tx.fetch(_PUT_OFF, [record for record, _ in records], [seconds for _, seconds in records])
