"""The ModelsLab client: the only place that speaks the provider's HTTP and the only one that holds the API key.

Invariants: the key travels in the JSON body (docs.modelslab.com, authentication), to the configured host or, where
that is the provider's, another of its own, over https (loopback apart), and appears in no exception, log or text that
leaves this module. No request is repeated and no redirect followed here: a submit may cost money, and only
`consumer.verdicts` decides on another one.

It drives httpx's transports directly. A provider's call needs no cookies, redirects or event hooks, and leaving
`httpx.AsyncClient` out saves a fifth of the CPU of a call.
"""

import asyncio
import html
import ipaddress
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import quote, quote_plus

import httpx
import structlog
from pydantic import SecretStr
from pydantic_core import to_json

from consumer import answers
from consumer.answers import Processing, ProviderFailure, Succeeded
from consumer.lines import Lines
from telemetry.redaction import redact

log = structlog.get_logger(__name__)

PROVIDER_HOSTS = frozenset(
    {"modelslab.com", "www.modelslab.com", "stablediffusionapi.com", "www.stablediffusionapi.com"}
)
FETCH_PATH = "/api/v7/images/fetch/"

_CONNECT_SECONDS = 5.0
_ANSWER_MAX_BYTES = 1024 * 1024
_SHORTEST_KEY = 6
"""Characters."""


