"""The provider's client against scripted answers: one row per text, code and phase."""

import asyncio
import json
import time
import traceback
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from structlog.testing import capture_logs

from consumer.answers import Processing, ProviderFailure, Succeeded, flagged
from consumer.modelslab import ModelsLab
from consumer.taxonomy import CODES, PHASES, RULES
from schemas.errors import ErrorClass as C

KEY = "sk-live-0123456789abcdef"
BASE = "https://modelslab.test"
PATH = "/api/v7/images/text-to-image"
PICTURE = "https://cdn.modelslab.test/generations/0.png"

Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler, base_url: str = BASE, submit_timeout: float = 30.0) -> ModelsLab:
    return ModelsLab(
        base_url=base_url,
        api_key=SecretStr(KEY),
        submit_timeout=submit_timeout,
        fetch_timeout=5.0,
        transport=httpx.MockTransport(handler),
    )


def says(body: Any, code: int = 200, headers: dict[str, str] | None = None) -> Handler:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _: httpx.Response(code, content=content, headers=headers)


async def submit(handler: Handler, base_url: str = BASE) -> Succeeded | Processing:
    provider = client(handler, base_url)
    return await provider.submit({"model_id": "m", "prompt": "a tea party"}, path=PATH, track_id="t-1")


async def refused(handler: Handler) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await submit(handler)
    return caught.value


async def fetch_refused(handler: Handler) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await client(handler).fetch("77", None)
    return caught.value


async def test_a_submit_is_one_post_with_the_key_in_its_body_alone() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"status": "success", "id": 123, "output": [PICTURE], "proxy_links": [PICTURE]})

    provider = client(handler)
    answer = await provider.submit(
        {"model_id": "seedream-4", "prompt": "p", "aspect_ratio": "16:9"},
        path=PATH,
        track_id="t-1",
        webhook="https://h/x",
    )
    await provider.close()

    assert answer == Succeeded("123", [PICTURE], [PICTURE], nsfw=False)
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", BASE + PATH)
    assert json.loads(request.content) == {
        "model_id": "seedream-4",
        "prompt": "p",
        "aspect_ratio": "16:9",
        "track_id": "t-1",
        "webhook": "https://h/x",
        "key": KEY,
    }
    assert request.headers["content-type"] == "application/json"
    assert KEY not in str(request.url)
    assert KEY not in str(request.headers.raw)


ANSWERS: list[tuple[Any, Succeeded | Processing]] = [
    ({"status": "success", "id": "abc", "output": [PICTURE]}, Succeeded("abc", [PICTURE], [], False)),
    ({"status": "success", "output": PICTURE, "proxy_links": ""}, Succeeded(None, [PICTURE], [], False)),
    ({"status": "success", "id": 1.0, "output": {"0": PICTURE}}, Succeeded("1", [PICTURE], [], False)),
    ({"status": "success", "id": True, "output": [{"url": PICTURE}]}, Succeeded(None, [PICTURE], [], False)),
    (
        {"status": "Success", "id": 5, "output": [PICTURE], "proxy_links": {"a": PICTURE + "?2"}},
        Succeeded("5", [PICTURE], [PICTURE + "?2"], False),
    ),
    (
        {"status": "success", "id": 5, "output": [PICTURE], "nsfw_content_detected": True},
        Succeeded("5", [PICTURE], [], True),
    ),
    (
        {"status": "processing", "id": 9, "eta": 20.9379869184, "fetch_result": BASE + "/api/v7/images/fetch/9"},
        Processing("9", 20.9379869184, BASE + "/api/v7/images/fetch/9"),
    ),
    ({"status": "processing", "id": "9", "eta": "6", "output": ""}, Processing("9", 6.0, None)),
    ({"status": "processing", "id": 9, "eta": -4, "future_links": [PICTURE]}, Processing("9", None, None)),
    ({"status": "processing", "request_id": "r-9"}, Processing("r-9", None, None)),
    (
        {"status": "processing", "fetch_result": BASE + "/api/v7/images/fetch/31"},
        Processing("31", None, BASE + "/api/v7/images/fetch/31"),
    ),
    (b'{"status": "processing", "id": 9, "eta": NaN}', Processing("9", None, None)),
    # our own identifier, where it is repeated
    ({"status": "processing", "id": 9, "track_id": "t-1"}, Processing("9", None, None, "t-1")),
    ({"status": "success", "id": 9, "output": PICTURE, "track_id": "t-1"}, Succeeded("9", [PICTURE], [], False, "t-1")),
    ({"status": "processing", "id": 9, "track_id": 17}, Processing("9", None, None, None)),
    ({"status": "processing", "id": 9, "track_id": "two words"}, Processing("9", None, None, None)),
    # an id is worth a fetch before anything is paid again
    ({"status": "queued", "id": 9}, Processing("9", None, None)),
    ({"id": 9}, Processing("9", None, None)),
]


@pytest.mark.parametrize(("body", "expected"), ANSWERS)
async def test_answers_are_read_in_all_their_shapes(body: Any, expected: Succeeded | Processing) -> None:
    assert await submit(says(body)) == expected


