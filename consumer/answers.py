"""What one answer of ModelsLab means.

Errors come as 4xx/5xx and inside HTTP 200 alike, so the body is read first and the HTTP code only where the body says
nothing; `consumer.taxonomy` holds the table.

Invariants: every answer becomes `Succeeded`, `Processing` or `ProviderFailure`; an answer to a submit that names an id
and does not plainly say `error` or `failed` is followed by fetch, never by another submit.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic_core import from_json, to_json

from consumer import fields
from consumer.taxonomy import CODES, CONTENT, PHASES, UNKNOWN, Row, by_text
from schemas.errors import ERROR_MESSAGE_MAX_BYTES, ErrorClass
from telemetry.redaction import redact

_JSON_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_TEXT_MAX = 4_000
"""Characters of a provider's text that are matched; bounds the cost of a hostile answer."""


_ABOUT_THE_CALLER = frozenset({ErrorClass.RATE_LIMITED, ErrorClass.AUTH, ErrorClass.QUOTA})
"""Said to a fetch, these tell of our account and not of the job: it is made and paid, and asked for again."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The pictures are made. `proxy_urls` are second addresses of the same pictures, never a sign of success.

    `track_id` is the one we gave, where the answer repeats it (documented for one page of models only).
    """

    provider_request_id: str | None
    output_urls: list[str]
    proxy_urls: list[str]
    nsfw: bool
    track_id: str | None = None


@dataclass(frozen=True, slots=True)
class Processing:
    """The job exists. `eta` in seconds; `fetch_url` as the provider gave it, unchecked; `track_id` as above."""

    provider_request_id: str
    eta: float | None
    fetch_url: str | None
    track_id: str | None = None


class ProviderFailure(Exception):
    """The provider did not make the picture, or did not say so."""

    def __init__(
        self,
        error_class: ErrorClass,
        code: str,
        message: str,
        *,
        detail: str = "",
        sent: bool = True,
        retry_after: float | None = None,
        terminal: bool = False,
        provider_request_id: str | None = None,
    ) -> None:
        super().__init__(f"{error_class.value}/{code}: {detail or message}")
        self.error_class = error_class
        self.code = code
        #: a sentence for the person who waits; holds nothing of the provider's text
        self.message = message
        #: the provider's own text for the operator, redacted, at most 1 KB
        self.detail = detail
        #: whether the request may have reached the provider
        self.sent = sent
        #: seconds the provider asked us to wait
        self.retry_after = retry_after
        #: for a fetch: whether the job itself is over, and not only this look at it
        self.terminal = terminal
        #: the job that failed, where the answer named it
        self.provider_request_id = provider_request_id


def flagged(provider_request_id: str | None) -> ProviderFailure:
    """A success whose picture the provider itself marked as not safe for work (and usually blanked)."""
    return ProviderFailure(
        ErrorClass.CONTENT,
        "nsfw_flagged",
        CONTENT,
        detail="nsfw_content_detected",
        terminal=True,
        provider_request_id=provider_request_id,
    )


def broke_off(phase: str, detail: str) -> ProviderFailure:
    """An exchange that ended without an answer that can be read, by its row in `PHASES`."""
    error_class, code, message = PHASES[phase]
    return ProviderFailure(error_class, code, message, detail=detail, sent=error_class is not ErrorClass.NETWORK)


