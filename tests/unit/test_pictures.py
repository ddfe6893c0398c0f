"""Downloads under limits, and pictures recognised by their bytes."""

import asyncio
import base64
import gzip
import hashlib
from collections.abc import Callable

import httpx
import pytest

from consumer.pictures import DownloadFailed, NotAPicture, Picture, download
from tests.drawn import KINDS, drawn

URL = "https://cdn.modelslab.test/generations/0.png?X-Signature=secret"
Handler = Callable[[httpx.Request], httpx.Response]


PNG = drawn("PNG")


async def get(handler: Handler, *urls: str, limit_bytes: int = 1_000_000, time_limit: float = 5.0) -> Picture:
    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        return await download(client, urls or (URL,), limit_bytes=limit_bytes, time_limit=time_limit)


def gives(content: bytes, code: int = 200, **headers: str) -> Handler:
    return lambda _: httpx.Response(code, content=content, headers=headers)


@pytest.mark.parametrize(("kind", "options", "content_type", "extension"), KINDS)
@pytest.mark.parametrize("size", [(160, 90), (90, 160), (1024, 576)])
async def test_the_first_bytes_decide_not_the_header(
    kind: str, options: dict[str, object], content_type: str, extension: str, size: tuple[int, int]
) -> None:
    data = drawn(kind, size, **options)
    picture = await get(gives(data, **{"content-type": "text/plain"}))
    source = "https://cdn.modelslab.test/generations/0.png"
    assert picture == Picture(data, content_type, extension, hashlib.sha256(data).hexdigest(), *size, source)


async def test_a_large_picture_is_hashed_too() -> None:
    data = PNG + b"\x00" * 700_000
    assert (await get(gives(data))).sha256 == hashlib.sha256(data).hexdigest()


LARGE = PNG + b"\x00" * 700_000
PACKED = base64.b64encode(PNG)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (base64.encodebytes(PNG), PNG),
        (b"data:image/png;base64," + base64.encodebytes(PNG), PNG),
        (b'\n"' + PACKED + b'"\n', PNG),
        (PACKED.rstrip(b"="), PNG),
        (base64.b64encode(LARGE), LARGE),
    ],
)
async def test_base64_text_is_unpacked(text: bytes, data: bytes) -> None:
    assert (await get(gives(text, **{"content-type": "text/plain"}))).data == data


async def test_the_limit_is_the_pictures_not_its_texts() -> None:
    assert (await get(gives(PACKED), limit_bytes=len(PNG))).data == PNG
    for limit in (len(PNG) - 1, len(PNG) // 2):
        with pytest.raises(DownloadFailed, match="larger than") as caught:
            await get(gives(PACKED), limit_bytes=limit)
        assert not caught.value.retryable


async def test_packed_bytes_are_not_unpacked() -> None:
    """They may hide gigabytes; and they are not taken for a picture that would be paid for again."""
    with pytest.raises(DownloadFailed, match="packed") as caught:
        await get(gives(gzip.compress(PNG), **{"content-encoding": "gzip"}))
    assert caught.value.retryable


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>not ready</html>", b"GIF89a" + b"\x00" * 60, b"RIFF....WAVEfmt ", b"not base64 either!", b"aGVsbG8="],
)
async def test_anything_else_is_no_picture(content: bytes) -> None:
    with pytest.raises(NotAPicture):
        await get(gives(content))


async def test_a_picture_without_area_is_no_picture() -> None:
    with pytest.raises(NotAPicture):
        await get(gives(PNG[:16] + b"\x00" * 8 + PNG[24:]))


def raising(error: Exception) -> Handler:
    def handler(_: httpx.Request) -> httpx.Response:
        raise error

    return handler