class ModelsLab:
    """Submits image generations and looks after them. Times in seconds.

    Raises ValueError for a base URL without scheme and host. A trailing `/api/v6` or `/api/v7` is cut with a warning.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: SecretStr | str,
        submit_timeout: float,
        fetch_timeout: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base = _base(base_url)
        self._key = api_key if isinstance(api_key, SecretStr) else SecretStr(api_key)
        self._submit_timeout = submit_timeout
        self._fetch_timeout = fetch_timeout
        self._transport = transport if transport is not None else Lines()
        self._urls: dict[str, httpx.URL] = {}
        self._without_key = _remover_of(self._key.get_secret_value())

    async def submit(
        self, payload: Mapping[str, object], *, path: str, track_id: str, webhook: str | None = None
    ) -> Succeeded | Processing:
        """POST one image generation to `path`. Raises ProviderFailure; may cost money once `sent` is true."""
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self._base.copy_with(path=self._base.path.rstrip("/") + path)
        body = {**payload, "track_id": track_id}
        if webhook is not None:
            body["webhook"] = webhook
        outcome = await self._exchange(url, body, self._submit_timeout, fetching=False)
        # raised here, where no frame holds the request: a traceback with locals must not show the key
        if isinstance(outcome, ProviderFailure):
            raise outcome
        return outcome

    async def fetch(self, provider_request_id: str, fetch_url: str | None) -> Succeeded | Processing:
        """Look at a submitted job. Raises ProviderFailure, whose `terminal` says whether the job itself is over."""
        url = self._trusted(fetch_url)
        if url is None:
            path = self._base.path.rstrip("/") + FETCH_PATH + quote(provider_request_id, safe="")
            url = self._base.copy_with(raw_path=path.encode("ascii"))
        outcome = await self._exchange(url, {}, self._fetch_timeout, fetching=True)
        if isinstance(outcome, ProviderFailure):
            raise outcome
        if isinstance(outcome, Processing) and outcome.provider_request_id != provider_request_id:
            return replace(outcome, provider_request_id=provider_request_id)
        return outcome

    async def close(self) -> None:
        await self._transport.aclose()

    def _trusted(self, fetch_url: str | None) -> httpx.URL | None:
        """The address if the key may go there, else None: it must be over https (only a loopback host need not) and of
        our base's own origin, or of another of the provider's hosts where the base is one (a gateway's answers may name
        the provider itself, past which the gateway was put).
        """
        if fetch_url is None:
            return None
        try:
            url = httpx.URL(fetch_url)
        except (httpx.InvalidURL, ValueError):
            return None
        if url.userinfo or not (url.scheme == "https" or _loopback(url.host)):
            return None
        ours = (self._base.scheme, self._base.host, self._base.port)
        if (url.scheme, url.host, url.port) == ours:
            return url
        theirs = url.scheme == "https" and url.port is None and url.host in PROVIDER_HOSTS
        return url if theirs and self._base.host in PROVIDER_HOSTS else None

    async def _exchange(
        self, url: httpx.URL, body: Mapping[str, object], timeout: float, *, fetching: bool
    ) -> Succeeded | Processing | ProviderFailure:
        """One POST and its meaning. Returns failures, so that no raised frame has seen the request's bytes."""
        connect = min(_CONNECT_SECONDS, timeout)
        phase, detail = "our_fault", ""
        try:
            request = httpx.Request(
                "POST",
                url,
                headers=_HEADERS,
                content=to_json({**body, "key": self._key.get_secret_value()}),
                extensions={"timeout": {"connect": connect, "pool": connect, "write": timeout, "read": timeout}},
            )
            # over the whole, since httpx's read timeout starts again at every byte
            async with asyncio.timeout(2 * connect + timeout):
                response = await self._transport.handle_async_request(request)
                try:
                    content = await _read(response)
                finally:
                    await response.aclose()
            return answers.read(
                response.status_code, response.headers, content, fetching=fetching, without_key=self._without_key
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            phase, detail = "not_connected", _say(error)
        except httpx.PoolTimeout as error:
            phase, detail = "no_connection_free", _say(error)
        except (httpx.TimeoutException, TimeoutError) as error:
            phase, detail = "no_answer", _say(error)
        except (httpx.NetworkError, httpx.RemoteProtocolError, OSError) as error:
            phase, detail = "connection_lost", _say(error)
        except (httpx.DecodingError, _TooLong) as error:
            phase, detail = "unreadable", _say(error)
        except Exception as error:
            phase, detail = "our_fault", _say(error)
            # where, and none of the frames' own words: one of them holds the key
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error(
                "provider_call_broken", kind=type(error).__name__, detail=redact(self._without_key(detail)), where=where
            )
        return answers.broke_off(phase, redact(self._without_key(detail))[:500])


class _TooLong(Exception):
    """The answer is longer than any answer of the provider."""

    def __str__(self) -> str:
        return str(self.__doc__)


_HEADERS = [
    ("content-type", "application/json"),
    ("accept", "application/json"),
    # names no compression: unpacking costs more than a loopback or a data centre's line saves
    ("accept-encoding", "identity"),
    ("user-agent", "scenewire"),
]


def _remover_of(key: str) -> Callable[[str], str]:
    """Takes the key out of a text, in each form in which an answer or an error may repeat it: as a page, an address or
    JSON has it, JSON within JSON and a writer that escapes the slash among them.
    """
    forms = {key, html.escape(key), quote(key), quote(key, safe=""), quote_plus(key)}
    forms |= {json.dumps(form, ensure_ascii=ascii)[1:-1] for form in forms for ascii in (True, False)}
    forms |= {json.dumps(form, ensure_ascii=False)[1:-1] for form in forms}
    forms |= {form.replace("/", "\\/") for form in forms}
    # a shorter one (of a simulator) would blot out words of the answer
    longest_first = sorted((form for form in forms if len(key) >= _SHORTEST_KEY), key=len, reverse=True)

    def without_key(text: str) -> str:
        for form in longest_first:
            text = text.replace(form, "[key]")
        return text

    return without_key


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _read(response: httpx.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > _ANSWER_MAX_BYTES:
            raise _TooLong
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _base(base_url: str) -> httpx.URL:
    text = base_url.strip().rstrip("/")
    for tail in ("/api/v6", "/api/v7"):
        if text.endswith(tail):
            text = text.removesuffix(tail)
            log.warning("base_url_cut", cut=tail, advice="give MODELSLAB_BASE_URL without the API's version")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise ValueError("MODELSLAB_BASE_URL must be a scheme and a host, such as https://modelslab.com")
    if url.scheme == "http" and not _loopback(url.host):
        if url.host in PROVIDER_HOSTS:
            raise ValueError(f"MODELSLAB_BASE_URL sends the API key unencrypted: write https://{url.host}")
        log.warning("base_url_unencrypted", host=url.host, advice="the API key can be read on the way: use https")
    return url


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761
