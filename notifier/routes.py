"""Statuses over HTTP: a scene, a record, a chapter; plain, conditional or held."""

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from uuid import UUID

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from notifier.events import Event
from notifier.outlook import Outlook
from notifier.polls import Polls, Tags, wait_of
from notifier.scopes import Key, chapter_key, reaches, record_key, shows
from notifier.snapshots import Snapshot, Snapshots
from schemas.words import TERMINAL, Stage, Status
from storage.reading import Image, Reader, Scene
from web.auth import LEEWAY, Caller, NotShared, Verifier
from web.parameters import scene_number_of, uuid_of
from web.problems import Refused

SCENE_STATUS = "/chapters/{chapter_id}/images/scenes/{scene_number}/status"
CHAPTER_IMAGES = "/chapters/{chapter_id}/images"
RECORD = "/images/{record_id}"

_WAITING = frozenset({Stage.QUEUED, Stage.RETRY_WAIT, Stage.PROVIDER_PAUSED})
_HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Authorization, Prefer"}


class Statuses:
    def __init__(
        self,
        *,
        reader: Reader,
        outlook: Outlook,
        snapshots: Snapshots,
        polls: Polls,
        verifier: Verifier,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reader = reader
        self._outlook = outlook
        self._snapshots = snapshots
        self._polls = polls
        self._verifier = verifier
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route(SCENE_STATUS, self.scene, methods=["GET"]),
            Route(CHAPTER_IMAGES, self.chapter, methods=["GET"]),
            Route(RECORD, self.record, methods=["GET"]),
        ]

    async def scene(self, request: Request) -> Response:
        """`latest` of a scene, and `current`."""
        caller = await self._verifier.viewer(request.headers.get("authorization"))
        chapter_id = uuid_of(request.path_params, "chapter_id")
        number = scene_number_of(request.path_params)
        key = _within(caller, chapter_key(caller.user_id, chapter_id))

        async def read() -> "_Answer":
            scene = await self._reader.scene(caller.user_id, chapter_id, number)
            if scene is None:
                raise Refused(404, "not_found", "No image of yours was requested for this scene.")
            (latest,) = await self._outlook.fill([scene.latest])
            return _scene_answer(replace(scene, latest=latest))

        def of_scene(event: Event) -> bool:
            return event.scene_number == number

        return await self._answered(request, caller, key, read, of_scene)

    async def record(self, request: Request) -> Response:
        """One image generation."""
        caller = await self._verifier.viewer(request.headers.get("authorization"))
        record_id = uuid_of(request.path_params, "record_id")

        async def read() -> "_Answer":
            image = await self._reader.record(caller.user_id, record_id)
            if image is None or not shows(caller.chapter_id, image.place):
                raise Refused(404, "not_found", "There is no such image of yours.")
            (image,) = await self._outlook.fill([image])
            text = image.text
            return _Answer(image, f"{image.record_id}.{image.version}", lambda: text)

        return await self._answered(request, caller, record_key(caller.user_id, record_id), read, _any)

    async def chapter(self, request: Request) -> Response:
        """`latest` and `current` of each scene of a chapter, or what changed since a cursor; and the cursor from which
        the rest follows."""
        caller = await self._verifier.viewer(request.headers.get("authorization"))
        chapter_id = uuid_of(request.path_params, "chapter_id")
        cursor = request.query_params.get("cursor")
        key = _within(caller, chapter_key(caller.user_id, chapter_id))
        wait = wait_of(request)
        if wait is None or not cursor:
            return _list_answer(request, await self._snapshots.take(key, cursor), wait)
        async with self._polls.hold(request, key, self._limited(wait, caller), _any) as hold:
            snapshot = await self._snapshots.take(key, cursor)
            # one that is all of the scope is an answer to whatever was asked
            while not snapshot.whole and not snapshot.images:
                in_time = await hold.change()
                snapshot = await self._snapshots.take(key, cursor)
                if not in_time:
                    break
        return _list_answer(request, snapshot, wait)

    async def _answered(
        self,
        request: Request,
        caller: Caller,
        key: Key,
        read: Callable[[], Awaitable["_Answer"]],
        concerned: Callable[[Event], bool],
    ) -> Response:
        """What `read` gives: at once, or with `Prefer: wait` when an event of `key` has made it news to the client."""
        wait, tags = wait_of(request), Tags(request)
        if wait is None:
            return (await read()).response(tags)
        async with self._polls.hold(request, key, self._limited(wait, caller), concerned) as hold:
            answer = await read()
            while not answer.is_news(tags):
                in_time = await hold.change()
                answer = await read()
                if not in_time:
                    break
        return answer.response(tags, applied=wait)

    def _limited(self, wait: int, caller: Caller) -> float:
        """A poll ends with its token."""
        return min(float(wait), caller.expires_at + LEEWAY - self._clock())


