"""How many completions a policy is given at once, and which of those that wait come first."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

Priority = tuple[int, ...]


class PrioritySlots:
    """A semaphore whose waiters are served by priority, smallest first.

    Args:
        slots: completions under way at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._free = slots
        self._waiting: list[tuple[Priority, int, int, asyncio.Future[None]]] = []
        self._arrival = count()

    @asynccontextmanager
    async def take(self, weight: int, priority: Priority) -> AsyncIterator[None]:
        """Hold ``weight`` slots; one that asks for more than there are gets all of them."""
        weight = min(weight, self._slots)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._arrival), weight, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._free += weight
            turn.cancel()
            self._admit()
            raise
        try:
            yield
        finally:
            self._free += weight
            self._admit()

    def _admit(self) -> None:
        # Strictly in order: a heavy one at the head is not overtaken, or it would wait for ever.
        while self._waiting and (self._waiting[0][3].done() or self._waiting[0][2] <= self._free):
            _, _, weight, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= weight
                turn.set_result(None)
