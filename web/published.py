"""The issuer's published keys: fetched, kept, looked at again in the background and when a token names an unknown one.

No client can make us hammer the issuer: callers share a fetch, and two fetches that tokens ask for are
`SCENEWIRE_JWKS_FLOOR` apart. While the issuer is away, or publishes nothing that can be used, the last good set stays.
"""

import asyncio
import random
import time
from collections.abc import Callable

import httpx
import structlog

from telemetry import metrics
from telemetry.redaction import redact
from web import keyset
from web.keyset import KeySet, NotAKeySet
from web.settings import WebSettings, is_loopback

log = structlog.get_logger()

_LARGEST = 256 * 1024
"""Bytes; a set of a hundred keys with their certificates."""
_FIRST_RETRY, _LAST_RETRY = 1.0, 30.0
_HEADERS = {
    "Accept": "application/jwk-set+json, application/json",
    # as it comes: what was packed small may unpack without end
    "Accept-Encoding": "identity",
    "User-Agent": "scenewire",
}


class PublishedKeys:
    """The keys at `SCENEWIRE_JWKS_URL`. `clock`: seconds, monotonic; `transport` takes the place of the network."""

    def __init__(
        self,
        settings: WebSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert settings.jwks_url is not None
        self._url = settings.jwks_url
        self._refresh = settings.jwks_refresh
        self._floor = settings.jwks_floor
        self._timeout = settings.jwks_timeout
        self._transport = transport
        self._clock = clock
        self._client: httpx.AsyncClient | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._asked_at: float | None = None
        self.keys: KeySet | None = None
        #: how often keys went out of the set: what they have verified is to be judged anew
        self.withdrawals = 0
        #: why the last fetch brought nothing; None when it did, or none was made yet
        self.trouble: str | None = None

    @property
    def may_look(self) -> bool:
        """Whether an unknown key is worth waiting for: a fetch is under way, or may be made."""
        return self._fetching is not None or self._asked_at is None or self._clock() >= self._asked_at + self._floor

    async def look(self) -> None:
        """Fetch, or wait for the fetch that is under way; at most once in `SCENEWIRE_JWKS_FLOOR`. Never raises but for
        being cancelled, which leaves the fetch to the others."""
        if self.may_look:
            await self._fetched()

    async def run(self) -> None:
        """Keep the set up to date until cancelled."""
        failed = 0
        try:
            while True:
                await self._fetched()
                if self.trouble is None:
                    failed, wait = 0, self._refresh
                else:
                    failed += 1
                    wait = min(_FIRST_RETRY * 2.0 ** min(failed - 1, 10), _LAST_RETRY, self._refresh)
                # so that the processes of one deploy do not come together
                await asyncio.sleep(wait * random.uniform(0.9, 1.1))
        finally:
            if self._fetching is not None:
                self._fetching.cancel()
            if self._client is not None:
                await self._client.aclose()
                self._client = None

    async def healthy(self) -> None:
        """Raises while there is no set at all."""
        if self.keys is None:
            raise ConnectionError(self.trouble or "the keys have not been fetched yet")

    async def _fetched(self) -> None:
        if self._fetching is None:
            self._asked_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
            self._fetching.add_done_callback(self._ended)
        await asyncio.wait({self._fetching})

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._fetching = None
        # from its end: one that took long must not be followed by the next at once
        self._asked_at = self._clock()
        if not task.cancelled() and task.exception() is not None:
            self.trouble = "our own code failed"
            log.error("jwks_failed", exc_info=task.exception())

    async def _fetch(self) -> None:
        try:
            found = keyset.read(await self._get())
        except TimeoutError:
            self._missed(f"no answer within {self._timeout:g} s")
        except NotAKeySet as error:
            self._missed(str(error))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            self._missed(f"{type(error).__name__}: {error}")
        else:
            self._learn(found)

    async def _get(self) -> bytes:
        if self._client is None:
            # a proxy has no business between us and ourselves
            self._client = httpx.AsyncClient(transport=self._transport, trust_env=not is_loopback(self._url))
        # one limit for the whole: httpx's own count from byte to byte
        async with (
            asyncio.timeout(self._timeout),
            self._client.stream("GET", self._url, headers=_HEADERS, timeout=self._timeout) as response,
        ):
            if response.is_redirect:
                # it might lead from https to anywhere
                raise NotAKeySet("it answered with a redirect: set SCENEWIRE_JWKS_URL to where that leads")
            if response.status_code != 200:
                raise NotAKeySet(f"it answered {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise NotAKeySet("it came packed, which was not asked for")
            whole = bytearray()
            async for part in response.aiter_raw():
                whole += part
                if len(whole) > _LARGEST:
                    raise NotAKeySet(f"it is larger than {_LARGEST // 1024} KB")
            return bytes(whole)

    def _missed(self, why: str) -> None:
        metrics.count("jwks_fetches", outcome="failed")
        why = redact(why.replace("\n", " "))[:200]
        if self.trouble is None or self.keys is None:
            log.warning("jwks_away", detail=why, keys=len(self.keys) if self.keys is not None else 0)
        self.trouble = why

    def _learn(self, found: KeySet) -> None:
        metrics.count("jwks_fetches", outcome="fetched")
        before, self.keys = self.keys, found
        known = before.materials if before is not None else frozenset[str]()
        if known - found.materials:
            self.withdrawals += 1
        if self.trouble is not None or known != found.materials:
            log.info("jwks_read", keys=len(found), added=len(found.materials - known))
        self.trouble = None