class _Answer:
    """One record's status, with its entity tag."""

    def __init__(self, image: Image, tag: str, body: Callable[[], str]) -> None:
        self._image = image
        self._body = body
        self._terminal = image.status in TERMINAL
        # what others write into their rows raises no version: such a row may change under its tag until it is terminal
        self._versioned = image.version > 0
        waiting = image.status == Status.PENDING or image.stage in _WAITING or not self._versioned
        # and so may one that says how long it will take yet
        waiting = waiting or image.estimated
        self._etag = f'W/"{tag}"' if waiting and not self._terminal else f'"{tag}"'

    def is_news(self, tags: Tags) -> bool:
        """Whether a held poll is to be answered."""
        if not tags.given:
            return self._terminal
        if self._terminal and not self._versioned:
            return not tags.match_exactly(self._etag)
        return not tags.match(self._etag)

    def response(self, tags: Tags, *, applied: int | None = None) -> Response:
        headers = {**_HEADERS, "ETag": self._etag}
        if applied is not None:
            headers["Preference-Applied"] = f"wait={applied}"
        known = tags.match(self._etag) if self._versioned else self._terminal and tags.match_exactly(self._etag)
        if known:
            return Response(status_code=304, headers=headers)
        return Response(self._body(), media_type="application/json", headers=headers)


def _scene_answer(scene: Scene) -> _Answer:
    latest, current = scene.latest, scene.current
    tag = f"{latest.record_id}.{latest.version}-{_id_of(current.record_id if current else None)}"

    def body() -> str:
        # most polls are told that there is nothing new
        return f'{latest.text.rstrip().removesuffix("}")},"current":{to_json(current).decode()}}}'

    return _Answer(latest, tag, body)


def _id_of(record_id: UUID | None) -> str:
    return "" if record_id is None else str(record_id)


def _list_answer(request: Request, snapshot: Snapshot, applied: int | None) -> Response:
    headers = {**_HEADERS, "ETag": _list_tag(snapshot.images)}
    if applied is not None:
        headers["Preference-Applied"] = f"wait={applied}"
    if Tags(request).match(headers["ETag"]):
        return Response(status_code=304, headers=headers)
    images = ",".join(image.text for image in snapshot.images)
    resumed = to_json(snapshot.resumed).decode()
    body = f'{{"images":[{images}],"cursor":"{snapshot.cursor}","resumed":{resumed}}}'
    return Response(body, media_type="application/json", headers=headers)


def _list_tag(images: Iterable[Image]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for image in images:
        # a row that has no versions is told apart by its text
        digest.update(f"{image.record_id}.{image.version};{'' if image.version else image.text}".encode())
    return f'W/"{digest.hexdigest()}"'


def _within(caller: Caller, key: Key) -> Key:
    """Raises `NotShared` where the caller's token does not reach."""
    if not reaches(caller.chapter_id, key):
        raise NotShared
    return key


def _any(event: Event) -> bool:
    return True
