"""Connections that hold nobody up: ended where no request comes, or nobody reads; the longest silent one, where there
are too many.

Ended, not closed: closing waits for what is unsent, and so for ever for a client that does not read.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

READ_SECONDS = 30.0
"""Seconds that a request's header may take to come in, and then its body."""
WRITE_SECONDS = 30.0
"""Seconds within which a client must have read something of what waits for it."""


def most_connections() -> int:
    """Half of the files that the process may open: kernels, models and pages need some."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else max(16, soft // 2)


def backlog() -> int:
    """Connections taken at once. Where the process may open no more files, asyncio logs a failure for each of them."""
    return min(128, most_connections() // 4)


class Connection(H11Protocol):
    """One connection."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._overdue: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._heard = self.loop.time()
        self._aborted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # whatever is unread is minded, be it little
        if len(self.connections) > most_connections():
            idle = [
                each
                for each in self.connections
                if isinstance(each, Connection) and not each._is_at_work and not each._aborted
            ]
            min(idle, key=lambda each: each._heard)._abort()
        self._expect()

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()
        self._stop_minding()

    def pause_writing(self) -> None:
        """Something waits to be read: see that the client reads."""
        super().pause_writing()
        self._mind(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_minding()

    def _mind(self, waiting: int) -> None:
        def look() -> None:
            now = self.transport.get_write_buffer_size()
            if now < waiting:
                self._mind(now)
            else:
                self._abort()

        self._unread = self.loop.call_later(WRITE_SECONDS, look)

    def _stop_minding(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _abort(self) -> None:
        self._aborted = True
        self.transport.abort()

    @property
    def _is_at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect(self) -> None:
        """Have a time for the next request's header, unless a request is under way."""
        if self._is_at_work or self.transport.is_closing():
            self._forget()
        elif self._overdue is None:
            self._overdue = self.loop.call_later(READ_SECONDS, self._abort)

    def _forget(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
