"""httpx's transport over aiohttp's connections: half the CPU of httpcore's, which walks its whole pool at each call.

What counts here is the phase in which a call broke off: whatever happened after a connection stood may have reached
the provider, and only what failed before it may be called "not sent". (The published adapter, httpx-aiohttp, reports
a lost connection as a connect timeout, which would pay twice.)
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from yarl import URL

from consumer.destinations import Destinations

_KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which common servers close: a request that races the close would count as uncertain."""
_CHUNK_BYTES = 256 * 1024

_BEFORE_SENDING: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    # of `sock_connect` and of waiting for a free connection alike
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
)
_AFTER_SENDING: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.SocketTimeoutError, httpx.ReadTimeout),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientConnectionError, httpx.ReadError),
    (aiohttp.ClientPayloadError, httpx.ReadError),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
)


class Lines(httpx.AsyncBaseTransport):
    """As many connections as there are calls at once, kept alive for the next. To be used in one event loop.

    With `destinations` only what they allow is connected to. Through a proxy names are resolved by it, so what a name
    may stand for is the proxy's to judge.
    """

    def __init__(self, *, destinations: Destinations | None = None) -> None:
        self._destinations = destinations
        self._session: aiohttp.ClientSession | None = None
        # the proxy's own address is the operator's choice, and usually within our network
        self._through_proxy: aiohttp.ClientSession | None = None
        self._proxies: dict[tuple[str, str], str | None] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange; redirects, cookies and compression are the caller's business. Raises httpx.TransportError."""
        limits = request.extensions.get("timeout", {})
        proxy = self._proxy(request.url.scheme, request.url.host)
        with _in_httpx_words():
            # judged as aiohttp reads it: two readers of one address may differ about its host
            try:
                url = URL(str(request.url))
            except ValueError as error:
                raise httpx.UnsupportedProtocol(str(error)) from None
            if self._destinations is not None:
                self._destinations.judge(url)
            response = await self._opened(proxied=proxy is not None).request(
                request.method,
                url,
                headers=request.headers,
                data=await request.aread() or None,
                allow_redirects=False,
                proxy=proxy,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=limits.get("connect"),
                    sock_connect=limits.get("connect"),
                    sock_read=limits.get("read"),
                ),
            )
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response), request=request)

    async def aclose(self) -> None:
        for session in (self._session, self._through_proxy):
            if session is not None:
                await session.close()

    def _opened(self, *, proxied: bool) -> aiohttp.ClientSession:
        # at the first call: a session belongs to the loop that runs then
        if proxied and self._destinations is not None:
            if self._through_proxy is None:
                self._through_proxy = _session(None)
            return self._through_proxy
        if self._session is None:
            self._session = _session(self._destinations)
        return self._session

    def _proxy(self, scheme: str, host: str) -> str | None:
        """A deployment behind a proxy names it in the environment, as httpx.AsyncClient reads it; looked up once."""
        known = (scheme, host)
        if known not in self._proxies:
            self._proxies[known] = None if proxy_bypass(host) else getproxies().get(scheme)
        return self._proxies[known]


def _session(destinations: Destinations | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS, resolver=destinations),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type"),
    )


class _Body(httpx.AsyncByteStream):
    """A response's bytes; closing it gives the connection back, or ends it when bytes are left."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _in_httpx_words():
            async for chunk in self._response.content.iter_chunked(_CHUNK_BYTES):
                yield chunk

    async def aclose(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


@contextmanager
def _in_httpx_words() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
        for known, said in (*_BEFORE_SENDING, *_AFTER_SENDING):
            if isinstance(error, known):
                raise said(_words(error)) from error
        raise httpx.ReadError(_words(error)) from error


def _words(error: Exception) -> str:
    """What it says. A line that was closed within an answer says all that was read of it, headers too, and those may
    hold a part of what we sent, the key not spared: of that its name is enough."""
    if isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str):
        return type(error).__name__
    return str(error) or type(error).__name__
