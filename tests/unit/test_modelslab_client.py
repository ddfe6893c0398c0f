"""The provider's client against scripted answers: what it sends, where the key goes, how answers are read."""

import asyncio
import html
import json
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest
from structlog.testing import capture_logs

from consumer.answers import Processing, ProviderFailure, Succeeded, flagged
from consumer.modelslab import ModelsLab
from schemas.errors import ErrorClass as C
from tests.unit.provider_answers import (
    BASE,
    KEY,
    PATH,
    PICTURE,
    Handler,
    client,
    error,
    everything,
    fetch_refused,
    raising,
    refused,
    says,
    shown_key,
    submit,
)


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


def _escaped(key: str) -> str:
    """The key as a careful JSON writer may put it."""
    return "".join(f"\\u{ord(letter):04x}" for letter in key)


@pytest.mark.parametrize(
    "handler",
    [
        says(error(f"Invalid API key: {KEY}"), 401),
        says(("x" * 3_990 + KEY + f'{{"key": "{KEY}"}}').encode(), 502),
        says({"status": "success", "output": [], "meta": {"key": KEY}}),
        # what a JSON reader would make the key of again
        says(f'{{"status": "error", "message": "key {_escaped(KEY)}"}}'.encode()),
        says(f"<html>key {_escaped(KEY)}".encode(), 502),
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
            assert shown_key(everything(caught.value)) is None
    assert shown_key(repr(logs)) is None
    assert KEY not in repr(provider) + repr(vars(provider))


async def test_a_key_of_odd_letters_is_found_in_each_form_it_may_be_repeated_in() -> None:
    odd = 'k/+"&<\\é=0123456789'
    for body in (
        json.dumps({"status": "error", "message": odd}),
        json.dumps({"status": "error", "message": odd}, ensure_ascii=False),
        json.dumps({"status": "error", "message": odd}).replace("/", "\\/"),
        f"<html>{odd}",
        f"<html>{html.escape(odd)}",
        f"<html>{quote(odd)} {quote(odd, safe='')} {quote_plus(odd)}",
        json.dumps({"status": "error", "message": json.dumps({"key": odd})}),
    ):
        provider = client(says(body.encode()), key=odd)
        with pytest.raises(ProviderFailure) as caught:
            await provider.submit({}, path=PATH, track_id="t")
        assert "0123456789" not in everything(caught.value)
        assert "[key]" in caught.value.detail or "[redacted]" in caught.value.detail


async def test_a_key_that_an_answer_repeats_is_kept_in_no_field() -> None:
    answer = await submit(says({"status": "success", "id": KEY, "output": [f"{PICTURE}?key={KEY}"], "track_id": KEY}))
    assert answer == Succeeded("[key]", [f"{PICTURE}?key=[key]"], [], False, "[key]")


async def test_a_key_as_short_as_a_word_blots_out_none() -> None:
    provider = client(says({"status": "success", "id": 7, "output": [PICTURE]}), key="s")
    assert await provider.submit({}, path=PATH, track_id="t") == Succeeded("7", [PICTURE], [], False)


async def test_a_bug_of_ours_leaves_where_it_was_and_no_more() -> None:
    with capture_logs() as logs:
        await refused(raising(RuntimeError(KEY)))
    (entry,) = logs
    assert (entry["event"], entry["kind"]) == ("provider_call_broken", "RuntimeError")
    assert "provider_answers.py" in entry["where"]
    assert shown_key(repr(logs)) is None


async def test_details_hold_nothing_that_postgres_cannot() -> None:
    failure = await refused(says(b'{"status": "error", "message": "a\\u0000b \x01 c"}'))
    assert failure.detail.isprintable()
    odd = await submit(says(b'{"status": "processing", "id": "a\\u0000b", "request_id": "r1"}'))
    assert isinstance(odd, Processing)
    assert odd.provider_request_id == "r1"


def test_a_flagged_picture_fails_as_content() -> None:
    failure = flagged("8")
    assert (failure.error_class, failure.code, failure.provider_request_id) == (C.CONTENT, "nsfw_flagged", "8")
