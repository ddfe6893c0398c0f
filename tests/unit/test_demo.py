"""The demo's command line, and its follower against a WebSocket server of the test's own."""

import asyncio
import base64
import json
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from local import chapter, demo
from local.following import Follower, LineRefused
from schemas.frames import BEARER_SUBPROTOCOL_PREFIX, SUBPROTOCOL
from schemas.statuses import ImageStatus

CHAPTER = str(uuid.uuid4())
RECORD = str(uuid.uuid4())
TOKEN = "a.signed.token"


def image(version: int, **changed: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(ImageStatus.model_fields)
    facts = {
        "record_id": RECORD,
        "task_id": RECORD,
        "chapter_id": CHAPTER,
        "scene_number": 1,
        "image_type": "scene",
        "status": "in_progress",
        "stage": "generating",
        "progress": 40,
        "version": version,
        "attempt": 1,
        "retry_count": 0,
        "created_at": datetime.now(UTC).isoformat(),
    }
    return empty | facts | changed


@asynccontextmanager
async def push_server(talk: Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that reads the subscription of each connection and then leaves it to `talk`."""

    async def handle(connection: ServerConnection) -> None:
        await talk(connection, json.loads(await connection.recv()))

    async with serve(handle, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def snapshot(*images: dict[str, Any], cursor: str) -> str:
    return json.dumps({"type": "snapshot", "id": "chapter", "images": images, "cursor": cursor, "resumed": None})


def test_the_chapter_has_seven_scenes_that_the_service_accepts() -> None:
    words = chapter.load()
    assert [scene.scene_number for scene in words.scenes] == [1, 2, 3, 4, 5, 6, 7]
    assert words.aspect_ratio == "16:9"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scenes", "8"], "the chapter has scenes 1 to 7, not 8"),
        (["--scenes", "one"], "write for example 1,3-5"),
        (["--timeout", "-1"], "is no number of seconds above 0"),
        (["--style", "baroque"], "invalid"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        demo.main(arguments)
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_a_service_that_is_not_running_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--ready-file", str(tmp_path / "ready.json")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "make run" in said


def test_a_ready_file_of_something_else_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ready.json"
    file.write_text("[]")
    assert demo.main(["--ready-file", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


async def test_the_follower_outlives_a_lost_line_and_never_goes_back() -> None:
    subscriptions: list[dict[str, Any]] = []

    async def talk(connection: ServerConnection, subscription: dict[str, Any]) -> None:
        subscriptions.append(subscription)
        first = len(subscriptions) == 1
        await connection.send(json.dumps({"type": "welcome", "ping_interval_ms": 15000, "expires_at": ""}))
        await connection.send(snapshot(image(2 if first else 3), cursor="one" if first else "two"))
        if first:
            await connection.send(json.dumps({"type": "status", "image": image(3), "cursor": "three"}))
            await connection.close(1012)
        else:
            await connection.send(json.dumps({"type": "something new"}))
            await connection.send(json.dumps({"type": "status", "image": image(2), "cursor": "four"}))
            await connection.send(json.dumps({"type": "status", "image": image(4), "cursor": "five"}))
            await connection.wait_closed()

    seen: list[int] = []
    done = asyncio.Event()

    def on_image(status: ImageStatus) -> None:
        seen.append(status.version)
        if status.version == 4:
            done.set()

    async with push_server(talk) as url:
        follower = Follower(url, TOKEN, CHAPTER, on_image)
        line = asyncio.create_task(follower.run())
        async with asyncio.timeout(10):
            await done.wait()
        line.cancel()
        await asyncio.gather(line, return_exceptions=True)
    assert seen == [2, 3, 4]
    assert follower.reconnects == 1
    assert [subscription.get("cursor") for subscription in subscriptions] == [None, "three"]
    assert {subscription["chapter_id"] for subscription in subscriptions} == {CHAPTER}


async def test_the_token_travels_as_a_subprotocol_and_a_refusal_ends_the_line() -> None:
    offered: list[str] = []

    async def talk(connection: ServerConnection, _: dict[str, Any]) -> None:
        assert connection.request is not None
        assert TOKEN not in connection.request.path
        offered.extend(connection.request.headers["Sec-WebSocket-Protocol"].split(", "))
        await connection.close(4401, "token expired")

    async with push_server(talk) as url:
        with pytest.raises(LineRefused, match=r"4401.*token expired"):
            await Follower(url, TOKEN, CHAPTER, lambda _: None).run()
    assert offered[0] == SUBPROTOCOL
    bearer = offered[1].removeprefix(BEARER_SUBPROTOCOL_PREFIX)
    assert base64.urlsafe_b64decode(bearer + "=" * (-len(bearer) % 4)).decode() == TOKEN


async def test_the_follower_waits_for_a_service_that_is_not_up_yet() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        follower = Follower(f"http://127.0.0.1:{taken.getsockname()[1]}", TOKEN, CHAPTER, lambda _: None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await follower.run()
    assert follower.reconnects == 0
