"""Blocking calls that nobody waits for at the end: `asyncio.to_thread` would, as long as they take."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Outcome = TypeVar("Outcome")


async def in_daemon_thread(
    call: Callable[Parameters, Outcome], *arguments: Parameters.args, **options: Parameters.kwargs
) -> Outcome:
    """What ``call`` returns or raises. Where the caller is cancelled, it goes on until it, or the process, ends."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Outcome] = loop.create_future()

    def settle(set_it: Callable[..., None], value: object) -> None:
        if not outcome.done():
            set_it(value)

    def run() -> None:
        try:
            found = call(*arguments, **options)
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            end = (outcome.set_exception, error)
        else:
            end = (outcome.set_result, found)  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there any more
            loop.call_soon_threadsafe(settle, *end)

    threading.Thread(target=run, daemon=True).start()
    return await outcome
