"""What an answer or a broken call means: one row per text, code and phase."""

import time
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from consumer.taxonomy import CODES, PHASES, RULES
from schemas.errors import ErrorClass as C
from tests.unit.provider_answers import BASE, KEY, PICTURE, error, fetch_refused, raising, refused, says

SPAM = "you are sending same request multiple times, spam filter is enabled, please wait for 45 seconds and try again"
CONTENT_TYPE_TIP = "1. Make sure you are passing Content-Type: application/json in header."
ADVERT = "Get 20x faster image generation using enterprise plan. Click here : https://modelslab.com/enterprise"

TEXTS: list[tuple[Any, int, C, str]] = [
    (error("Invalid API key"), 200, C.AUTH, "api_key_refused"),
    (error("Invalid API key"), 401, C.AUTH, "api_key_refused"),
    (error("Invalid Api Key", tip=CONTENT_TYPE_TIP), 200, C.AUTH, "api_key_refused"),
    (error("API key required"), 401, C.AUTH, "api_key_refused"),
    (error({"key": ["The key field is required."]}), 200, C.AUTH, "api_key_refused"),
    (error("Your account has been suspended"), 200, C.AUTH, "account_suspended"),
    (error("Your IP is blocked"), 200, C.AUTH, "address_blocked"),
    (error("Insufficient credits. Please add more credits to continue."), 402, C.QUOTA, "out_of_credits"),
    (error("Insufficient credits. Please add more credits to continue."), 200, C.QUOTA, "out_of_credits"),
    (error("You are out of credits"), 200, C.QUOTA, "out_of_credits"),
    (
        error("Your monthly limit exceeded, upgrade subscription now on https://stablediffusionapi.com/pricing"),
        200,
        C.QUOTA,
        "out_of_credits",
    ),
    (error("This feature requires a premium subscription"), 403, C.MODEL_UNAVAILABLE, "model_not_in_plan"),
    (error("Feature not available"), 403, C.MODEL_UNAVAILABLE, "model_not_in_plan"),
    (error("Rate limit exceeded. Maximum 5 queued requests allowed."), 429, C.RATE_LIMITED, "rate_limited"),
    (error("Rate limit exceeded", tips=SPAM), 200, C.RATE_LIMITED, "rate_limited"),
    (
        error("Images cannot be generated at the moment, try use another model"),
        200,
        C.MODEL_UNAVAILABLE,
        "model_busy",
    ),
    (
        error("Video cannot be generated at the moment, try use another model"),
        200,
        C.MODEL_UNAVAILABLE,
        "model_busy",
    ),
    (error("Please try a different model"), 500, C.MODEL_UNAVAILABLE, "model_busy"),
    (error("Model id not found"), 200, C.MODEL_UNAVAILABLE, "model_unknown"),
    (error("Model not found: invalid_model_name"), 404, C.MODEL_UNAVAILABLE, "model_unknown"),
    (error("invalid model ID"), 400, C.MODEL_UNAVAILABLE, "model_unknown"),
    (error({"model_id": ["The selected model id is invalid."]}), 422, C.MODEL_UNAVAILABLE, "model_unknown"),
    (error("Your prompt violates our content policy"), 200, C.CONTENT, "content_refused"),
    (error("NSFW content detected"), 400, C.CONTENT, "content_refused"),
    (error("Failed", tip="The request was blocked by moderation"), 200, C.CONTENT, "content_refused"),
    (error({"prompt": ["The prompt field is required."]}), 200, C.INVALID, "invalid_prompt"),
    (error("prompt is required"), 400, C.INVALID, "invalid_prompt"),
    (error("prompt must be a string"), 400, C.INVALID, "invalid_prompt"),
    (error("width must be between 256 and 1024"), 200, C.INVALID, "invalid_request"),
    (error("height must be divisible by 8"), 200, C.INVALID, "invalid_request"),
    (error("samples must be between 1 and 4"), 400, C.INVALID, "invalid_request"),
    (error("guidance_scale must be between 1 and 20"), 400, C.INVALID, "invalid_request"),
    (error("Invalid API Request", tip=CONTENT_TYPE_TIP), 200, C.INVALID, "invalid_request"),
    (error(["Something odd about", "scheduler"], x=1), 422, C.INVALID, "invalid_request"),
    (error({"scheduler": ["Not one of ours."]}), 200, C.INVALID, "invalid_request"),
    (error("Processing failed: Invalid input dimensions"), 200, C.INVALID, "invalid_request"),
    (error("Unable to fetch image from provided URL"), 200, C.INVALID, "reference_unreachable"),
    (
        {"status": "failed", "id": "", "message": "Failed, Try Again", "output": ""},
        200,
        C.UNAVAILABLE,
        "provider_unavailable",
    ),
    (error("Internal server error. Please try again."), 500, C.UNAVAILABLE, "provider_unavailable"),
    (error("Service temporarily unavailable. Please try again later."), 503, C.UNAVAILABLE, "provider_unavailable"),
    (error("A word nobody has seen"), 500, C.UNAVAILABLE, "provider_unavailable"),
    (error("A word nobody has seen"), 502, C.UNAVAILABLE, "provider_unavailable"),
    ({"message": "Server Error"}, 500, C.UNAVAILABLE, "provider_unavailable"),
    ({"messege": "Invalid API key", "status": "error"}, 200, C.AUTH, "api_key_refused"),
    ({"error": "Rate limit exceeded"}, 200, C.RATE_LIMITED, "rate_limited"),
    (
        {"status": "failed", "id": "", "message": "Request not found", "tip": ADVERT},
        200,
        C.UNEXPECTED,
        "request_not_found",
    ),
    (error("A word nobody has seen", tip=ADVERT), 200, C.UNEXPECTED, "unknown_error"),
    (error(None), 418, C.UNEXPECTED, "unknown_error"),
    ({"status": "success", "id": 3, "output": []}, 200, C.UNEXPECTED, "empty_output"),
    (
        {"status": "success", "output": "", "future_links": [PICTURE], "proxy_links": [PICTURE]},
        200,
        C.UNEXPECTED,
        "empty_output",
    ),
    ({"status": "processing", "eta": 3}, 200, C.UNEXPECTED, "no_request_id"),
    ({"status": "dreaming"}, 200, C.UNEXPECTED, "unknown_status"),
    ({}, 200, C.UNEXPECTED, "unknown_status"),
    ([1, 2], 200, C.UNEXPECTED, "unknown_status"),
    (b"null", 200, C.UNEXPECTED, "unknown_status"),
    # two rows fit: the first decides
    (error("Invalid API key. Please try again"), 401, C.AUTH, "api_key_refused"),
    (error("Rate limit exceeded, please try again or try another model"), 200, C.RATE_LIMITED, "rate_limited"),
    (error("Model not found. Please try again later"), 200, C.MODEL_UNAVAILABLE, "model_unknown"),
    (error("Your prompt was blocked. Please try again"), 200, C.CONTENT, "content_refused"),
    # the body before the code
    (error("Rate limit exceeded"), 400, C.RATE_LIMITED, "rate_limited"),
    (error("Insufficient credits"), 500, C.QUOTA, "out_of_credits"),
    (error("prompt is required"), 503, C.INVALID, "invalid_prompt"),
    # bodies that say nothing: the code decides
    ({}, 400, C.INVALID, "invalid_request"),
    (b"<html>", 400, C.INVALID, "invalid_request"),
    (b"", 401, C.AUTH, "api_key_refused"),
    (b"", 402, C.QUOTA, "out_of_credits"),
    (b"", 403, C.MODEL_UNAVAILABLE, "model_not_in_plan"),
    (b"<html>", 404, C.UNEXPECTED, "no_such_endpoint"),
    (b"", 408, C.TIMEOUT, "no_answer"),
    (b"", 413, C.INVALID, "invalid_request"),
    ({}, 422, C.INVALID, "invalid_request"),
    (b"", 429, C.RATE_LIMITED, "rate_limited"),
    (b"<html>503</html>", 503, C.UNAVAILABLE, "provider_unavailable"),
    (b"moved", 302, C.UNEXPECTED, "redirected"),
    ({}, 308, C.UNEXPECTED, "redirected"),
    # sent, and no answer that can be read: it may have been charged
    (b"<html>Bad gateway</html>", 502, C.TIMEOUT, "unreadable_answer"),
    (b"<html>error</html>", 500, C.TIMEOUT, "unreadable_answer"),
    (b"", 504, C.TIMEOUT, "unreadable_answer"),
    (b"error code: 524", 524, C.TIMEOUT, "unreadable_answer"),
    (
        {"title": "Error 522: Connection timed out", "status": 522, "cloudflare_error": True},
        522,
        C.TIMEOUT,
        "unreadable_answer",
    ),
    (b'{"status": "succ', 200, C.TIMEOUT, "unreadable_answer"),
    (b"\xff\xfe", 200, C.TIMEOUT, "unreadable_answer"),
]