async def test_the_webhooks_token_is_in_nothing_that_is_kept() -> None:
    address = "https://api.test/hooks/modelslab/0123456789abcdefghijklmnopqrst_-"
    failure = await refused(says(error("webhook must be a valid URL", meta={"webhook": address}), 400))
    assert "webhook must be a valid URL" in failure.detail
    assert "/hooks/modelslab/[redacted]" in failure.detail
    assert "0123456789" not in failure.detail


async def test_an_id_on_a_server_error_is_followed_by_fetch_not_by_another_submit() -> None:
    body = {"status": "error", "id": 4, "message": "Internal server error. Please try again."}
    assert await submit(says(body, 500)) == Processing("4", None, None)
    assert (await fetch_refused(says(body, 500))).terminal is False


def error(message: Any, **more: Any) -> dict[str, Any]:
    return {"status": "error", "message": message, **more}


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


def raising(error: Exception) -> Handler:
    def handler(_: httpx.Request) -> httpx.Response:
        raise error

    return handler


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


async def test_an_answer_that_trickles_ends_with_the_submit_timeout() -> None:
    class Stalled(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return await asyncio.Future()

    provider = ModelsLab(base_url=BASE, api_key=KEY, submit_timeout=0.01, fetch_timeout=1, transport=Stalled())
    with pytest.raises(ProviderFailure) as caught:
        await provider.submit({}, path=PATH, track_id="t")
    assert (caught.value.error_class, caught.value.sent) == (C.TIMEOUT, True)


async def test_an_endless_answer_is_cut_off() -> None:
    failure = await refused(says(b" " * (1024 * 1024 + 1)))
    assert failure.code == "unreadable_answer"


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


OWN = "https://modelslab.com"
LOOPBACK = "http://127.0.0.1:8703"
PLAIN = "http://simulator:8703"
ADDRESSES: list[tuple[str, str | None, str]] = [
    # the base, what the answer says, where the key goes (/77: the address that we build ourselves)
    (OWN, None, "/77"),
    (OWN, "https://modelslab.com/api/v7/images/fetch/77", "https://modelslab.com/api/v7/images/fetch/77"),
    (OWN, "https://modelslab.com/elsewhere/77", "https://modelslab.com/elsewhere/77"),
    (OWN, "https://stablediffusionapi.com/api/v3/fetch/77", "https://stablediffusionapi.com/api/v3/fetch/77"),
    (OWN, "http://modelslab.com/api/v7/images/fetch/77", "/77"),
    (OWN, "https://modelslab.com:8443/fetch/77", "/77"),
    (OWN, "https://evil.example/api/v7/images/fetch/77", "/77"),
    (OWN, "https://modelslab.com@evil.example/fetch/77", "/77"),
    (OWN, "https://user@modelslab.com/fetch/77", "/77"),
    (OWN, "https://modelslab.com.evil.example/fetch/77", "/77"),
    (OWN, "https://xmodelslab.com/fetch/77", "/77"),
    (OWN, "https://modelslab.com\\@evil.example/fetch/77", "/77"),
    (OWN, "//evil.example/fetch/77", "/77"),
    (OWN, "https://[oops/fetch/77", "/77"),
    (OWN, "file:///etc/passwd", "/77"),
    (OWN, "http://127.0.0.1/fetch/77", "/77"),
    # a gateway of our own: what lies behind it is not asked past it
    (BASE, BASE + "/elsewhere/77", BASE + "/elsewhere/77"),
    (BASE, "http://modelslab.test/elsewhere/77", "/77"),
    (BASE, "https://modelslab.test:8443/fetch/77", "/77"),
    (BASE, "https://modelslab.com/api/v7/images/fetch/77", "/77"),
    # only a loopback host need not be https
    (LOOPBACK, LOOPBACK + "/elsewhere/77", LOOPBACK + "/elsewhere/77"),
    (LOOPBACK, "http://127.0.0.1:9999/fetch/77", "/77"),
    (LOOPBACK, "https://modelslab.com/api/v7/images/fetch/77", "/77"),
    ("http://localhost:8703", "http://localhost:8703/else/77", "http://localhost:8703/else/77"),
    ("http://[::1]:8703", "http://[::1]:8703/else/77", "http://[::1]:8703/else/77"),
    (PLAIN, PLAIN + "/elsewhere/77", "/77"),
]


@pytest.mark.parametrize(("base_url", "fetch_url", "asked"), ADDRESSES)
async def test_the_key_goes_to_no_foreign_host(base_url: str, fetch_url: str | None, asked: str) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"status": "processing", "id": 99, "eta": 2, "track_id": "t-1"})

    assert await client(handler, base_url).fetch("77", fetch_url) == Processing("77", 2.0, None, "t-1")
    expected = base_url + "/api/v7/images/fetch/77" if asked == "/77" else asked
    assert [str(request.url) for request in seen] == [expected]
    assert json.loads(seen[0].content) == {"key": KEY}


async def test_an_odd_id_stays_one_step_of_the_path() -> None:
    seen: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(200, json={"status": "processing", "id": 1})

    await client(handler).fetch("../../x?y=1", None)
    assert seen == [b"/api/v7/images/fetch/..%2F..%2Fx%3Fy%3D1"]


