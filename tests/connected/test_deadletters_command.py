"""`python -m consumer.deadletters` as it is run, on a real database."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from typing import Any

import pytest

from schemas.letters import DeadLetterDetail, DeadLetters, PurgeOutcome, ReplayOutcome
from tests.connected.died import Died, buried, read_event
from tests.connected.steps import Steps

pytestmark = pytest.mark.connected

SECONDS = 60


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal:
    """Runs the command with nothing in its environment but the database."""

    def __init__(self, url: str) -> None:
        self._environment = {"PATH": os.environ["PATH"], "SCENEWIRE_DATABASE_URL": url}

    async def start(self, *arguments: object) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "consumer.deadletters"),
            *map(str, arguments),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: object) -> Run:
        return await ended(await self.start(*arguments))


async def ended(process: asyncio.subprocess.Process) -> Run:
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in err
    return Run(process.returncode, out.decode(), err.decode())


@pytest.fixture
def terminal(database_url: str) -> Terminal:
    return Terminal(database_url)


@pytest.fixture
async def died(steps: Steps) -> Died:
    return await Died(steps).happen()


async def test_it_lists_what_fits_and_fits_eighty_columns(died: Died, terminal: Terminal) -> None:
    shown = await terminal.run("list", "--class", "auth,quota", "--class", "poison")
    assert shown.code == 0
    head, *lines = shown.out.splitlines()
    assert head.split() == ["ID", "DIED", "(UTC)", "CLASS", "CODE", "MODEL", "OR", "TOPIC"]
    assert [line.split()[0] for line in lines] == [str(one) for one in [*died.ids[4:][::-1], *died.ids[:3][::-1]]]
    assert all(len(line) <= 80 for line in [head, *lines])
    assert lines[-1].split()[1] == "r"
    assert "5 dead letters; r: replayed" in shown.err
    page = DeadLetters.model_validate((await terminal.run("list", "--json", "--limit", 4)).json)
    assert [one.id for one in page.letters] == died.ids[:1:-1]
    rest = DeadLetters.model_validate((await terminal.run("list", "--json", "--cursor", page.cursor)).json)
    assert ([one.id for one in rest.letters], rest.cursor) == (died.ids[1::-1], None)
    grouped = await terminal.run("list", "--group", "--user", died.users[1], "--not-replayed", "--since", "5h")
    assert [line.split()[:4] for line in grouped.out.splitlines()[1:]] == [
        ["1", "exhausted", "code_exhausted", "first-model"],
        ["1", "auth", "code_auth", "first-model"],
    ]
    assert all(len(line) <= 80 for line in grouped.out.splitlines())
    nothing = await terminal.run("list", "--chapter", died.records[0])
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "No dead letter fits.\n")


async def test_it_shows_one_with_all_that_was_tried(died: Died, terminal: Terminal) -> None:
    shown = await terminal.run("show", died.ids[3])
    assert shown.code == 0
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    words = " ".join(shown.out.split())
    assert f"record {died.records[3]}" in words
    assert "outcome failed, counted error exhausted code_exhausted detail api_key=[redacted]" in words
    assert f"replay python -m consumer.deadletters replay {died.ids[3]}" in words
    assert "secret-of-somebody" not in shown.out
    event = await terminal.run("show", died.ids[4])
    # bytes of strangers do not steer the terminal
    assert "\x00" not in event.out
    assert r"key \xff\xfe\x00" in " ".join(event.out.split())
    told = DeadLetterDetail.model_validate((await terminal.run("show", "--json", died.ids[0])).json)
    assert (told.id, told.refusal) == (died.ids[0], "already_replayed")
    missing = await terminal.run("show", 999)
    assert (missing.code, missing.out, missing.err.count("\n")) == (1, "", 1)
    assert "no dead letter 999" in missing.err


async def test_an_escape_sequence_in_an_event_is_only_text(steps: Steps, terminal: Terminal) -> None:
    (letter,) = await buried(steps, read_event(1, code="\x1b[31m", message="\u202eabc\nFAKE", body=b"\x1b]0;x\x07"))
    for shown in (await terminal.run("show", letter), await terminal.run("list")):
        assert shown.code == 0
        assert not {"\x1b", "\x07", "\u202e"} & set(shown.out)
        assert not any(line.startswith("FAKE") for line in shown.out.splitlines())


async def test_a_dry_run_says_what_a_replay_then_does(died: Died, terminal: Terminal) -> None:
    await died.steps.sql("DELETE FROM image_generations WHERE id = $1", died.records[1])
    choice = ("--class", "auth,quota,poison")
    before = await died.steps.sql("SELECT * FROM image_generations ORDER BY id")
    dry = await terminal.run("replay", *choice, "--dry-run")
    assert dry.code == 3
    assert "Would replay 3 dead letters, skipped 1." in dry.err
    assert "1 record_gone: Its image generation is not there any more." in dry.err
    assert [line.split()[:2] for line in dry.out.splitlines()[1:]] == [["2", "poison"], ["1", "quota"]]
    assert await died.steps.sql("SELECT * FROM image_generations ORDER BY id") == before
    some = ReplayOutcome.model_validate((await terminal.run("replay", *choice, "--limit", 1, "--json")).json)
    assert (some.replayed, some.skipped, some.left, some.reasons) == (1, 1, 2, {"record_gone": 1})
    assert (await died.steps.record(died.records[2])).status == "pending"
    rest = await terminal.run("replay", *choice)
    assert (rest.code, rest.out) == (3, "")
    assert "Replayed 2 dead letters, skipped 1." in rest.err
    rows = await died.steps.sql("SELECT id FROM dead_letters WHERE replayed_at IS NULL ORDER BY id")
    assert [row.id for row in rows] == [died.ids[1], died.ids[3]]


async def test_letters_named_one_by_one_are_told_one_by_one(died: Died, terminal: Terminal) -> None:
    told = await terminal.run("replay", died.ids[0], died.ids[3], 999)
    assert told.code == 3
    assert "Replayed 1 dead letter, skipped 2." in told.err
    assert f"  {died.ids[0]} already_replayed: " in told.err
    assert "  999 unknown: " in told.err
    again = await terminal.run("replay", "--json", died.ids[3])
    assert (again.code, again.json["replayed"], again.json["refused"][0]["code"]) == (3, 0, "already_replayed")


async def test_many_are_touched_only_when_that_is_meant(steps: Steps, terminal: Terminal) -> None:
    await buried(steps, *(read_event(offset) for offset in range(21)))
    for command, done in (("replay", "replayed"), ("purge", "deleted")):
        refused = await terminal.run(command, "--all")
        assert (refused.code, refused.out) == (1, "")
        assert f"21 dead letters would be {done}. Add --yes to mean it" in refused.err
    assert await steps.sql("SELECT id FROM outbox") == []
    few = await terminal.run("replay", "--all", "--limit", 20, "--rate", 1000)
    assert (few.code, few.err) == (0, "Replayed 20 dead letters. 1 more are left.\n")
    meant = await terminal.run("purge", "--all", "--yes", "--json")
    assert PurgeOutcome.model_validate(meant.json) == PurgeOutcome(dry_run=False, purged=21, left=0, groups=[])


async def test_a_purge_deletes_what_was_replayed_unless_more_is_said(died: Died, terminal: Terminal) -> None:
    dry = await terminal.run("purge", "--dry-run")
    assert (dry.code, "Would delete 1 dead letter." in dry.err) == (0, True)
    assert dry.out.splitlines()[1].split()[:3] == ["1", "1", "auth"]
    assert (await terminal.run("purge")).err == "Deleted 1 dead letter.\n"
    assert (await terminal.run("purge", "--class", "auth")).err == "Deleted 0 dead letters.\n"
    assert (await terminal.run("purge", "--older-than", "3h30m")).code == 2
    assert (await terminal.run("purge", "--older-than", "210m")).err == "Deleted 1 dead letter.\n"
    assert (await terminal.run("purge", "--all", died.ids[5])).err == "Deleted 1 dead letter.\n"
    rows = await died.steps.sql("SELECT id FROM dead_letters ORDER BY id")
    assert [row.id for row in rows] == died.ids[2:5]
    assert len(await died.steps.sql("SELECT id FROM image_generations")) == 4


async def test_a_replay_keeps_its_pace_and_can_be_stopped_and_gone_on_with(steps: Steps, terminal: Terminal) -> None:
    await buried(steps, *(read_event(offset) for offset in range(300)))
    began = time.monotonic()
    running = await terminal.start("replay", "--all", "--yes", "--rate", 10)
    assert running.stderr is not None
    # the first word about how far it has come is said after five seconds, at ten a second
    word = re.match(
        rb"(\d+) replayed, (\d+) to go, about (\d+) s", await asyncio.wait_for(running.stderr.readline(), SECONDS)
    )
    assert word is not None
    so_far, left, seconds = map(int, word.groups())
    assert (so_far + left, seconds) == (300, round(left / 10))
    # never ahead of its pace; behind it as far as the machine is
    assert 0 < so_far <= 10 * (time.monotonic() - began) + 10
    running.send_signal(signal.SIGINT)
    stopped = await ended(running)
    assert stopped.code == 130
    said = re.search(r"Stopped after (\d+) dead letters. The same command goes on from there.", stopped.err)
    assert said is not None
    done = len(await steps.sql("SELECT id FROM dead_letters WHERE replayed_at IS NOT NULL"))
    # what was being committed in that moment is not counted
    assert 0 <= done - int(said[1]) <= 2
    rest = await terminal.run("replay", "--all", "--yes", "--rate", 1000)
    # a word about how far it has come may stand before
    assert rest.err.splitlines()[-1] == f"Replayed {300 - done} dead letters."
    assert len(await steps.sql("SELECT id FROM outbox")) == 300


async def test_wrong_arguments_are_one_line_and_exit_code_2(terminal: Terminal) -> None:
    for arguments, says in (
        (("list", "--since", "yesterday"), "argument --since: must be a time such as"),
        (("list", "--cursor", "x"), "--cursor is not of this list"),
    ):
        wrong = await terminal.run(*arguments)
        assert (wrong.code, wrong.out) == (2, "")
        assert says in wrong.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://user:s3cret@127.0.0.1:1/none", "Postgres does not answer (ConnectionRefusedError)."),
        ("postgresql://user:s3cret@host:p/ort@h:1:2/none", "SCENEWIRE_DATABASE_URL is no URI"),
    ],
)
async def test_without_postgres_it_is_one_line_without_a_password(url: str, says: str) -> None:
    gone = await Terminal(url).run("list")
    assert (gone.code, gone.out, gone.err.count("\n")) == (1, "", 1)
    assert says in gone.err
    assert "s3cret" not in gone.err


async def test_a_database_without_the_tables_is_told_so(empty_database_url: str) -> None:
    bare = await Terminal(empty_database_url).run("list")
    assert (bare.code, bare.err) == (1, "The database lacks today's tables: run `python -m storage.migrate`.\n")
