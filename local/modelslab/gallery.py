"""Drawn pictures: made in threads, each once, kept in memory up to a limit."""

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Literal

from PIL import Image

from local.modelslab.drawing import Sitting, draw, encoded
from local.modelslab.job import Job

PictureKind = Literal["png", "jpeg", "webp", "base64", "text/plain", "not_a_picture", "cut_short"]
NOT_A_PICTURE = b"<html><body>Access denied</body></html>"
_CONTENT_TYPES = {"jpeg": "image/jpeg", "webp": "image/webp", "base64": "text/plain", "text/plain": "text/plain"}
_ON_THE_SHELF = ("png", "text/plain")
_SHELF_SIZE = (512, 288)  # some 100 kB, so that a measurement is of the line and not of the loopback
_SHELF_SCENES = (
    "a river at dawn", "a castle in the hills", "a house under a tree", "a garden of roses", "a winter night",
    "birds over the sea", "a table laid for tea", "an owl in the forest",
)  # fmt: skip


def content_type(kind: PictureKind) -> str:
    """What the CDN says a picture is; `text/plain` happens, which is why clients go by the first bytes."""
    return _CONTENT_TYPES.get(kind, "image/png")


class Gallery:
    """Pictures of jobs as files. `shelf`: pictures drawn beforehand, which then serve every job."""

    def __init__(
        self,
        *,
        budget: int,
        executor: Executor | None = None,
        painter: Callable[[Sitting], Image.Image] = draw,
    ) -> None:
        self._budget = budget
        self._painter = painter
        self._executor = executor or ThreadPoolExecutor(max_workers=2, thread_name_prefix="drawing")
        self._kept: OrderedDict[object, bytes] = OrderedDict()
        self._size = 0
        self._drawing: dict[object, asyncio.Future[bytes]] = {}
        self._shelf: list[bytes] = []

    async def prerender(self, number: int) -> None:
        """Draw pictures for `picture(..., prerendered=True)` until there are `number` of them."""
        while len(self._shelf) < number:
            at = len(self._shelf)
            scene = _SHELF_SCENES[at % len(_SHELF_SCENES)]
            self._shelf.append(await self._drawn(Sitting(scene, "prerendered", at, *_SHELF_SIZE), "png"))

    def start(self, job: Job) -> None:
        """Begin to draw a job's first picture, so that it is there when the job is ready."""
        task = asyncio.ensure_future(self.picture(job, 0))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def picture(self, job: Job, sample: int, *, prerendered: bool = False) -> bytes:
        """The file of one of a job's pictures; a kind of file that is not on the shelf is drawn all the same."""
        kind: PictureKind = job.action.picture
        if kind == "not_a_picture":
            return NOT_A_PICTURE
        if prerendered and kind in _ON_THE_SHELF:
            await self.prerender(1)
            return self._shelf[job.id % len(self._shelf)]
        order = job.order
        sitting = Sitting(order.prompt, order.model, (job.seed + sample) & 0xFFFFFFFF, order.width, order.height)
        key = (sitting, kind)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._drawing:
            self._drawing[key] = asyncio.ensure_future(self._made(key, sitting, kind))
        # shielded: a caller that goes away does not spoil the picture for the others
        return await asyncio.shield(self._drawing[key])

    def forget(self) -> None:
        self._kept.clear()
        self._size = 0

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _made(self, key: object, sitting: Sitting, kind: PictureKind) -> bytes:
        try:
            data = await self._drawn(sitting, kind)
        finally:
            del self._drawing[key]
        self._keep(key, data)
        return data

    async def _drawn(self, sitting: Sitting, kind: PictureKind) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._file, sitting, kind)

    def _file(self, sitting: Sitting, kind: PictureKind) -> bytes:
        image = self._painter(sitting)
        match kind:
            case "jpeg":
                return encoded(image, "JPEG")
            case "webp":
                return encoded(image, "WEBP")
            case "base64":
                return base64.b64encode(encoded(image, "PNG"))
            case "cut_short":
                data = encoded(image, "PNG")
                return data[: len(data) // 2]
            case _:
                return encoded(image, "PNG")

    def _keep(self, key: object, data: bytes) -> None:
        self._kept[key] = data
        self._size += len(data)
        while self._size > self._budget and len(self._kept) > 1:
            self._size -= len(self._kept.popitem(last=False)[1])
