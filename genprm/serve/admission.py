"""Back-pressure: as many rows at work as the verifier can take, some that wait, and the others are turned away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from genprm.serve.errors import BusyError, TooManyError

SHORTEST, LONGEST = 1, 60
"""Seconds after which a client that was turned away is told to come again."""


class Admission:
    """Places for rows.

    Args:
        at_work: rows at work at once.
        waiting: rows that may wait for that.
    """

    def __init__(self, at_work: int, waiting: int) -> None:
        self.most = at_work + waiting
        self.taken = 0
        """Rows at work or waiting."""
        self.working = 0
        self._at_work = at_work
        self._free = asyncio.Semaphore(at_work)
        self._seconds = 1.0
        """What a row takes, as a moving mean."""

    @contextmanager
    def admit(self, rows: int) -> Iterator[None]:
        """Hold places for so many rows.

        Raises:
            BusyError: there are none now.
            TooManyError: there never are.
        """
        if rows > self.most:
            raise TooManyError(f"{rows} rows in one request: at most {self.most}")
        if self.taken + rows > self.most:
            raise BusyError(self._retry_after())
        self.taken += rows
        try:
            yield
        finally:
            self.taken -= rows

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Wait until this row, which has a place, may be worked on."""
        async with self._free:
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
