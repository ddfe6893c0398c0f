"""`python -m examples.with_faststream`: act on completed pictures, with FastStream.

Five choices are not its defaults, and each is needed: `MANUAL`, since the default commits before the handler has run;
the policy on the subscriber, since on the broker it may drop topics; `earliest`, since the default skips what was there
before the group; `batch`, since a commit for each event is fifty times slower; a decoder that decodes nothing, since
one event that it cannot decode would fail the whole batch. One topic and one group a subscriber: an ack covers all that
its consumer has read.
"""

import argparse
import asyncio
import logging
from pathlib import Path

from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaMessage

from examples.chapter_index import COMPLETED, ChapterIndex

log = logging.getLogger("examples")

_AGAIN = 5.0


def build(servers: str, topic: str, group: str, index: ChapterIndex) -> FastStream:
    """The application; `run()` it. SIGTERM or Ctrl-C: the batch at hand is finished and acknowledged."""
    broker = KafkaBroker(servers.split(","), graceful_timeout=15.0, logger=log, log_level=logging.DEBUG)

    @broker.subscriber(
        topic,
        group_id=group,
        batch=True,
        batch_timeout_ms=200,
        max_records=500,
        ack_policy=AckPolicy.MANUAL,
        auto_offset_reset="earliest",
        decoder=as_they_came,
    )
    async def on_completed(events: list[bytes], message: KafkaMessage) -> None:
        # It does not return before the work is done: what returns without an ack, or fails, is passed over with the
        # next ack. A crash brings the batch again, which `ChapterIndex` takes as what it is.
        while True:
            try:
                changed = await asyncio.to_thread(index.keep, events)
            except OSError as error:
                log.error("cannot write, trying again: %s", error)
                await asyncio.sleep(_AGAIN)
            else:
                log.info("%d events, %d of them news", len(events), changed)
                break
        await message.ack()

    return FastStream(broker, logger=log)


async def as_they_came(message: KafkaMessage) -> list[bytes]:
    return [record.value or b"" for record in message.raw_message]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--servers", default="127.0.0.1:8705", help="Kafka, as host:port[,host:port]")
    parser.add_argument("--topic", default=COMPLETED, help="with the prefix of SCENEWIRE_NAMESPACE, where that is set")
    parser.add_argument("--group", default="chapter-index", help="of the processes that share the work")
    parser.add_argument("--folder", type=Path, default=Path("chapters"), help="where the files are kept")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(build(arguments.servers, arguments.topic, arguments.group, ChapterIndex(arguments.folder)).run())
