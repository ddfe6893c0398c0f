"""One of two notifiers goes, with thousands of sockets: how long until all are back, from where, and at what cost.

    PYTHONPATH=. python bench/push_deploy.py [--sockets 4000] [--how stop|kill] [--forget]

Real Kafka, Postgres and processes on this machine, production's periods; the sockets are half of chapters, half of all
that is their user's, ten a user, and for each user two scenes are asked for while the notifier goes. With `--forget`
the pages come back without their cursors, and each needs a snapshot.
"""

import argparse
import asyncio
import resource
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from storage.accepting import Acceptor
from storage.database import Database
from storage.settings import DatabaseSettings
from tests.chaos.askers import Asker, images
from tests.chaos.pages import Place
from tests.chaos.storm import missing, watching
from tests.chaos.street import Street

_A_USER = 10
_PATIENCE = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sockets", type=int, default=4_000)
    parser.add_argument("--how", choices=("stop", "kill"), default="stop")
    parser.add_argument("--forget", action="store_true", help="come back without a cursor: each needs a snapshot")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="push-deploy-") as folder:
        asyncio.run(_measure(Path(folder), arguments))


async def _measure(folder: Path, asked: argparse.Namespace) -> None:
    street = Street(folder, {}, consumers=0)
    database = Database(DatabaseSettings(database_url=street.postgres.url()), application="bench")
    try:
        await street.open()
        await _deploy(street, database, asked)
    finally:
        await database.close()
        street.close()


async def _deploy(street: Street, database: Database, asked: argparse.Namespace) -> None:
    sockets, how = asked.sockets, asked.how
    leaving, remaining = street.urls("notifier")
    gone = asyncio.Event()
    parts = {url: urlsplit(url) for url in (leaving, remaining)}

    def place() -> Callable[[], Place]:
        def now() -> Place:
            one = parts[remaining if gone.is_set() else leaving]
            return one.hostname or "", one.port or 0

        return now

    askers = [Asker() for _ in range(sockets // _A_USER)]
    of_each = {one.viewer.user_id: one.viewer.sockets(_A_USER, place) for one in askers}
    pages = [page for theirs in of_each.values() for page in theirs]
    acceptor = Acceptor(database, deadline=3600)
    async with watching(pages, within=_PATIENCE):
        for page in pages:
            page.resumed.clear()
            page.back.clear()
        statements = await _statements(remaining)
        loop = asyncio.get_running_loop()
        began = loop.time()
        gone.set()
        if asked.forget:
            for page in pages:
                page.cursor = None
        going = asyncio.create_task(street.stop("notifier-1") if how == "stop" else street.kill("notifier-1"))
        await asyncio.gather(*(one.ask(acceptor) for one in askers for _ in range(2)), going)
        for page in pages:
            assert await page.until(lambda page=page: bool(page.resumed), _PATIENCE)  # type: ignore[misc]
        rows = await images(database, askers, ended=False)
        faults = [fault for user, theirs in of_each.items() for fault in await missing(theirs, rows[user], 30.0)]
        faults += [fault for page in pages for fault in page.faults]
        spent = await _statements(remaining) - statements
        back = sorted(page.back[0] - began for page in pages)
        told = sorted(page.goodbyes[0] - began for page in pages if page.goodbyes)
    resumed = sum((page.resumed for page in pages), Counter[str]())
    print(f"{sockets} sockets, {how}: {dict(resumed)}, {len(faults)} views differ from Postgres")
    if told:
        print(f"  goodbyes from {told[0]:.2f} to {told[-1]:.2f} s, {_busiest(told)} in the busiest 0.1 s")
    print(f"  back: first {back[0]:.2f} s, half {back[len(back) // 2]:.2f} s, last {back[-1]:.2f} s")
    print(f"  {_busiest(back)} came back in the busiest 0.1 s; statements of the remaining notifier: {spent}")


def _busiest(moments: list[float]) -> int:
    return max(Counter(int(moment * 10) for moment in moments).values())


async def _statements(url: str) -> int:
    """That a notifier has run so far."""
    async with httpx.AsyncClient(timeout=30.0) as client:
        shown = (await client.get(f"{url}/metrics")).text
    (line,) = [line for line in shown.splitlines() if 'database_seconds_count{kind="statement"}' in line]
    return int(float(line.split()[-1]))


if __name__ == "__main__":
    main()