FAILURES: list[tuple[Handler, bool]] = [
    (gives(b"", 404), True),
    (gives(b"", 403), True),
    (gives(PNG, **{"content-length": "1" * 5_000}), True),
    (gives(b"", 503), True),
    (gives(PNG, 206), True),
    (raising(httpx.ConnectError(f"no route to {URL}")), True),
    (raising(httpx.ReadTimeout("slow")), True),
    (raising(httpx.RemoteProtocolError("cut off")), True),
    (gives(PNG + b"\x00" * 2_000_000), False),
    (gives(b"", 302, location="ftp://cdn.modelslab.test/0.png"), False),
    (gives(b"", 302, location="https://user:secret@cdn.modelslab.test/0.png"), False),
    (gives(b"", 302, location="https://[1"), True),
    (gives(b"", 302, location=URL), True),
    (gives(b"", 302), True),
]


@pytest.mark.parametrize(("handler", "retryable"), FAILURES)
async def test_failures_say_whether_to_come_back_and_show_no_address(handler: Handler, retryable: bool) -> None:
    with pytest.raises(DownloadFailed) as caught:
        await get(handler)
    assert caught.value.retryable is retryable
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "//cdn/0.png", "https://", "gopher://x/"])
async def test_only_http_is_fetched(url: str) -> None:
    with pytest.raises(DownloadFailed):
        await get(gives(PNG), url)


async def test_no_address_at_all() -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(gives(PNG))) as client:
        with pytest.raises(DownloadFailed):
            await download(client, [])


async def test_a_body_without_a_length_is_stopped_at_the_limit() -> None:
    taken = 0

    async def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield b"\x00" * 10_000

    with pytest.raises(DownloadFailed, match="larger than 50000 bytes"):
        await get(lambda _: httpx.Response(200, content=endless()), limit_bytes=50_000)  # type: ignore[arg-type]
    # these bytes might have been base64
    assert taken == 8


async def test_what_may_only_be_too_early_is_said() -> None:
    failing: list[tuple[Handler, bool]] = [
        (gives(b"", 404), True),
        (gives(b"", 403), False),
        (gives(b"", 500), False),
        (gives(PNG[: len(PNG) // 2]), True),
        (gives(b"<html>"), False),
    ]
    for handler, not_yet in failing:
        with pytest.raises((DownloadFailed, NotAPicture)) as caught:
            await get(handler)
        assert caught.value.not_yet is not_yet


async def test_a_picture_of_exactly_the_limit_is_taken() -> None:
    assert (await get(gives(PNG), limit_bytes=len(PNG))).data == PNG


async def test_the_time_limit_is_over_all() -> None:
    async def stalled() -> object:
        yield PNG[:10]
        await asyncio.Future()

    with pytest.raises(DownloadFailed, match=r"within 0\.01 s"):
        await get(lambda _: httpx.Response(200, content=stalled()), time_limit=0.01)  # type: ignore[arg-type]


async def test_an_address_that_hangs_does_not_take_the_others_time() -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.host == "a":
            await asyncio.Future()
        return httpx.Response(200, content=PNG)

    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        assert (await download(client, ["https://a/", "https://b/"], time_limit=0.5)).data == PNG


async def test_the_next_address_is_tried() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return {"a": httpx.Response(404), "b": httpx.Response(200, content=b"text")}.get(
            request.url.host, httpx.Response(200, content=PNG)
        )

    assert (await get(handler, "https://a/", "https://b/", "https://c/")).data == PNG
    with pytest.raises(DownloadFailed):
        await get(handler, "https://a/", "https://b/")
    with pytest.raises(NotAPicture):
        await get(handler, "https://b/")


async def test_redirects_are_followed_hop_by_hop() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        if request.url.path == "/1":
            return httpx.Response(302, headers={"location": "/2"})
        if request.url.path == "/2":
            return httpx.Response(307, headers={"location": "https://other.test/3"})
        return httpx.Response(200, content=PNG)

    assert (await get(handler, "https://cdn.test/1")).width == 160
    assert seen == ["https://cdn.test/1", "https://cdn.test/2", "https://other.test/3"]
