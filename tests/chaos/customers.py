"""Who asks for scenes in the long run: people of every tier over HTTP, and another service in batches by events."""

import asyncio
import contextlib
import json
import random
from collections.abc import Sequence
from uuid import UUID, uuid4

from messaging.sender import MissingTopic, Outgoing, Sender, SendFailed
from messaging.settings import KafkaSettings
from schemas import topics
from schemas.words import Lane
from tests.chaos.people import Person
from tests.chaos.street import Street

_SCENES_A_CHAPTER = 200
_BATCH = 15
_PLACES = ("by the river", "in the garden", "under a tree", "in the castle", "at the sea", "in the forest")


class Customers:
    """Asks for about `rate` scenes a second until it is told to stop; every one that was promised is remembered."""

    def __init__(self, street: Street, people: Sequence[Person], chance: random.Random, *, rate: float) -> None:
        self._people = people
        self._chance = chance
        self._rate = rate
        self._number = 0
        self._scenes: dict[UUID, int] = {}
        self._sender = Sender(KafkaSettings(kafka_servers=street.kafka.servers, kafka_send_timeout=5.0))
        self._sending = asyncio.Lock()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, and until all that was asked for is accepted."""
        asked: set[asyncio.Task[None]] = set()
        try:
            while not stop.is_set():
                who = self._chance.choice(self._people)
                one_of_them = self._batch(who) if self._chance.random() < 0.02 else self._one(who)
                asked.add(asyncio.create_task(one_of_them))
                for task in [task for task in asked if task.done()]:
                    task.result()
                    asked.discard(task)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._chance.expovariate(self._rate)):
                        await stop.wait()
            await asyncio.gather(*asked)
        finally:
            for task in asked:
                task.cancel()
            await self._sender.discard()

    async def _one(self, who: Person) -> None:
        text, scene, key = self._text(), self._scene(who), str(uuid4())
        chapter = who.chapter
        record_id = await who.ask(text, scene=scene, key=key, chapter=chapter)
        if self._chance.random() < 0.1:
            # a client that did not hear the answer, or heard it twice
            again = await who.ask(text, scene=scene, key=key, chapter=chapter)
            if again != record_id:
                raise AssertionError(f"the same key made {record_id} and {again}")

    async def _batch(self, who: Person) -> None:
        """Another service's events; what Kafka did not confirm may come all the same and was promised to nobody."""
        wishes = {uuid4(): self._text() for _ in range(_BATCH)}
        events = [self._event(who, record_id, text) for record_id, text in wishes.items()]
        async with self._sending:
            with contextlib.suppress(SendFailed, MissingTopic):
                await self._sender.send(events)
                who.accepted |= wishes

    def _event(self, who: Person, record_id: UUID, text: str) -> Outgoing:
        data = {
            "record_id": str(record_id),
            "user_id": str(who.user_id),
            "chapter_id": str(who.chapter),
            "scene_number": self._scene(who),
            "scene_description": text,
        }
        event = {
            "specversion": "1.0",
            "id": str(uuid4()),
            "source": "/another-service",
            "type": "scene-images.requested.v1",
            "data": data,
        }
        return Outgoing(topics.requested(Lane.BULK), str(record_id), json.dumps(event).encode())

    def _text(self) -> str:
        self._number += 1
        return f"Scene {self._number}, {self._chance.choice(_PLACES)}"

    def _scene(self, who: Person) -> int:
        """A scene of its own for each, so that every record is its scene's latest and stays on the page."""
        number = self._scenes.get(who.user_id, 0) + 1
        if number > _SCENES_A_CHAPTER:
            number, who.chapter = 1, uuid4()
        self._scenes[who.user_id] = number
        return number
