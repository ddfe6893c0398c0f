"""`python -m local.demo`: asks the running service for the pictures of a chapter and watches them come.

Requests go over HTTP, progress comes over the WebSocket, and at the end a poll of each scene is held against what was
pushed. Exit status: 0 all pictures are there and both answers agree, 1 they do not, 2 the service cannot be used so,
130 Ctrl-C.
"""

import argparse
import asyncio
import sys
import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import httpx
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live

from local import chapter, readyfile
from local.board import Board, Row
from local.following import Follower, LineRefused
from local.python import CHECKOUT
from schemas.problems import Problem
from schemas.requests import ImageGenerationQueuedResponse, SceneImageRequest
from schemas.statuses import ImageStatus
from schemas.words import Status, Style

_READY_FILE = CHECKOUT / ".local" / "ready.json"
_SUBSCRIBE_TIMEOUT = 6.0  # seconds
_COMPUTED_WHEN_READ = {"queue_position", "eta_seconds", "cost_usd"}


class Unusable(Exception):
    """The service cannot be used; the message says what to do."""


def _numbers(text: str) -> list[int]:
    """`1,3-5` -> [1, 3, 4, 5]."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.strip().isdigit() or (dash and not last.strip().isdigit()):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of scenes; write for example 1,3-5")
        numbers.update(range(int(first), int(last if dash else first) + 1))
    return sorted(numbers)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    words = chapter.load()
    parser = argparse.ArgumentParser(
        prog="python -m local.demo",
        description=f"Request the {len(words.scenes)} scenes of “{words.title}” ({words.book}) from the service that "
        "`make run` started, watch their progress live, and print where the pictures are.",
        epilog="Exit status: 0 when every picture was made and polls agree with what was pushed, 1 when not, "
        "2 when the service cannot be used, 130 after Ctrl-C.",
    )
    parser.add_argument(
        "--ready-file",
        type=Path,
        default=_READY_FILE,
        metavar="FILE",
        help="the ready file of the running service (default: %(default)s)",
    )
    parser.add_argument(
        "--scenes", type=_numbers, metavar="LIST", help="only these scenes, for example 1,3-5 (default: all)"
    )
    parser.add_argument(
        "--style",
        type=Style,
        choices=list(Style),
        metavar="STYLE",
        default=words.style,
        help=f"{', '.join(Style)} (default: {words.style.value})",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="give up watching after so long (default: %(default).0f); what was requested goes on being made",
    )
    arguments = parser.parse_args(argv)
    known = [scene.scene_number for scene in words.scenes]
    unknown = [str(number) for number in arguments.scenes or [] if number not in known]
    if unknown:
        parser.error(f"the chapter has scenes {known[0]} to {known[-1]}, not {', '.join(unknown)}")
    return arguments


def _ready(file: Path) -> readyfile.ReadyFile:
    try:
        return readyfile.read(file)
    except FileNotFoundError:
        raise Unusable(f"The service is not running ({file} is not there). Start it with `make run`.") from None
    except (ValidationError, OSError) as error:
        raise Unusable(f"{file} cannot be read as a ready file: {str(error).splitlines()[0]}") from None


class Demo:
    """One run over one chapter. Every picture is asked for anew; the ones that are there stay until then."""

    def __init__(self, ready: readyfile.ReadyFile, rows: list[Row], board: Board, *, plain: bool) -> None:
        self._ready = ready
        self._rows = rows
        self._board = board
        self._plain = plain
        self._seen: dict[str, ImageStatus] = {}
        self._ended = asyncio.Event()
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {ready.token}"}, timeout=30.0, trust_env=False
        )

    async def run(self, style: Style, aspect_ratio: str, timeout: float) -> int:
        """Lost push lines on the way. Raises Unusable, LineRefused, TimeoutError."""
        follower = Follower(self._ready.push, self._ready.token, self._ready.chapter_id, self._saw)
        line = asyncio.create_task(follower.run())
        try:
            async with asyncio.timeout(timeout):
                # the subscription stands before the first request, so that no version is missed
                await self._either(line, follower.ready, _SUBSCRIBE_TIMEOUT)
                await asyncio.gather(*(self._request(row, style, aspect_ratio) for row in self._rows))
                await self._either(line, self._ended, None)
        finally:
            line.cancel()
            await asyncio.gather(line, return_exceptions=True)
        return follower.reconnects

    async def disagreements(self) -> list[str]:
        """Polls every scene and says where the answer differs from the last push."""
        found = []
        for row in self._rows:
            polled = await self._poll(row)
            if polled is None or row.image is None:
                found.append(f"scene {row.scene.scene_number}: the poll does not know the record that was pushed")
                continue
            pushed = row.image.model_dump(exclude=_COMPUTED_WHEN_READ)
            answer = polled.model_dump(exclude=_COMPUTED_WHEN_READ)
            fields = [name for name in pushed if pushed[name] != answer[name]]
            if fields:
                found.append(f"scene {row.scene.scene_number}: poll and push differ in {', '.join(fields)}")
        return found

    async def close(self) -> None:
        await self._http.aclose()

    async def _either(self, line: asyncio.Task[None], event: asyncio.Event, timeout: float | None) -> None:
        """Until the event; the end of the line is an error before it."""
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait({line, waiting}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if line.done():
                line.result()
            if not event.is_set():
                raise Unusable(f"{self._ready.push} does not answer over the WebSocket. Is `make run` still running?")
        finally:
            waiting.cancel()

    async def _request(self, row: Row, style: Style, aspect_ratio: str) -> None:
        number = row.scene.scene_number
        body = SceneImageRequest(scene_description=row.scene.scene_description, style=style, aspect_ratio=aspect_ratio)
        response = await self._call(
            "POST",
            f"{self._ready.api}/chapters/{self._ready.chapter_id}/images/scenes/{number}",
            content=body.model_dump_json(exclude_none=True),
            headers={"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())},
        )
        if response.status_code != 202:
            raise Unusable(f"Scene {number} was not accepted: {_told(response)}")
        accepted = ImageGenerationQueuedResponse.model_validate_json(response.content)
        row.record_id = str(accepted.record_id)
        early = self._seen.get(row.record_id)
        if early is not None:
            self._show(row, early)

    async def _poll(self, row: Row) -> ImageStatus | None:
        push, number = self._ready.push, row.scene.scene_number
        chapter_url = f"{push}/chapters/{self._ready.chapter_id}"
        # the scene first; when somebody asked for it again meanwhile, our record itself
        for url in (f"{chapter_url}/images/scenes/{number}/status", f"{push}/images/{row.record_id}"):
            response = await self._call("GET", url)
            if response.status_code == 200:
                image = ImageStatus.model_validate_json(response.content)
                if str(image.record_id) == row.record_id:
                    return image
        return None

    async def _call(self, method: str, url: str, **request: object) -> httpx.Response:
        try:
            return await self._http.request(method, url, **request)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Unusable(f"{url} does not answer ({reason}). Is `make run` still running?") from None

    def _saw(self, image: ImageStatus) -> None:
        record = str(image.record_id)
        self._seen[record] = image
        for row in self._rows:
            if row.record_id == record:
                self._show(row, image)

    def _show(self, row: Row, image: ImageStatus) -> None:
        row.see(image)
        if self._plain:
            self._board.tell(row)
        if all(row.ended for row in self._rows):
            self._ended.set()


def _told(response: httpx.Response) -> str:
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return f"status {response.status_code}"
    fields = "; ".join(f"{error.field}: {error.message}" for error in problem.errors or [])
    return f"{problem.detail}{f' ({fields})' if fields else ''} [{problem.code}]"


async def _main(arguments: argparse.Namespace, console: Console) -> int:
    ready = _ready(arguments.ready_file)
    words = chapter.load()
    rows = [Row(scene) for scene in words.scenes if arguments.scenes is None or scene.scene_number in arguments.scenes]
    plain = not console.is_terminal
    board = Board(console, f"{words.title}  ·  {words.book}, {words.chapter}", rows)
    demo = Demo(ready, rows, board, plain=plain)
    live = Live(get_renderable=board.render, console=console, refresh_per_second=8)
    try:
        with nullcontext() if plain else live:
            try:
                lost = await demo.run(arguments.style, words.aspect_ratio, arguments.timeout)
            except TimeoutError:
                left = sum(not row.ended for row in rows)
                raise Unusable(
                    f"{left} of {len(rows)} pictures were not ready after {arguments.timeout:.0f} s. "
                    f"They go on being made; {ready.studio} shows them."
                ) from None
        return await _conclude(demo, rows, console, lost)
    finally:
        await demo.close()


async def _conclude(demo: Demo, rows: list[Row], console: Console, lost: int) -> int:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say("")
    for row in rows:
        image = row.image
        if image is not None and image.status is Status.COMPLETED:
            say(f"scene {row.scene.scene_number}: {image.image_url}")
        elif image is not None:
            say(f"scene {row.scene.scene_number}: {image.status.value}: {image.error_message or 'no reason was given'}")
    say("")
    made = [row for row in rows if row.image is not None and row.image.status is Status.COMPLETED]
    slowest = max(row.seconds for row in rows)
    pushes = sum(row.versions for row in rows)
    again = f", the push line was opened again {lost} time{'s' if lost > 1 else ''}" if lost else ""
    say(f"{len(made)} of {len(rows)} pictures in {slowest:.1f} s, {pushes} changes pushed{again}.")
    disagreements = await demo.disagreements()
    for disagreement in disagreements:
        say(disagreement)
    if not disagreements:
        say(f"A poll of {'each scene' if len(rows) > 1 else 'the scene'} gives the same answer as the push.")
    return 0 if len(made) == len(rows) and not disagreements else 1


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    console = Console()
    try:
        return asyncio.run(_main(arguments, console))
    except (Unusable, LineRefused) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped watching. What was requested goes on being made.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
