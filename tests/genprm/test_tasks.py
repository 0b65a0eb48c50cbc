"""Running things side by side: each with its own fate, and no coroutine left unawaited."""

from __future__ import annotations

import asyncio
import gc
import warnings

import anyio
import pytest

from genprm.tasks import gather_all, map_unordered, to_the_end


async def slow(value: int) -> int:
    await asyncio.sleep(0.01 * value)
    return value


async def bad() -> int:
    raise ValueError("bad")


async def test_outcomes_are_in_order():
    assert await gather_all(slow(n) for n in (3, 1, 2)) == [3, 1, 2]
    assert sorted([entry async for entry in map_unordered(slow, [3, 1, 2], 2)]) == [(0, 3), (1, 1), (2, 2)]


async def test_the_first_exception_ends_it():
    with pytest.raises(ValueError, match="bad"):
        await gather_all([bad(), slow(1), slow(100)])


async def test_what_has_finished_at_the_same_time_comes_before_what_is_fatal():
    done: list[int] = []

    async def work(item: int) -> int:
        if item == 0:
            raise ValueError("bad")
        return item

    with pytest.raises(ValueError, match="bad"):
        async for index, _ in map_unordered(work, range(4), 4):
            done.append(index)
    assert done == [1, 2, 3]


async def test_what_is_cancelled_before_it_began_is_not_complained_about():
    async def consume() -> None:
        async for _ in map_unordered(slow, range(10), 10):
            pass

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for work in (consume(), gather_all([slow(1), slow(2)])):
            task = asyncio.create_task(work)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        gc.collect()


async def test_what_is_cancelled_again_and_again_cleans_up_all_the_same():
    ended: list[int] = []

    async def end(value: int) -> None:
        await slow(value)
        ended.append(value)
        if value == 1:
            raise ValueError("bad")

    with anyio.move_on_after(0) as scope:  # which cancels at every await
        try:
            await asyncio.sleep(1)
        finally:
            await to_the_end(end(value) for value in (1, 2, 3))
    assert scope.cancelled_caught
    assert ended == [1, 2, 3]
    with pytest.raises(ValueError, match="bad"):
        await to_the_end(end(value) for value in (1, 2))
    await to_the_end(())