def read(
    code: int, headers: Mapping[str, str], content: bytes, *, fetching: bool, without_key: Callable[[str], str]
) -> Succeeded | Processing | ProviderFailure:
    """What one answer means. `without_key` takes the key out of it: no text, id or address that is kept has it."""
    try:
        # in our own writing no escapes can hide a word from who looks for it
        said = without_key(to_json(from_json(content)).decode())
        body = from_json(said)
    except ValueError:
        said = without_key(_JSON_ESCAPE.sub(_letter, content[: 4 * _TEXT_MAX].decode("utf-8", "replace")))
        return _unreadable(code, headers, said)
    if not isinstance(body, dict):
        return _unreadable(code, headers, said, readable=True)

    status = body.get("status")
    word = status.strip().lower() if isinstance(status, str) else ""
    request_id = fields.request_id(body)
    if word == "success":
        outputs = fields.links(body.get("output"))
        if outputs:
            nsfw = fields.flag(body.get("nsfw_content_detected"))
            return Succeeded(request_id, outputs, fields.links(body.get("proxy_links")), nsfw, fields.track_id(body))
        return _failure((ErrorClass.UNEXPECTED, "empty_output", UNKNOWN), code, said, request_id, terminal=True)
    said_no = word in ("error", "failed")
    if request_id is not None and _may_be_running(code, word, said_no=said_no, fetching=fetching):
        eta, fetch_url = fields.seconds(body.get("eta")), fields.link(body.get("fetch_result"))
        return Processing(request_id, eta, fetch_url, fields.track_id(body))
    if word == "processing":
        return _failure((ErrorClass.UNEXPECTED, "no_request_id", UNKNOWN), code, said, None)
    return _error(code, headers, said, body, said_no=said_no, request_id=request_id)


def _may_be_running(code: int, word: str, *, said_no: bool, fetching: bool) -> bool:
    """Whether an answer with an id is to be followed by a fetch. After a submit it is, unless it plainly says no."""
    if word == "processing":
        return True
    return not fetching and (code >= 500 or (code < 400 and not said_no))


def _error(
    code: int,
    headers: Mapping[str, str],
    said: str,
    body: dict[str, object],
    *,
    said_no: bool,
    request_id: str | None,
) -> ProviderFailure:
    message = next((m for m in (body.get("message"), body.get("messege"), body.get("error")) if m), None)
    text = fields.flat(message)[:_TEXT_MAX]
    hint = fields.flat([body.get("tip"), body.get("tips"), body.get("tip_1")])[:_TEXT_MAX]
    if code >= 500 and code not in (500, 503) and not said_no:
        # a gateway's JSON, not the provider's: behind it the job may be running
        return _failure(PHASES["unreadable"], code, said, request_id)
    row = by_text(text.lower(), hint.lower())
    if row is None and isinstance(message, dict):
        row = CODES[422]
    if row is None:
        row = CODES.get(code) or (CODES[503] if code >= 500 else _unknown(code, said_no=said_no))
    about_the_job = said_no and code < 500 and code != 429 and row[0] not in _ABOUT_THE_CALLER
    retry_after = fields.retry_after(body.get("retry_after"), headers, hint)
    return _failure(row, code, said, request_id, retry_after=retry_after, terminal=about_the_job)


def _unknown(code: int, *, said_no: bool = False) -> Row:
    if 300 <= code < 400:
        return ErrorClass.UNEXPECTED, "redirected", UNKNOWN
    return ErrorClass.UNEXPECTED, "unknown_error" if said_no or code >= 400 else "unknown_status", UNKNOWN


def _unreadable(code: int, headers: Mapping[str, str], said: str, *, readable: bool = False) -> ProviderFailure:
    if code in CODES:
        row = CODES[code]
    elif 300 <= code < 500 or (readable and code < 300):
        row = _unknown(code)
    else:
        row = PHASES["unreadable"]
    return _failure(row, code, said, None, retry_after=fields.retry_after(None, headers, ""))


def _failure(
    row: Row,
    code: int,
    said: str,
    request_id: str | None,
    *,
    retry_after: float | None = None,
    terminal: bool = False,
) -> ProviderFailure:
    # without what else an answer may repeat, the webhook's address with its token before all, and before it is cut:
    # half a secret is still one
    words = fields.printable(redact(said[: 2 * _TEXT_MAX])[:_TEXT_MAX])
    detail = f"HTTP {code}: {words}".encode()[:ERROR_MESSAGE_MAX_BYTES].decode("utf-8", "ignore")
    error_class, name, message = row
    return ProviderFailure(
        error_class,
        name,
        message,
        detail=detail,
        retry_after=retry_after,
        terminal=terminal,
        provider_request_id=request_id,
    )


def _letter(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))
