"""`python -m consumer.deadletters`: look at dead letters, replay them, delete them. It talks to Postgres alone."""

import asyncio
import os
import shutil
import sys
import time

from pydantic import BaseModel

from consumer import letter_pages as pages
from consumer.deadletters_arguments import Asked, asked
from consumer.deadletters_settings import DeadLettersSettings
from schemas.letters import DeadLetters, LetterGroup, PurgeOutcome, ReplayOutcome
from storage import deadletters, letters, replaying
from storage.database import Database, Unavailable, sqlstate
from storage.deadletters import Purge
from telemetry import logs
from telemetry.settings import load

DONE, FAILED, WRONG, SKIPPED, INTERRUPTED = 0, 1, 2, 3, 130
_UNASKED = 20
"""More letters than these are replayed or deleted only with --yes."""
_TOLD_EVERY = 5.0
_PURGED_TOGETHER = 1_000
_MISSING = ("42P01", "42703")
"""SQLSTATEs: a table or a column is not there."""


class Command:
    """One run. What is asked for goes to stdout, everything about it to stderr."""

    def __init__(self, given: Asked, database: Database, *, deadline: float) -> None:
        self._given = given
        self._database = database
        self._deadline = deadline
        self._width = max(40, shutil.get_terminal_size((80, 24)).columns)

    async def run(self) -> int:
        """The exit code. Raises `Unavailable`."""
        match self._given.command:
            case "list":
                return await (self._groups() if self._given.group else self._list())
            case "show":
                return await self._show()
            case "replay":
                return await self._replay()
            case _:
                return await self._purge()

    async def _list(self) -> int:
        filters = self._given.filters
        try:
            page, cursor = await letters.listed(
                self._database, filters, limit=self._given.limit or 50, cursor=self._given.cursor
            )
        except letters.NotACursor:
            _say("--cursor is not of this list: take `cursor` of the page before.")
            return WRONG
        if self._given.json:
            return self._as_json(DeadLetters(letters=page, cursor=cursor))
        if not page:
            _say("No dead letter fits.")
            return DONE
        _print(*pages.listing(page, width=self._width))
        total = await letters.count(self._database, filters)
        replayed = "; r: replayed" if any(one.replayed_at for one in page) else ""
        more = f" of {total:,}; more with --limit, counts with --group" if cursor else ""
        _say(f"{_letters(len(page))}{more}{replayed}")
        return DONE

    async def _groups(self) -> int:
        groups = await letters.grouped(self._database, self._given.filters)
        if self._given.json:
            return self._as_json(DeadLetters(groups=groups))
        self._print_groups(groups)
        _say(f"{_letters(sum(group.letters for group in groups))} in {len(groups)} groups" if groups else "None fits.")
        return DONE

    async def _show(self) -> int:
        assert self._given.ids is not None
        (letter_id,) = self._given.ids
        letter = await letters.one(self._database, letter_id)
        if letter is None:
            _say(f"There is no dead letter {letter_id}: `list` shows which there are.")
            return FAILED
        if self._given.json:
            return self._as_json(letter)
        _print(*pages.page(letter, width=self._width))
        return DONE

    async def _replay(self) -> int:
        ids, choice, limit = self._given.ids, self._given.choice, self._given.limit
        plan = await replaying.plan(self._database, choice, ids=ids, limit=limit)
        planned = replaying.would(plan, limit=limit)
        if self._given.dry_run:
            return self._told(planned, "Would replay", planned.groups)
        if not self._allowed(planned.replayed, "replayed"):
            return FAILED
        chosen = ids if ids is not None else await replaying.candidates(self._database, choice, limit=limit)
        replayed = replaying.Replayed()
        try:
            await self._paced(chosen, replayed)
        except BaseException:
            _say(f"Stopped after {_letters(len(replayed.done))}. The same command goes on from there.")
            raise
        left = planned.left if ids is None else 0
        return self._told(replaying.outcome(plan, replayed, named=ids is not None, left=left), "Replayed", [])

    async def _paced(self, chosen: list[int], replayed: replaying.Replayed) -> None:
        """So many a second, evenly; a word now and then while it lasts."""
        rate = self._given.rate
        together = max(1, min(replaying.TOGETHER, int(rate / 5)))
        due = told = time.monotonic()
        for start in range(0, len(chosen), together):
            await asyncio.sleep(due - time.monotonic())
            some = chosen[start : start + together]
            replayed.add(await replaying.replay(self._database, some, deadline=self._deadline))
            now = time.monotonic()
            due = max(due, now - 1.0) + len(some) / rate
            if now - told >= _TOLD_EVERY and (left := len(chosen) - start - len(some)):
                told = now
                _say(f"{len(replayed.done):,} replayed, {left:,} to go, about {left / rate:,.0f} s")

    async def _purge(self) -> int:
        given, limit = self._given, self._given.limit
        purge = Purge(given.choice, given.ids, given.older_than, given.everything)
        groups, may_go = await deadletters.purgeable(self._database, purge, limit=limit)
        would = may_go if limit is None else min(limit, may_go)
        if self._given.dry_run:
            outcome = PurgeOutcome(dry_run=True, purged=would, left=may_go - would, groups=groups)
        elif not self._allowed(would, "deleted"):
            return FAILED
        else:
            gone = 0
            while gone < would:
                most = min(_PURGED_TOGETHER, would - gone)
                some = await deadletters.purged(self._database, purge, limit=most)
                gone += some
                if some < most:
                    break
            outcome = PurgeOutcome(dry_run=False, purged=gone, left=may_go - would, groups=[])
        if self._given.json:
            return self._as_json(outcome)
        self._print_groups(outcome.groups)
        _say(f"{'Would delete' if outcome.dry_run else 'Deleted'} {_letters(outcome.purged)}.{_left(outcome.left)}")
        return DONE

    def _allowed(self, count: int, done: str) -> bool:
        if count <= _UNASKED or self._given.yes:
            return True
        _say(
            f"{_letters(count)} would be {done}. Add --yes to mean it, --dry-run to see which, or --limit {_UNASKED} "
            "to begin with a few."
        )
        return False

    def _told(self, outcome: ReplayOutcome, verb: str, groups: list[LetterGroup]) -> int:
        code = SKIPPED if outcome.skipped else DONE
        if self._given.json:
            self._as_json(outcome)
            return code
        self._print_groups(groups)
        skipped = f", skipped {outcome.skipped:,}" if outcome.skipped else ""
        _say(f"{verb} {_letters(outcome.replayed)}{skipped}.{_left(outcome.left)}")
        named = [f"  {one.id} {one.code.value}: {one.message}" for one in outcome.refused]
        for line in named or pages.reasons(outcome.reasons):
            _say(line)
        return code

    def _print_groups(self, groups: list[LetterGroup]) -> None:
        if groups:
            _print(*pages.grouping(groups, width=self._width))

    def _as_json(self, model: BaseModel) -> int:
        _print(model.model_dump_json(indent=2))
        return DONE


