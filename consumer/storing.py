"""From the provider's addresses to a stored picture: repeated until it works or the deadline, never paid again (T2)."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import structlog

from consumer.pictures import DownloadFailed, NotAPicture, Picture, download
from consumer.settings import ConsumerSettings
from media import keys, links
from media.store import Media, MediaUnavailable
from schemas.events import PictureFacts
from storage.answers import Stored
from storage.dispatching import Claimed
from telemetry import metrics
from telemetry.redaction import redact

log = structlog.get_logger(__name__)

_EARLY_LONGEST = 2.0

FreshUrls = Callable[[], Awaitable[list[str]]]


class TooLate(Exception):
    """The picture could not be stored before the record's deadline."""


class Gate:
    """Lets many store at once, but one that a worker has died on only alone: so only the guilty one is found (W5)."""

    def __init__(self) -> None:
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()
        # held by one that is inside alone, or waits for the others to leave: nobody enters meanwhile
        self._door = asyncio.Lock()

    @asynccontextmanager
    async def enter(self, *, alone: bool) -> AsyncIterator[None]:
        if alone:
            async with self._door:
                await self._empty.wait()
                yield
            return
        async with self._door:
            self._inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()


class _Pauses:
    """Between the tries to store one picture; in seconds."""

    def __init__(self, settings: ConsumerSettings, longest: float | None) -> None:
        self.longest = longest if longest is not None else settings.storing_retry_longest
        self._next = settings.storing_retry
        self._early = settings.download_fresh_retry
        self._fresh_until = time.monotonic() + settings.download_fresh_for

    def next(self) -> float:
        pause, self._next = self._next, min(2 * self._next, self.longest)
        return pause

    def early(self) -> float | None:
        """The same while the links are fresh; then None."""
        if time.monotonic() >= self._fresh_until:
            return None
        pause, self._early = self._early, min(1.5 * self._early, _EARLY_LONGEST)
        return pause


class Storing:
    """Downloads and stores pictures; one for the process."""

    def __init__(self, settings: ConsumerSettings, *, media: Media, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self._media = media
        self._client = client
        self._gate = Gate()

    async def store(
        self,
        claimed: Claimed,
        urls: list[str],
        proxies: list[str],
        fresh: FreshUrls,
        *,
        longest: float | None = None,
    ) -> Stored:
        """Try the addresses, then the proxies, then addresses from a fresh fetch, 1 to 30 s (or `longest`) apart.

        What is not there yet is asked for again for some seconds before that counts. Raises `TooLate` at the deadline,
        `NotAPicture` when every source answered with something else.
        """
        began = time.monotonic()
        deadline = began + claimed.seconds_left
        pauses = _Pauses(self._settings, longest)
        strange: set[str] = set()
        while True:
            try:
                # only while bytes are in hand: one that waits for its next try holds up nobody
                async with self._gate.enter(alone=claimed.takeovers > 0):
                    stored = await self._put(claimed, await self._fetch([*urls, *proxies]))
                metrics.observe("storing_seconds", time.monotonic() - began)
                return stored
            except (NotAPicture, DownloadFailed) as error:
                early = pauses.early() if error.not_yet else None
                if early is not None:
                    pause = early
                elif isinstance(error, NotAPicture):
                    strange.update(urls, proxies)
                    urls, proxies = [url for url in await fresh() if url not in strange], []
                    if not urls:
                        raise
                    continue
                else:
                    metrics.count("storing_repeats", reason="download")
                    log.warning("download_failed", record_id=str(claimed.record_id), error=str(error))
                    urls = await fresh() or urls
                    pause = pauses.next() if error.retryable else pauses.longest
            except MediaUnavailable as error:
                metrics.count("storing_repeats", reason="media")
                log.warning("media_unavailable", record_id=str(claimed.record_id), error=str(error))
                pause = pauses.next()
            left = deadline - time.monotonic()
            if left <= 0:
                raise TooLate
            # a last try then, rather than an end that comes a whole pause early
            await asyncio.sleep(min(pause, left))

    async def _fetch(self, urls: list[str]) -> Picture:
        return await download(
            self._client,
            urls,
            limit_bytes=self._settings.download_bytes,
            time_limit=self._settings.download_timeout,
        )

    async def _put(self, claimed: Claimed, picture: Picture) -> Stored:
        key = keys.image_key(claimed.record_id, picture.sha256, picture.extension)
        await self._media.put(key, picture.data, picture.content_type)
        metrics.count("picture_bytes", len(picture.data))
        path = links.sign(claimed.record_id, picture.sha256, picture.extension, self._settings.picture_secrets)
        facts = PictureFacts(
            content_type=picture.content_type,
            bytes=len(picture.data),
            sha256=picture.sha256,
            width=picture.width,
            height=picture.height,
        )
        return Stored(
            claimed.claim_token,
            claimed.attempt_id,
            key,
            self._settings.push_url + path,
            {**facts.model_dump(), "provider_url": redact(picture.source)},
        )


__all__ = ["Gate", "NotAPicture", "Storing", "TooLate"]
