"""Group commit without a window (PIPELINE A1)."""

import asyncio
from collections.abc import Sequence

import pytest

from storage.batching import Batcher


async def test_an_idle_batcher_flushes_at_once_and_what_arrives_meanwhile_is_the_next_flush() -> None:
    flushes: list[list[int]] = []
    flushing, first_flush_may_end = asyncio.Event(), asyncio.Event()

    async def flush(items: Sequence[int]) -> Sequence[int | Exception]:
        flushes.append(list(items))
        flushing.set()
        if len(flushes) == 1:
            await first_flush_may_end.wait()
        return [item * 10 for item in items]

    batch = Batcher(flush)
    calls = [asyncio.create_task(batch(1))]
    await flushing.wait()
    calls += [asyncio.create_task(batch(i)) for i in (2, 3, 4)]
    await asyncio.sleep(0)
    first_flush_may_end.set()
    assert await asyncio.gather(*calls) == [10, 20, 30, 40]
    assert flushes == [[1], [2, 3, 4]]


async def test_an_item_that_comes_right_after_a_flush_ended_is_not_forgotten() -> None:
    async def flush(items: Sequence[int]) -> Sequence[int | Exception]:
        return list(items)

    batch = Batcher(flush)
    async with asyncio.timeout(5):
        for i in range(100):
            # the caller goes on in the very step in which the drain ends
            assert await batch(i) == i


async def test_one_failure_reaches_its_caller_alone_and_a_broken_flush_all_of_its_callers() -> None:
    async def flush(items: Sequence[int]) -> Sequence[int | Exception]:
        if 13 in items:
            raise RuntimeError("the whole flush")
        return [ValueError(str(item)) if item < 0 else item for item in items]

    batch = Batcher(flush)
    results = await asyncio.gather(batch(1), batch(-1), batch(2), return_exceptions=True)
    assert results[0] == 1
    assert results[2] == 2
    assert isinstance(results[1], ValueError)
    assert all(
        isinstance(result, RuntimeError) for result in await asyncio.gather(batch(13), batch(1), return_exceptions=True)
    )


async def test_a_caller_that_gave_up_before_its_flush_wants_nothing_done() -> None:
    flushed: list[int] = []

    async def flush(items: Sequence[int]) -> Sequence[int | Exception]:
        flushed.extend(items)
        return list(items)

    batch = Batcher(flush)
    call = asyncio.create_task(batch(1))
    other = asyncio.create_task(batch(2))
    await asyncio.sleep(0)
    call.cancel()
    assert await other == 2
    with pytest.raises(asyncio.CancelledError):
        await call
    assert flushed in ([2], [1, 2])


async def test_a_flush_takes_no_more_than_the_largest() -> None:
    sizes: list[int] = []

    async def flush(items: Sequence[int]) -> Sequence[int | Exception]:
        sizes.append(len(items))
        return list(items)

    batch = Batcher(flush, largest=4)
    await asyncio.gather(*(batch(i) for i in range(10)))
    assert max(sizes) <= 4
    assert sum(sizes) == 10
