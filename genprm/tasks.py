"""Structured concurrency, once: run many items side by side, within a limit, each with its own fate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


async def map_unordered(
    work: Callable[[Item], Awaitable[Outcome]], items: Iterable[Item], limit: int
) -> AsyncGenerator[tuple[int, Outcome], None]:
    """Yield ``(index, outcome)`` as the items finish; at most ``limit`` of them are under way.

    ``work`` must turn what may go wrong with one item into an outcome: an exception that leaves it is fatal, ends
    the iteration and cancels the rest. So does leaving the iteration early.
    """
    source = enumerate(items)
    running: dict[asyncio.Task[Outcome], int] = {}
    try:
        while True:
            while len(running) < limit and (entry := next(source, None)) is not None:
                running[asyncio.create_task(_apply(work, entry[1]))] = entry[0]
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            # What is fatal comes last: what others have finished meanwhile is not to be lost for it.
            for task in sorted(
                done, key=lambda task: (task.cancelled() or task.exception() is not None, running[task])
            ):
                yield running.pop(task), task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def gather_all(works: Iterable[Awaitable[Outcome]]) -> list[Outcome]:
    """All outcomes, in order. The first exception cancels the rest and is raised by itself."""
    items = list(works)
    outcomes: dict[int, Outcome] = {}
    try:
        async with aclosing(map_unordered(lambda item: item, items, max(1, len(items)))) as finished:
            async for index, outcome in finished:
                outcomes[index] = outcome
    finally:
        for item in items:
            if isinstance(item, Coroutine):
                item.close()  # one that was cancelled before it began would be complained about
    return [outcomes[index] for index in range(len(items))]


async def to_the_end(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Clean up, all of it, also where that is cancelled again: a scope of anyio's does so at every await.

    The first exception is raised when all has been tried.
    """
    work = asyncio.gather(*works, return_exceptions=True)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as error:
            if work.cancelled():
                raise
            cancelled = error
    if cancelled is not None:
        raise cancelled
    for outcome in work.result():
        if isinstance(outcome, BaseException):
            raise outcome


async def _apply(work: Callable[[Item], Awaitable[Outcome]], item: Item) -> Outcome:
    return await work(item)
