"""What `bench/push.py` compares with: pushing as it is usually done with Starlette.

    python -m bench.usual --port 8000        # SCENEWIRE_KAFKA_SERVERS, SCENEWIRE_NAMESPACE, SCENEWIRE_JWT_SECRET

One queue and one sending task a socket, one reader of Kafka that puts each event's text into the queues of its chapter.
No snapshot, no cursor, no limits. In its favour: uvloop, httptools, permessage-deflate off, one `json.dumps` an event.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import jwt
import uvicorn
from aiokafka import AIOKafkaConsumer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PREFIX = "base64url.bearer.scenewire."
TOPIC = os.environ["SCENEWIRE_NAMESPACE"] + "scene-images.status.v1"
SECRET = os.environ["SCENEWIRE_JWT_SECRET"]
Key = tuple[str, str]
subscribers: dict[Key, set["asyncio.Queue[str]"]] = defaultdict(set)


async def push(websocket: WebSocket) -> None:
    offered: list[str] = websocket.scope["subprotocols"]
    encoded = next(one[len(PREFIX) :] for one in offered if one.startswith(PREFIX))
    await websocket.accept(subprotocol="scenewire.v1+json")
    try:
        token = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp"]})
    except jwt.PyJWTError:
        await websocket.close(4401)
        return
    queue: asyncio.Queue[str] = asyncio.Queue()
    await websocket.send_text('{"type":"welcome"}')
    sender = asyncio.create_task(send(websocket, queue))
    keys: list[Key] = []
    try:
        while True:
            frame = json.loads(await websocket.receive_text())
            if frame["type"] == "subscribe":
                keys.append((claims["sub"], frame["chapter_id"]))
                subscribers[keys[-1]].add(queue)
                # with the names that a page of ours looks for
                nothing = {"type": "snapshot", "id": frame["id"], "images": [], "cursor": None, "resumed": None}
                queue.put_nowait(json.dumps(nothing))
    except WebSocketDisconnect:
        pass
    finally:
        sender.cancel()
        for key in keys:
            subscribers[key].discard(queue)
            if not subscribers[key]:
                del subscribers[key]


async def send(websocket: WebSocket, queue: "asyncio.Queue[str]") -> None:
    with contextlib.suppress(RuntimeError):
        while True:
            await websocket.send_text(await queue.get())


async def follow(consumer: AIOKafkaConsumer) -> None:
    async for message in consumer:
        image = json.loads(message.value)["data"]
        key = (image["user_id"], image["chapter_id"])
        if key in subscribers:
            text = json.dumps({"type": "status", "image": image, "cursor": None})
            for queue in subscribers[key]:
                queue.put_nowait(text)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    consumer = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=os.environ["SCENEWIRE_KAFKA_SERVERS"], group_id=None, auto_offset_reset="latest"
    )
    await consumer.start()
    # "latest" is where the log ends when it is first looked at
    for partition in consumer.assignment():
        await consumer.position(partition)
    task = asyncio.create_task(follow(consumer))
    try:
        yield
    finally:
        task.cancel()
        await consumer.stop()


async def ready(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ready")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.usual", description=str(__doc__).splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    asked = parser.parse_args()
    app = Starlette(routes=[WebSocketRoute("/ws", push), Route("/readyz", ready)], lifespan=lifespan)
    uvicorn.run(
        app,
        host=asked.host,
        port=asked.port,
        loop="uvloop",
        http="httptools",
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
