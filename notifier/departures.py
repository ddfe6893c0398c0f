"""Sending many away one after another, so that they do not come back all at once."""

import asyncio
import random
from collections.abc import Callable, Sequence

_APART = 0.005
"""Seconds between two, where they are few."""
_SHORTEST_PAUSE = 0.01


async def spread(leaving: Sequence[Callable[[], None]], within: float) -> None:
    """Call each once, in any order, evenly over `within` seconds; a few are done sooner."""
    shuffled = random.sample(leaving, len(leaving))
    pause = min(_APART, within / max(1, len(leaving)))
    loop = asyncio.get_running_loop()
    due = loop.time()
    for leave in shuffled:
        leave()
        due += pause
        # what the calls themselves took is part of the pause
        if due - loop.time() >= _SHORTEST_PAUSE:
            await asyncio.sleep(due - loop.time())