@pytest.mark.parametrize(("body", "code", "error_class", "name"), TEXTS)
async def test_every_known_text_and_code_has_its_class(body: Any, code: int, error_class: C, name: str) -> None:
    failure = await refused(says(body, code))
    assert (failure.error_class, failure.code) == (error_class, name)
    assert failure.sent
    assert failure.message.endswith(".")
    assert failure.detail.startswith(f"HTTP {code}: ")
    assert len(failure.detail.encode()) <= 1024


def test_every_row_of_the_taxonomy_has_a_row_here() -> None:
    tested = {name for _, _, _, name in TEXTS}
    assert {rule.code for rule in RULES} <= tested
    assert {name for _, name, _ in CODES.values()} <= tested


REQUEST = httpx.Request("POST", BASE)
BROKEN: list[tuple[Exception, C, str, bool]] = [
    (httpx.ConnectError("refused"), C.NETWORK, "connect_failed", False),
    (httpx.ConnectTimeout("slow"), C.NETWORK, "connect_failed", False),
    (httpx.ProxyError("407"), C.NETWORK, "connect_failed", False),
    (httpx.PoolTimeout("none free"), C.NETWORK, "no_connection_free", False),
    (httpx.ReadTimeout(""), C.TIMEOUT, "no_answer", True),
    (httpx.WriteTimeout(""), C.TIMEOUT, "no_answer", True),
    (httpx.ReadError("reset"), C.TIMEOUT, "connection_lost", True),
    (httpx.WriteError("reset"), C.TIMEOUT, "connection_lost", True),
    (httpx.CloseError("reset"), C.TIMEOUT, "connection_lost", True),
    (httpx.RemoteProtocolError("disconnected"), C.TIMEOUT, "connection_lost", True),
    (ConnectionResetError("reset"), C.TIMEOUT, "connection_lost", True),
    (httpx.DecodingError("gzip"), C.TIMEOUT, "unreadable_answer", True),
    (httpx.LocalProtocolError("ours"), C.UNEXPECTED, "call_broken", True),
    (RuntimeError(f"a bug that shows {KEY}"), C.UNEXPECTED, "call_broken", True),
]


