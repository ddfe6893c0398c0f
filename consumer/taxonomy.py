"""The table from the provider's texts, HTTP codes and broken exchanges to a class, a code and what the user reads.

ModelsLab documents neither error codes nor an answer schema for its v7 images; what is known are texts, seen in its
documentation (docs.modelslab.com, error-codes and rate-limits), in its SDKs and in other clients' logs. Codes are
stable: people and dashboards rely on them.
"""

import re
from dataclasses import dataclass
from typing import TypeAlias

from schemas.errors import ErrorClass

Row: TypeAlias = tuple[ErrorClass, str, str]
"""Class, code, the sentence for the person who waits."""

SOON = "The image service could not be reached. Please try again in a few minutes."
BUSY = "The image service is busy right now. Please try again in a few minutes."
UNKNOWN = "The image service gave an answer we could not use. Please try again; if it happens again, contact support."
UNREAD = "The image service did not answer in time, so it is not known whether a picture was made. Please try again."
ACCOUNT = "Images cannot be made right now because of a problem with our account. Our team has to mend it; try later."
MODEL = "The image model is not available right now. Please try again later."
CONTENT = "The image service refused this scene because of its content rules. Please change the description."
PROMPT = "The image service did not accept the scene's description. Please change or shorten it."
REQUEST = "The image service did not accept this request. Please change the description or the picture's format."
REFERENCE = "The image service could not open a reference picture. Please check that its address is public."


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: a text of the provider (lower case, a regular expression) -> class, code and what the user reads."""

    text: str
    error_class: ErrorClass
    code: str
    message: str
    #: whether `tip`, `tips` and `tip_1` count too; most hold advertising
    hints: bool = False


_C = ErrorClass

RULES: tuple[Rule, ...] = (
    Rule(r"account.{0,30}(suspend|blocked|banned|disabled|deactivated)", _C.AUTH, "account_suspended", ACCOUNT),
    Rule(r"\bip\b.{0,20}blocked", _C.AUTH, "address_blocked", ACCOUNT),
    Rule(
        r"(invalid|wrong|missing|expired|incorrect).{0,12}api.?key|api.?key.{0,20}(required|invalid|missing|expired)"
        r"|\bkey\b.{0,12}(field is )?required|unauthori[sz]ed|unauthenticated",
        _C.AUTH,
        "api_key_refused",
        ACCOUNT,
    ),
    Rule(
        r"insufficient (credit|balance|fund)|out of credits|not enough (credit|balance)|add more credits"
        r"|monthly limit|payment required|upgrade subscription",
        _C.QUOTA,
        "out_of_credits",
        ACCOUNT,
    ),
    Rule(
        r"rate.?limit|too many requests|queued requests allowed|queue limit|spam filter",
        _C.RATE_LIMITED,
        "rate_limited",
        BUSY,
        hints=True,
    ),
    Rule(
        r"cannot be generated at the moment|try (to )?(use |using |with )?(another|a different) model",
        _C.MODEL_UNAVAILABLE,
        "model_busy",
        MODEL,
    ),
    Rule(
        r"requires? a .{0,20}(subscription|plan)|premium subscription|feature not available|upgrade your plan"
        r"|not (available|included) (in|on|for) your plan",
        _C.MODEL_UNAVAILABLE,
        "model_not_in_plan",
        MODEL,
    ),
    Rule(
        r"model.{0,40}(not found|not exist|invalid|not available|unavailable|disabled|deprecated|retired|not supported)"
        r"|(invalid|unknown|unsupported|no such).{0,5}model",
        _C.MODEL_UNAVAILABLE,
        "model_unknown",
        MODEL,
    ),
    Rule(
        r"polic(y|ies)|nsfw|blocked|moderat|safety (filter|system)|prohibited|inappropriate|sensitive content",
        _C.CONTENT,
        "content_refused",
        CONTENT,
        hints=True,
    ),
    Rule(r"request( id)? not found", _C.UNEXPECTED, "request_not_found", UNKNOWN),
    Rule(
        r"unable to (fetch|download|load) image|invalid image url",
        _C.INVALID,
        "reference_unreachable",
        REFERENCE,
    ),
    Rule(
        r"prompt.{0,60}(required|must|invalid|too long|too short|exceed|empty)|(invalid|bad|empty) prompt",
        _C.INVALID,
        "invalid_prompt",
        PROMPT,
    ),
    Rule(
        r"\b(is|are) required|must (be|not|have|contain)|validation|not a valid|\bis invalid"
        r"|invalid (\w+ )?(request|parameter|input|dimension|width|height|aspect|size|value|image|json|format)"
        r"|bad request|too long|maximum length|unsupported (aspect|size|format)",
        _C.INVALID,
        "invalid_request",
        REQUEST,
    ),
    Rule(
        r"try again|temporar|internal server error|server error|service unavailable|overload|maintenance"
        r"|server.{0,12}busy|timed? ?out|high (demand|load|traffic)",
        _C.UNAVAILABLE,
        "provider_unavailable",
        SOON,
    ),
)
"""Read from the top; the first row that matches decides."""

CODES: dict[int, Row] = {
    400: (_C.INVALID, "invalid_request", REQUEST),
    401: (_C.AUTH, "api_key_refused", ACCOUNT),
    402: (_C.QUOTA, "out_of_credits", ACCOUNT),
    403: (_C.MODEL_UNAVAILABLE, "model_not_in_plan", MODEL),
    404: (_C.UNEXPECTED, "no_such_endpoint", UNKNOWN),
    408: (_C.TIMEOUT, "no_answer", UNREAD),
    413: (_C.INVALID, "invalid_request", REQUEST),
    422: (_C.INVALID, "invalid_request", REQUEST),
    429: (_C.RATE_LIMITED, "rate_limited", BUSY),
    503: (_C.UNAVAILABLE, "provider_unavailable", SOON),
}
"""HTTP codes, for bodies that say nothing more. Any other 5xx: `unavailable` in JSON, else `timeout`."""

PHASES: dict[str, Row] = {
    "not_connected": (_C.NETWORK, "connect_failed", SOON),
    "no_connection_free": (_C.NETWORK, "no_connection_free", SOON),
    "no_answer": (_C.TIMEOUT, "no_answer", UNREAD),
    "connection_lost": (_C.TIMEOUT, "connection_lost", UNREAD),
    "unreadable": (_C.TIMEOUT, "unreadable_answer", UNREAD),
    "our_fault": (_C.UNEXPECTED, "call_broken", UNKNOWN),
}
"""Where an exchange broke off; only with `network` it is certain that nothing was sent."""

_PATTERNS = tuple((re.compile(rule.text, re.DOTALL), rule) for rule in RULES)


def by_text(text: str, hint: str) -> Row | None:
    """The first row whose text occurs in the message (or the hints, where the row reads them); both in lower case."""
    for pattern, rule in _PATTERNS:
        if pattern.search(text) or (rule.hints and hint and pattern.search(hint)):
            return rule.error_class, rule.code, rule.message
    return None
