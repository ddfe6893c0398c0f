"""Group commit without a window: what arrived while the last flush ran is the next flush (PIPELINE A1).

One statement for many callers costs little more than one for one; waiting for company would cost latency, so nobody
waits: an idle batcher flushes the first item at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects single calls into calls of `flush(items) -> results`, by ordinal.

    A result that is an exception is raised at its caller; an exception of `flush` itself is raised at every caller of
    that flush. At most `workers` flushes run at once, each of at most `largest` items.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        largest: int = 200,
        workers: int = 1,
    ) -> None:
        self._flush = flush
        self._largest = largest
        self._workers = workers
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._active = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._active < self._workers:
            self._active += 1
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _drain(self) -> None:
        # counted down in the same step that found nothing waiting: an item that comes after it starts a new drain, as
        # one that came while a finished task was still counted would wait for ever
        try:
            await self._flush_all()
        finally:
            self._active -= 1

    async def _flush_all(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[: self._largest], self._waiting[self._largest :]
            # a caller that gave up before its flush began wants nothing done
            batch = [(item, future) for item, future in taken if not future.done()]
            if not batch:
                continue
            results: Sequence[Result | Exception]
            try:
                results = await self._flush([item for item, _ in batch])
            except Exception as error:
                results = [error] * len(batch)
            except BaseException:
                for _, future in batch:
                    future.cancel()
                raise
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
