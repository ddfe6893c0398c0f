"""Letters that lie there: of records that died, and of events that could not be worked on."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from schemas import topics
from schemas.errors import ErrorClass
from schemas.words import Lane
from storage import deadletters
from storage.deadletters import DeadEvent
from storage.originals import Original
from storage.settling import Failure
from tests.connected.steps import Steps, request

ORIGIN = topics.requested(Lane.BULK)
HEADERS = (("again", b"1"), ("again", b"\xff\x00"), ("nothing", None), ("n\x00me", b"x"))


def read_event(offset: int, **changes: Any) -> DeadEvent:
    given: dict[str, Any] = {
        "error_class": ErrorClass.POISON,
        "code": "unreadable",
        "message": "The event is not JSON in UTF-8.",
        "topic": ORIGIN,
        "partition": 3,
        "offset": offset,
        "key": "\ufffd",
        "body": b"\xff\x00{",
        "original": Original(b"\xff\xfe\x00", HEADERS),
        "received_at": datetime.now(UTC),
        **changes,
    }
    return DeadEvent(**given)


async def buried(steps: Steps, *dead: DeadEvent) -> list[int]:
    assert await deadletters.bury(steps.database, dead) == len(dead)
    await steps.sql("DELETE FROM outbox")
    rows = await steps.sql("SELECT id FROM dead_letters ORDER BY id DESC LIMIT $1", len(dead))
    return sorted(row.id for row in rows)


class Died:
    """Six letters: four records of two users in two chapters, and two events."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.users, self.chapters = (uuid4(), uuid4()), (uuid4(), uuid4())
        self.ids: list[int] = []
        self.records: list[UUID] = []

    async def happen(self) -> "Died":
        fates = (ErrorClass.AUTH, ErrorClass.AUTH, ErrorClass.QUOTA, ErrorClass.EXHAUSTED)
        for scene, fate in enumerate(fates):
            new = request(self.users[scene % 2], chapter=self.chapters[scene // 2], scene=scene + 1)
            claimed = await self.steps.sent(None, new)
            why = Failure(fate, f"code_{fate.value}", "Try later.", "api_key=secret-of-somebody")
            self.ids.append(await self.steps.dead(claimed, why, of=fate))
            self.records.append(claimed.record_id)
        self.ids += await buried(self.steps, read_event(1), read_event(2, user_id=self.users[0]))
        # an hour between any two, the last one now
        await self.steps.sql(
            "UPDATE dead_letters l SET failed_at = now() - make_interval(hours => $1::int - o.hours::int)"
            " FROM unnest($2::bigint[]) WITH ORDINALITY AS o(id, hours) WHERE o.id = l.id",
            len(self.ids),
            self.ids,
        )
        await self.steps.replay(self.ids[0])
        return self