@pytest.mark.parametrize(("broken", "error_class", "name", "sent"), BROKEN)
async def test_every_phase_of_an_exchange_has_its_class(
    broken: Exception, error_class: C, name: str, sent: bool
) -> None:
    with capture_logs() as logs:
        failure = await refused(raising(broken))
        assert (failure.error_class, failure.code, failure.sent) == (error_class, name, sent)
        assert (await fetch_refused(raising(broken))).terminal is False
    assert KEY not in repr(logs)


def test_every_phase_has_a_row_here() -> None:
    assert {name for _, name, _ in PHASES.values()} <= {name for _, _, name, _ in BROKEN}


RETRY_AFTER: list[tuple[dict[str, Any], dict[str, str], float | None]] = [
    ({"retry_after": 30}, {"Retry-After": "7"}, 30.0),
    ({"retry_after": "12.5"}, {}, 12.5),
    ({}, {"Retry-After": "7"}, 7.0),
    ({"retry_after": "soon"}, {"Retry-After": "7"}, 7.0),
    ({"tips": SPAM}, {}, 45.0),
    ({}, {"Retry-After": "never"}, None),
    ({}, {}, None),
    ({"retry_after": 10**9}, {}, 3600.0),
    ({"retry_after": -1}, {}, None),
]


@pytest.mark.parametrize(("more", "headers", "expected"), RETRY_AFTER)
async def test_the_wait_the_provider_asks_for(
    more: dict[str, Any], headers: dict[str, str], expected: float | None
) -> None:
    failure = await refused(says(error("Rate limit exceeded", **more), 429, headers))
    assert failure.retry_after == expected


async def test_the_wait_as_a_date_and_as_an_epoch() -> None:
    now = time.time()
    dated = await refused(says(b"", 429, {"Retry-After": formatdate(now + 60, usegmt=True)}))
    assert dated.retry_after == pytest.approx(60, abs=5)
    epoch = await refused(says(error("Rate limit exceeded"), 429, {"X-RateLimit-Reset": str(int(now) + 90)}))
    assert epoch.retry_after == pytest.approx(90, abs=5)


FETCHED: list[tuple[Any, int, bool]] = [
    ({"status": "failed", "id": 77, "message": "Processing failed: Invalid input dimensions"}, 200, True),
    ({"status": "error", "message": "Images cannot be generated at the moment, try use another model"}, 200, True),
    ({"status": "error", "message": "Model not found: x"}, 404, True),
    ({"status": "failed", "id": "", "message": "Request not found", "output": ""}, 200, True),
    ({"status": "failed", "id": 77}, 200, True),
    ({"status": "error", "id": 77, "message": "A word nobody has seen"}, 200, True),
    ({"status": "success", "id": 77, "output": []}, 200, True),
    ({"status": "error", "message": "Internal server error. Please try again."}, 500, False),
    ({"status": "error", "message": "Rate limit exceeded"}, 200, False),
    ({"status": "error", "message": "Rate limit exceeded"}, 429, False),
    # of our account, not of the job: that is paid for, and still there when the key is right again
    (error("Invalid API key"), 401, False),
    (error("Invalid Api Key"), 200, False),
    (error("You are out of credits"), 200, False),
    ({"status": "dreaming", "id": 77}, 200, False),
    (b"<html>", 502, False),
    (b"<html>", 200, False),
    (b"<html>", 404, False),
]


@pytest.mark.parametrize(("body", "code", "terminal"), FETCHED)
async def test_a_fetch_says_whether_the_job_itself_is_over(body: Any, code: int, terminal: bool) -> None:
    assert (await fetch_refused(says(body, code))).terminal is terminal
