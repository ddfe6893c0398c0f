"""Steps of the stateful test that come late: webhooks, cancels, ends, replays, and what is followed past an end."""

from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from storage import deadlines, hooks, kept
from storage.dispatching import Claimed
from tests.connected import perfect
from tests.connected.steps import BUSY, claim_of

PICK = st.integers(0, 5)


class LateRules(RuleBasedStateMachine):
    """What it works on is the machine's: `steps`, `jobs`, and the claims in `tasks`, `asked` and `orphans`."""

    @precondition(lambda self: self.asked)
    @rule(index=PICK, forged=st.booleans(), twice=st.booleans())
    def webhook(self, index: int, forged: bool, twice: bool) -> None:
        """The provider, or whoever knows the address, names a job of a call that was made at some time."""
        claimed = self.pick(index, sent=True)
        assert claimed is not None
        assert claimed.webhook_token is not None
        job = "forged" if forged else self.jobs.taken(claimed)
        for _ in range(1 + twice):
            self.do(hooks.note(self.database, claimed.webhook_token, job))

    @precondition(lambda self: self.tasks)
    @rule(index=PICK)
    def confirm(self, index: int) -> None:
        """A task that goes on with a webhook's word, perhaps long after it lost its claim."""
        claimed = self.pick(index, sent=False)
        assert claimed is not None
        self._confirm(claimed)

    def _confirm(self, claimed: Claimed) -> None:
        if claimed.unconfirmed:
            known = self.do(perfect.confirm(self.steps, self.jobs, claimed))
            self.tasks += [known] if known is not None else []
            self.asked += [known] if known is not None else []

    @rule(index=PICK, chance=st.integers(0, 2))
    def cancel(self, index: int, chance: int) -> None:
        rows = self.do(self.steps.sql("SELECT id FROM image_generations ORDER BY id"))
        if not chance:
            self.do(deadlines.cancel(self.database, rows[index % len(rows)].id))

    @rule(index=PICK)
    def replay(self, index: int) -> None:
        rows = self.do(self.steps.sql("SELECT id FROM dead_letters ORDER BY id"))
        if rows:
            self.do(self.steps.replay(rows[index % len(rows)].id))

    @precondition(lambda self: self.orphans)
    @rule(index=PICK, how=st.sampled_from(["kept", "made", "failed", "addresses", "let go"]))
    def follow(self, index: int, how: str) -> None:
        """An attempt is followed past its record's end, also by one that lost it meanwhile."""
        orphan = self.orphans[-1 - index % len(self.orphans)]
        if orphan.unconfirmed:
            known = self.do(perfect.confirm(self.steps, self.jobs, orphan))
            self.orphans += [known] if known is not None else []
        elif how == "let go":
            self.do(kept.let_go(self.database, claim_of(orphan)))
        elif how == "failed":
            self.do(kept.close(self.database, claim_of(orphan), "failed", BUSY))
        else:
            made = orphan.output_urls is not None or self.do(self.steps.made_late(orphan))
            if how == "kept":
                self.do(self.steps.kept(orphan))
            elif how == "addresses" and made:
                self.do(kept.close(self.database, claim_of(orphan), "late_success"))

    @precondition(lambda self: self.asked)
    @rule(index=PICK)
    def store_too_late(self, index: int) -> None:
        claimed = self.pick(index, sent=True)
        assert claimed is not None
        if self.do(self.steps.generated(claimed)):
            self.do(self._overdue(claimed.record_id))
            ended = self.do(deadlines.end_claimed(self.database, claimed.claim_token))
            assert ended is not None
            assert ended.ended
            self.orphans.append(claimed)

    async def _overdue(self, record_id: UUID) -> None:
        await self.steps.sql(
            "UPDATE image_generations SET deadline_at = now() - interval '1 s' WHERE id = $1", record_id
        )
