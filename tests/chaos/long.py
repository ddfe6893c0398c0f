"""`python -m tests.chaos.long` (`make chaos`): a whole service at its production periods, and everything goes wrong.

Scenes are accepted all the time, by thirty people of several tiers and by another service in batches. Three hundred
pages of theirs, by socket, stream and poll, are cut off for 2 s of each 10, and events are told twice. Faults are
picked at random from a seed. At the end all is put right, everything must end by itself, and the books are closed.
"""

import argparse
import asyncio
import json
import logging
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from local.server import NotReady
from storage.database import Database, Unavailable
from storage.settings import DatabaseSettings
from tests.chaos import books
from tests.chaos.books import Books
from tests.chaos.cables import Cable
from tests.chaos.customers import Customers
from tests.chaos.faults import Faults
from tests.chaos.moods import ORDINARY
from tests.chaos.people import Person, person
from tests.chaos.storm import Repeats, Storm, Told, Viewer
from tests.chaos.street import Street
from web.serving import open_files

SLOTS = 15
"""The provider's largest plan."""
_TIERS = 6 * ("free", "standard", "standard", "premium", "professional")
_PAGES = 10
"""Of each of these people, beside the one whose every version is kept."""
_UP, _DOWN = 8.0, 2.0
"""Seconds that a page's line is whole, and cut."""
_REPEAT_SECONDS = 1.0
_PROGRESS_SECONDS = 5.0
_SETTLE_SECONDS = 1_200.0
"""For what was under way when the faults ended: a run's deadline, and what a stopped clock adds."""
_LONGEST_OUTAGE = 60.0

_COUNTS = """
SELECT count(*) AS records, count(*) FILTER (WHERE status = 'completed') AS completed,
    count(*) FILTER (WHERE status = 'failed') AS failed,
    (SELECT count(*) FROM generation_attempts WHERE sent_at IS NOT NULL) AS sent,
    (SELECT count(*) FROM generation_attempts WHERE outcome = 'uncertain' OR outcome LIKE 'late%') AS uncertain
FROM image_generations
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    # the client complains at every try while Kafka is away, which is often here
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # and what it leaves of a producer that was thrown away is told at the end of its futures
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1_000_000)
    folder: Path = arguments.folder or Path(".local") / f"chaos-{seed}"
    if folder.exists():
        print(f"{folder} is there already: remove it, or name another with --folder", file=sys.stderr)
        return 2
    folder.mkdir(parents=True)
    # three for each page
    open_files()
    print(f"{arguments.minutes:g} minutes of faults, seed {seed}; evidence in {folder}")
    try:
        held = asyncio.run(_run(folder.resolve(), seed, arguments.minutes * 60.0, arguments.rate))
    except NotReady as error:
        print(f"Could not start: {error}", file=sys.stderr)
        return 1
    if held and not arguments.keep:
        shutil.rmtree(folder)
    elif not held:
        print(f"Again with: make chaos ARGS='--seed {seed} --minutes {arguments.minutes:g}'. Evidence: {folder}")
    return 0 if held else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.long",
        description="Run a whole service at full length while its processes are killed, frozen and restarted, Kafka, "
        "Postgres and the provider come and go. Afterwards everything must have ended, been paid once and been shown.",
        epilog="Exit code: 0 all promises held, 1 they did not (the evidence is kept), 2 wrong arguments.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--minutes", type=_positive, default=20.0, help="how long things go wrong")
    parser.add_argument("--seed", type=int, default=None, help="of every choice; without it a new one, which is told")
    parser.add_argument("--rate", type=_positive, default=1.5, help="scenes asked for each second, about")
    parser.add_argument("--folder", type=Path, default=None, help="for data, logs and evidence; else below .local")
    parser.add_argument("--keep", action="store_true", help="keep the folder when all went well, too")
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be a number above 0")
    return value


async def _run(folder: Path, seed: int, seconds: float, rate: float) -> bool:
    chance = random.Random(seed)
    periods = {"SCENEWIRE_LOG_FORMAT": "json"}
    street = Street(folder, periods, slots=SLOTS, consumers=3, durable=True, webhooks=True)
    try:
        await street.open()
        await street.script(*ORDINARY)
        settings = DatabaseSettings(database_url=street.postgres.url(), database_timeout=5.0)
        database = Database(settings, application="chaos")
        try:
            async with AsyncExitStack() as stack:
                lines = (_on_a_bad_line(street, tier, random.Random(chance.random())) for tier in _TIERS)
                people = [await stack.enter_async_context(one) for one in lines]
                viewers = [Viewer(one.user_id, one.chapter, one.token) for one in people]
                storm = Storm(street.urls("notifier"), viewers, chance, count=_PAGES, up=_UP, down=_DOWN)
                await stack.enter_async_context(storm.open())
                return await _rounds(street, database, people, storm, chance, seconds, rate)
        finally:
            await database.close()
    finally:
        street.close()


@asynccontextmanager
async def _on_a_bad_line(street: Street, tier: str, chance: random.Random) -> AsyncIterator[Person]:
    """Somebody whose page is cut off as often as the others."""
    cable = Cable(street.urls("notifier"))
    await cable.open()
    wearing = asyncio.create_task(cable.wear(chance, up=_UP, down=_DOWN))
    try:
        async with person(street, tier, notifiers=[f"http://127.0.0.1:{cable.port}"]) as one:
            yield one
    finally:
        wearing.cancel()
        await cable.close()


async def _rounds(
    street: Street,
    database: Database,
    people: Sequence[Person],
    storm: Storm,
    chance: random.Random,
    seconds: float,
    rate: float,
) -> bool:
    stop = asyncio.Event()
    customers = Customers(street, people, random.Random(chance.random()), rate=rate)
    faults = Faults(street, chance, longest=min(_LONGEST_OUTAGE, seconds / 3))
    began = time.monotonic()
    telling = asyncio.create_task(_tell(database, people, faults, began))
    repeats = Repeats(street.kafka.servers, random.Random(chance.random()))
    try:
        async with repeats.at_work(_REPEAT_SECONDS), storm.raging():
            asking = asyncio.create_task(customers.run(stop))
            breaking = asyncio.create_task(faults.run(stop))
            await asyncio.wait({asking, breaking}, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            stop.set()
            print(f"{_clock(began)}  no more faults: what is under way ends")
            await breaking
            await street.mend()
            await street.script(*ORDINARY)
            await asking
            balance = await books.close(street, database, *people, within=_SETTLE_SECONDS)
        balance.faults += await storm.faults(_by_user(balance, people))
    finally:
        telling.cancel()
    (street.folder / "faults.txt").write_text("\n".join(faults.log) + "\n")
    await _keep_evidence(street, database, balance)
    return _verdict(balance, storm.told(), repeats.count, time.monotonic() - began)


def _by_user(balance: Books, people: Sequence[Person]) -> dict[UUID, dict[str, dict[str, Any]]]:
    images: dict[UUID, dict[str, dict[str, Any]]] = {one.user_id: {} for one in people}
    for record_id, record in balance.records.items():
        images[UUID(record["user_id"])][str(record_id)] = record
    return images


async def _tell(database: Database, people: Sequence[Person], faults: Faults, began: float) -> None:
    """One line every few seconds."""
    while True:
        accepted = sum(len(one.accepted) for one in people)
        try:
            (row,) = await database.fetch(_COUNTS)
            counts = (
                f"completed {row.completed:5}  failed {row.failed:3}  open {row.records - row.completed - row.failed:4}"
                f"  submits {row.sent:5}  uncertain {row.uncertain:3}"
            )
        except Unavailable:
            counts = f"{'Postgres is away':62}"
        print(f"{_clock(began)}  accepted {accepted:5}  {counts}  broken: {faults.now}", flush=True)
        await asyncio.sleep(_PROGRESS_SECONDS)


async def _keep_evidence(street: Street, database: Database, balance: Books) -> None:
    """What somebody needs who looks for the fault; the processes' logs lie beside it."""
    evidence = {
        "faults": balance.faults,
        "records": {str(record_id): record for record_id, record in balance.records.items()},
        "attempts": [dict(row._mapping) for rows in balance.attempts.values() for row in rows],
        "audit": [dict(row._mapping) for row in await database.fetch("SELECT * FROM chaos_audit ORDER BY seq")],
        "calls": await street.calls(),
        "jobs": await street.jobs(),
    }
    (street.folder / "books.json").write_text(json.dumps(evidence, indent=1, default=str))


