"""What Postgres writes into the outbox is spelled as the notifier knows it, whatever becomes of a record."""

import json

import pytest

from notifier import events
from schemas import topics
from schemas.errors import ErrorClass
from storage import deadlines
from storage.settling import Failure
from tests.connected.steps import Steps

pytestmark = pytest.mark.connected

QUOTED = Failure(ErrorClass.UNAVAILABLE, "busy", 'The image service said "later"\nand left: schade, 残念.')


async def test_every_status_event_of_ours_is_read_the_short_way(steps: Steps) -> None:
    done = await steps.sent()
    await steps.named(done)
    await steps.generated(done)
    await steps.stored(done)
    failed = await steps.sent()
    await steps.retry(failed, QUOTED)
    await steps.due(failed.record_id)
    (again,) = await steps.claim(await steps.worker())
    await steps.dead(again, QUOTED)
    (letter,) = await steps.letters(again.record_id)
    await steps.replay(letter.id)
    (waiting,) = await steps.waiting()
    assert await deadlines.cancel(steps.database, waiting)
    bodies = [
        bytes(row.body)
        for row in await steps.sql("SELECT body FROM outbox WHERE topic = $1 ORDER BY id", topics.STATUS)
    ]
    seen = {(image["status"], image["stage"]) for image in (json.loads(body)["data"] for body in bodies)}
    assert {status for status, _ in seen} == {"pending", "in_progress", "completed", "failed", "cancelled"}
    assert {stage for _, stage in seen} >= {"queued", "generating", "storing", "retry_wait", "done"}
    for body in bodies:
        short = events._as_we_write_it(body)
        assert short is not None, body.decode()
        assert short == events._as_anybody_may(body.decode())
