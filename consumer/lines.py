"""Connections to servers outside, one httpx transport each.

httpx's own pool walks all of its connections, asking the kernel about each, whenever a call begins or ends: with 64 of
them that was two thirds of the consumer's CPU. Here an idle connection is taken from the top of a stack.
"""

from collections.abc import AsyncIterator
from urllib.request import getproxies, proxy_bypass

import httpx

_KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which common servers close: a request that races the close would count as uncertain."""

Origin = tuple[str, str, int | None]


class Lines(httpx.AsyncBaseTransport):
    """A transport with as many connections as there are calls at once; the idle ones are kept, `most` per origin."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        # making one reads the system's certificates, which takes tens of milliseconds
        self._tls = httpx.create_ssl_context()
        self._idle: dict[Origin, list[httpx.AsyncBaseTransport]] = {}
        self._limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEEPALIVE_SECONDS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin = (request.url.scheme, request.url.host, request.url.port)
        idle = self._idle.setdefault(origin, [])
        line = idle.pop() if idle else self._new(origin)
        try:
            response = await line.handle_async_request(request)
        except BaseException:
            # what state it is in nobody knows
            await line.aclose()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Borrowed(response.stream, line, idle, self._most)
        return response

    async def aclose(self) -> None:
        for idle in self._idle.values():
            while idle:
                await idle.pop().aclose()

    def _new(self, origin: Origin) -> httpx.AsyncBaseTransport:
        scheme, host, _ = origin
        # as httpx.AsyncClient would: a deployment behind a proxy names it in the environment
        proxy = None if proxy_bypass(host) else getproxies().get(scheme)
        return httpx.AsyncHTTPTransport(verify=self._tls, limits=self._limits, proxy=proxy)


class _Borrowed(httpx.AsyncByteStream):
    """A response's bytes; closing it gives the connection back."""

    def __init__(
        self,
        stream: httpx.AsyncByteStream,
        line: httpx.AsyncBaseTransport,
        idle: list[httpx.AsyncBaseTransport],
        most: int,
    ) -> None:
        self._stream = stream
        self._line: httpx.AsyncBaseTransport | None = line
        self._idle = idle
        self._most = most

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        line, self._line = self._line, None
        if line is None:
            return
        try:
            await self._stream.aclose()
        except BaseException:
            await line.aclose()
            raise
        if len(self._idle) < self._most:
            self._idle.append(line)
        else:
            await line.aclose()