def _verdict(balance: Books, told: Mapping[str, Told], repeated: int, seconds: float) -> bool:
    failed = ", ".join(f"{code} {count}" for code, count in balance.failed.most_common())
    print(f"\nAfter {seconds / 60:.1f} minutes:")
    for name, value in (
        ("scenes accepted", balance.accepted),
        ("and without our being told", len(balance.records) - balance.accepted),
        ("completed", balance.completed),
        ("failed", f"{balance.failed.total()}{f' ({failed})' if failed else ''}"),
        ("submits", balance.submits),
        ("uncertain", balance.uncertain),
        ("duplicates", f"{balance.duplicates} (paid beyond one a scene, each by an attempt on record as uncertain)"),
        ("pushes missed", balance.missed),
        ("lost", balance.lost),
        ("submitted again after an id was known", balance.again),
    ):
        print(f"  {name:40} {value}")
    print(f"  Pages, with {repeated} events told twice:")
    print(f"    {'by':8}{'pages':>8}{'cuts':>8}{'memory':>8}{'log':>8}{'snapshot':>10}{'missed':>8}{'went back':>11}")
    for kind, one in told.items():
        print(
            f"    {kind:8}{one.pages:8}{one.cuts:8}{one.resumed['memory']:8}{one.resumed['log']:8}"
            f"{one.resumed['snapshot']:10}{one.missed:8}{one.backwards:11}"
        )
    for fault in balance.faults:
        print(f"  FAULT: {fault}")
    print("Held." if not balance.faults else f"NOT HELD: {len(balance.faults)} faults.")
    return not balance.faults


def _clock(began: float) -> str:
    seconds = int(time.monotonic() - began)
    return f"{seconds // 60:3}:{seconds % 60:02}"


if __name__ == "__main__":
    sys.exit(main())
