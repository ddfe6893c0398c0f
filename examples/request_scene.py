"""`python -m examples.request_scene`: ask for a picture by an event, as a service without a user's token would.

`record_id` is the idempotency key: sent again with the same one, the event asks for nothing new. So choose it once,
keep it with your own row, and send until Kafka has confirmed. Whoever may write to the topic is trusted with `user_id`.
"""

import argparse
import asyncio
import json
import uuid
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer

TOPIC = "scene-images.requested.bulk.v1"
"""The lane is the topic's: `interactive`, `standard` or `bulk`."""


def event_of(record_id: str, user_id: str, chapter_id: str, scene_number: int, description: str) -> bytes:
    """The CloudEvent. `data` is checked like the body of a POST; what does not fit is a dead letter."""
    return json.dumps(
        {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": "/examples/request-scene",
            "type": "scene-images.requested.v1",
            "subject": record_id,
            "time": datetime.now(UTC).isoformat(),
            "datacontenttype": "application/json",
            "data": {
                "record_id": record_id,
                "user_id": user_id,
                "chapter_id": chapter_id,
                "scene_number": scene_number,
                "scene_description": description,
            },
        }
    ).encode()


async def main(servers: str, topic: str, record_id: str, event: bytes) -> None:
    # all: confirmed once every replica in sync has it
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer:
        headers = [("content-type", b"application/cloudevents+json")]
        await producer.send_and_wait(topic, event, key=record_id.encode(), headers=headers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--servers", default="127.0.0.1:8705", help="Kafka, as host:port[,host:port]")
    parser.add_argument("--topic", default=TOPIC, help="with the prefix of SCENEWIRE_NAMESPACE, where that is set")
    parser.add_argument("--record", default=str(uuid.uuid4()), help="give the same one to send the same request again")
    parser.add_argument("--user", required=True, help="whose picture it is, a UUID")
    parser.add_argument("--chapter", required=True, help="a UUID")
    parser.add_argument("--scene", type=int, required=True, help="its number, from 1")
    parser.add_argument("description", help="what is to be seen")
    given = parser.parse_args()
    event = event_of(given.record, given.user, given.chapter, given.scene, given.description)
    asyncio.run(main(given.servers, given.topic, given.record, event))
    print(given.record)
