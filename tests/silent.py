"""A reader of Kafka that gets nothing any more, although Kafka answers (aio-libs/aiokafka#1037 and its kind)."""

import asyncio

from messaging.deliveries import Delivery
from messaging.tail import Tail


async def silence(tail: Tail, *, for_ever: bool = False) -> None:
    """What was asked for does not come either. `for_ever`: also when the reader is made anew."""
    sessions = tail._sessions
    assert sessions is not None
    _hear_nothing(tail)
    await sessions.close()
    if for_ever:
        follow = tail._follow

        def in_vain() -> None:
            follow()
            _hear_nothing(tail)

        tail._follow = in_vain  # type: ignore[method-assign]


def _hear_nothing(tail: Tail) -> None:
    async def nothing(within: float, most: int) -> list[Delivery]:
        await asyncio.sleep(within)
        return []

    assert tail._sessions is not None
    tail._sessions.read = nothing  # type: ignore[method-assign]