def _letters(count: int) -> str:
    return f"{count:,} dead letter{'' if count == 1 else 's'}"


def _left(count: int) -> str:
    return f" {count:,} more are left." if count else ""


def _print(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _say(line: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{line}\n")


async def _run(given: Asked, settings: DeadLettersSettings) -> int:
    database = Database(settings, application="scenewire-deadletters")
    try:
        await _reach(database)
        return await Command(given, database, deadline=settings.deadline).run()
    finally:
        await database.close()


class _Unreadable(Exception):
    """SCENEWIRE_DATABASE_URL cannot be read."""


async def _reach(database: Database) -> None:
    try:
        await database.ping()
    except ValueError:
        # its message may quote a piece of the URL, and a badly written one has its password anywhere
        raise _Unreadable from None


def main() -> int:
    given = asked()
    settings = load(DeadLettersSettings)
    logs.configure(settings, service="deadletters", stream=sys.stderr)
    try:
        code = asyncio.run(_run(given, settings))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # whoever read has seen enough; the interpreter would complain at its own flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except _Unreadable:
        return _failed("SCENEWIRE_DATABASE_URL is no URI that Postgres's libraries can read.")
    except Unavailable as error:
        why = str(error).removeprefix("Postgres: ")
        return _failed(f"Postgres does not answer ({why}). Is it up, and is SCENEWIRE_DATABASE_URL right?")
    except Exception as error:
        state = sqlstate(error)
        if state is None:
            raise
        if state in _MISSING:
            return _failed("The database lacks today's tables: run `python -m storage.migrate`.")
        return _failed(f"Postgres refuses (SQLSTATE {state}). Is SCENEWIRE_DATABASE_URL right?")


def _failed(line: str) -> int:
    _say(line)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
