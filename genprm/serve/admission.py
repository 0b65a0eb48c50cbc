"""Back-pressure: as many rows at work as the verifier can take, some that wait, and the others are turned away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from genprm.serve.errors import BusyError, TooManyError

SHORTEST, LONGEST = 1, 60
"""Seconds after which a client that was turned away is told to come again."""


class Admission:
    """Places for rows.

    Args:
        at_work: rows at work at once, of the usual number of votes.
        waiting: rows that may wait for that.
        votes: the usual number. A row with more of them takes the room of several.
    """

    def __init__(self, at_work: int, waiting: int, votes: int = 1) -> None:
        self.most = at_work + waiting
        self.taken = 0
        """Rows at work or waiting."""
        self.working = 0
        self._at_work = at_work
        self._chains = at_work * votes
        self._free = asyncio.Semaphore(self._chains)
        self._turn = asyncio.Lock()
        self._seconds = 1.0
        """What a row takes, as a moving mean."""

    @contextmanager
    def admit(self, rows: int) -> Iterator[Callable[[], None]]:
        """Hold places for so many rows; what it yields gives one back, of a row that is done before the others.

        Raises:
            BusyError: there are none now.
            TooManyError: there never are.
        """
        if rows > self.most:
            raise TooManyError(f"{rows} rows in one request: at most {self.most}")
        if self.taken + rows > self.most:
            raise BusyError(self._retry_after())
        left = rows

        def give_back() -> None:
            nonlocal left
            left -= 1
            self.taken -= 1

        self.taken += rows
        try:
            yield give_back
        finally:
            self.taken -= left

    @asynccontextmanager
    async def work(self, votes: int) -> AsyncIterator[None]:
        """Wait until this row, which has a place, may be worked on with so many votes."""
        with ExitStack() as held:
            async with self._turn:  # two rows that have half of what they need would wait for ever
                for _ in range(min(votes, self._chains)):
                    await self._free.acquire()
                    held.callback(self._free.release)
            begun = time.monotonic()
            self.working += 1
            try:
                yield
            finally:
                self.working -= 1
                self._seconds += (time.monotonic() - begun - self._seconds) / 8

    def _retry_after(self) -> int:
        """When half of the rows that are here should be through."""
        return min(LONGEST, max(SHORTEST, round(self._seconds * self.taken / self._at_work / 2)))
