"""`python -m examples.with_aiokafka`: act on completed pictures, with aiokafka alone.

The order is the whole of it: first the work, then the offset. A crash between the two brings the batch again, which
`ChapterIndex` takes as what it is. SIGTERM or Ctrl-C: the batch at hand is finished and its offsets are committed.
"""

import argparse
import asyncio
import contextlib
import logging
import signal
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import CommitFailedError

from examples.chapter_index import COMPLETED, ChapterIndex

log = logging.getLogger("examples")

_POLL_MS = 500
_AGAIN = 5.0


async def main(servers: str, topic: str, group: str, folder: Path) -> None:
    index = ChapterIndex(folder)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=servers,
        group_id=group,
        # by hand, below: the default commits on a timer, whether the work is done or not
        enable_auto_commit=False,
        # a new group begins with what is still there (7 days), not with what comes next
        auto_offset_reset="earliest",
    )
    async with consumer:
        log.info("watching %s as %s", topic, group)
        while not stop.is_set():
            batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=500)
            records = [record for batch in batches.values() for record in batch]
            if records and await kept(index, records, stop):
                with contextlib.suppress(CommitFailedError):
                    # the group was dealt anew meanwhile: these events come again, to somebody
                    await consumer.commit()
    log.info("stopped")


async def kept(index: ChapterIndex, records: list[ConsumerRecord[bytes, bytes]], stop: asyncio.Event) -> bool:
    """Whether the batch is on the disk. While it cannot be written it is tried again, and nothing is read past it."""
    while not stop.is_set():
        try:
            changed = await asyncio.to_thread(index.keep, [record.value or b"" for record in records])
        except OSError as error:
            log.error("cannot write, trying again: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _AGAIN)
        else:
            log.info("%d events, %d of them news", len(records), changed)
            return True
    return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--servers", default="127.0.0.1:8705", help="Kafka, as host:port[,host:port]")
    parser.add_argument("--topic", default=COMPLETED, help="with the prefix of SCENEWIRE_NAMESPACE, where that is set")
    parser.add_argument("--group", default="chapter-index", help="of the processes that share the work")
    parser.add_argument("--folder", type=Path, default=Path("chapters"), help="where the files are kept")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(main(arguments.servers, arguments.topic, arguments.group, arguments.folder))
