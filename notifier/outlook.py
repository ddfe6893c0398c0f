"""Fills in what is computed when read: `queue_position` and `eta_seconds` (the contract, section 3).

The queue is looked at once a second at most, by one reader for all, and only while somebody asks for what is on its
way.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from notifier.forecast import Forecast
from storage.database import Unavailable
from storage.queueing import Queue
from storage.reading import Image

log = structlog.get_logger(__name__)

_FRESH_FOR = 1.0
_GOOD_FOR = 5.0
"""Seconds: a look so old still serves while the next one takes its time; an older one says nothing."""


class Outlook:
    """`look` reads the queue, `clock` tells seconds; no answer is held up for more than `patience` seconds."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Queue]],
        *,
        patience: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._patience = patience
        self._clock = clock
        self._forecast: Forecast | None = None
        self._seen_at = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def fill(self, images: Sequence[Image]) -> list[Image]:
        """The same images, with position and time left where they can be known. Never raises for want of them."""
        if all(image.standing is None for image in images):
            return list(images)
        forecast = await self._newest()
        return list(images) if forecast is None else [_filled(image, forecast) for image in images]

    async def close(self) -> None:
        """Let go of a look that is still going on."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _newest(self) -> Forecast | None:
        if self._forecast is None or self._clock() - self._seen_at >= _FRESH_FOR:
            if self._looking is None:
                self._looking = asyncio.create_task(self._look_again(), name="queue")
            # not awaited itself: whoever leaves must not end it for the others
            await asyncio.wait({self._looking}, timeout=self._patience)
        return self._forecast if self._clock() - self._seen_at < _GOOD_FOR else None

    async def _look_again(self) -> None:
        began = self._clock()
        try:
            self._forecast = Forecast(await self._look())
            self._seen_at = began
        except Unavailable:
            # said by /readyz already; a status without an estimate is a status
            pass
        except Exception:
            log.exception("queue_not_read")
        finally:
            self._looking = None


def _filled(image: Image, forecast: Forecast) -> Image:
    standing = image.standing
    if standing is None:
        return image
    return image.with_estimates(forecast.position(standing), forecast.seconds_left(standing))