async def test_redirects_are_not_followed() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(307, headers={"location": "https://evil.example/"})

    assert (await refused(handler)).code == "redirected"
    assert seen == [BASE + PATH]


@pytest.mark.parametrize("tail", ["/api/v7", "/api/v6/", "/api/v7/"])
async def test_a_base_url_with_the_api_s_version_is_cut_with_a_warning(tail: str) -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={"status": "success", "output": [PICTURE]})

    with capture_logs() as logs:
        await submit(handler, "https://modelslab.com" + tail)
    assert seen == ["https://modelslab.com" + PATH]
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_a_key_on_an_open_line_is_warned_of_and_never_sent_so_to_the_provider() -> None:
    with capture_logs() as logs:
        client(says({}), "http://simulator:8703")
        client(says({}), LOOPBACK)
        client(says({}), "http://simulator.localhost:8703")
    assert [(entry["event"], entry["host"]) for entry in logs] == [("base_url_unencrypted", "simulator")]
    with pytest.raises(ValueError, match=r"write https://modelslab\.com"):
        client(says({}), "http://modelslab.com")


async def test_a_base_url_keeps_its_port_and_prefix() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={"status": "processing", "id": 1})

    provider = client(handler, "http://127.0.0.1:8703/proxy/")
    await provider.submit({}, path=PATH, track_id="t")
    await provider.fetch("1", None)
    assert seen == [f"http://127.0.0.1:8703/proxy{PATH}", "http://127.0.0.1:8703/proxy/api/v7/images/fetch/1"]


@pytest.mark.parametrize("base_url", ["", "modelslab.com", "ftp://modelslab.com", "https://", "https://u:p@h"])
def test_a_base_url_that_is_none_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="MODELSLAB_BASE_URL"):
        client(says({}), base_url)


def everything(failure: ProviderFailure) -> str:
    """All that a logger could get hold of: texts, attributes, chained errors, and the frames' local variables."""
    said = [repr(failure), str(failure), repr(vars(failure)), "".join(traceback.format_exception(failure))]
    at: BaseException | None = failure
    while at is not None:
        for frame, _ in traceback.walk_tb(at.__traceback__):
            if "consumer" in frame.f_code.co_filename:
                said.append(repr(frame.f_locals))
        at = at.__cause__ or at.__context__
    return "\n".join(said)


@pytest.mark.parametrize(
    "handler",
    [
        says(error(f"Invalid API key: {KEY}"), 401),
        says(("x" * 3_990 + KEY + f'{{"key": "{KEY}"}}').encode(), 502),
        says({"status": "success", "output": [], "meta": {"key": KEY}}),
        raising(httpx.ReadError(f"while sending {KEY}", request=httpx.Request("POST", BASE, json={"key": KEY}))),
        raising(RuntimeError(KEY)),
    ],
)
async def test_the_key_appears_nowhere(handler: Handler) -> None:
    provider = client(handler)
    with capture_logs() as logs:
        for call in (provider.submit({"prompt": "p"}, path=PATH, track_id="t"), provider.fetch("1", None)):
            with pytest.raises(ProviderFailure) as caught:
                await call
            assert KEY[:12] not in everything(caught.value)
    assert KEY not in repr(logs)
    assert KEY not in repr(provider) + repr(vars(provider))


async def test_details_hold_nothing_that_postgres_cannot() -> None:
    failure = await refused(says(b'{"status": "error", "message": "a\\u0000b \x01 c"}'))
    assert failure.detail.isprintable()
    odd = await submit(says(b'{"status": "processing", "id": "a\\u0000b", "request_id": "r1"}'))
    assert isinstance(odd, Processing)
    assert odd.provider_request_id == "r1"


def test_a_flagged_picture_fails_as_content() -> None:
    failure = flagged("8")
    assert (failure.error_class, failure.code, failure.provider_request_id) == (C.CONTENT, "nsfw_flagged", "8")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
NAMES = ["status", "id", "request_id", "output", "proxy_links", "eta", "fetch_result"]
NAMES += ["message", "messege", "error", "tip", "tips", "retry_after"]
STATUSES = st.sampled_from(["success", "processing", "error", "failed", "", "odd"])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=8) | JSON | st.binary(max_size=60),
    status=STATUSES,
    code=st.sampled_from([200, 204, 302, 400, 401, 403, 404, 418, 422, 429, 500, 502, 503, 504, 524]),
    header=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
)
def test_no_answer_breaks_the_client(body: Any, status: str, code: int, header: str) -> None:
    if isinstance(body, dict) and "status" in body:
        body["status"] = status
    handler = says(body, code, {"Retry-After": header})

    async def both() -> None:
        provider = client(handler)
        for call in (provider.submit({}, path=PATH, track_id="t"), provider.fetch("1", None)):
            (answer,) = await asyncio.gather(call, return_exceptions=True)
            assert isinstance(answer, Succeeded | Processing | ProviderFailure)
            if isinstance(answer, ProviderFailure):
                assert answer.code != "call_broken"
                answer.detail.encode()

    asyncio.run(both())
