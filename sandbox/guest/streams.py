"""A kernel's stdout and stderr: text in, a bounded number of messages out.

Two caps hold at the source, so that no flood ever reaches a socket: a budget of bytes per cell, and at most
one message per stream and `INTERVAL`. Past the budget a write raises `OutputLimit`, which derives from
`BaseException` so that an ordinary ``except Exception`` does not swallow it.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from typing import Any

INTERVAL = 0.05
"""Seconds that written text may wait before it is sent, unless the cell ends first."""


class OutputLimit(BaseException):
    """The cell wrote more than it may."""


def clean(text: str) -> str:
    """``text`` with lone surrogates spelled out, so that it can be encoded anywhere."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def cut(text: str, limit: int) -> str:
    """The longest prefix of ``text``, made `clean`, that takes at most ``limit`` bytes of UTF-8."""
    return clean(text[:limit]).encode("utf-8")[:limit].decode("utf-8", "ignore")


class Budget:
    """The bytes that one cell may still write, over all its streams."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = limit
        self.exceeded = False

    def renew(self) -> None:
        """Begin a new cell."""
        self.left = self.limit
        self.exceeded = False

    def take(self, text: str) -> str:
        """The part of ``text``, made `clean`, that still fits; remembers when something did not."""
        if len(text) <= self.left:
            data = text.encode("utf-8", "backslashreplace")
            if len(data) <= self.left:
                self.left -= len(data)
                return data.decode("utf-8")
        kept = cut(text, self.left)
        self.left = 0
        self.exceeded = True
        return kept


class Bytes(io.RawIOBase):
    """``sys.stdout.buffer``: bytes that become text at once.

    Args:
        write: takes the text.
    """

    def __init__(self, write: Callable[[str], int]) -> None:
        self._write = write

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing, as for the stream itself."""

    def write(self, data: Any) -> int:
        taken = bytes(data)
        self._write(taken.decode("utf-8", "backslashreplace"))
        return len(taken)


class GuestStream(io.TextIOBase):
    """What the guest sees as ``sys.stdout`` or ``sys.stderr``. Cannot be closed by it.

    Text is sent while a cell runs (`begin` to `end`). What a left-over thread writes between two cells belongs
    to neither and is dropped.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, name: str, budget: Budget, lock: threading.RLock, send: Callable[[str, str], None]) -> None:
        self.name = name
        self._budget = budget
        self._lock = lock
        self._send = send
        self._active = False
        self._muted = False
        self._pending: list[str] = []
        self._wake = threading.Condition()
        self._sent_at = 0.0
        self._flusher: threading.Thread | None = None

    @property
    def buffer(self) -> Bytes:
        """For code that writes bytes."""
        return Bytes(self.write)

    def reconfigure(self, **_options: object) -> None:
        """Do nothing: text is UTF-8, and is sent as it comes."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing: a cell that closes its stdout must not take the next cell's with it."""

    def begin(self) -> None:
        """A cell starts."""
        with self._lock:
            self._pending = []
            self._active = True
            self._sent_at = time.monotonic()

    def end(self) -> None:
        """The cell is over: send what is left of its text, and end the thread that flushed it."""
        with self._lock:
            self.send_pending()
            self._active = False
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            with self._wake:
                self._wake.notify()
            _join(flusher)

    def renew(self, lock: threading.RLock, *, muted: bool = False) -> None:
        """In a forked process, which may have been born with a lock that a thread held which it has not.

        Args:
            lock: a new one.
            muted: what is written there is for nobody, and costs nothing.
        """
        self._lock, self._wake, self._flusher, self._muted = lock, threading.Condition(), None, muted

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self._muted:
            return len(text)
        with self._lock:
            kept = self._budget.take(text)
            if kept:
                self._pending.append(kept)
        if self._budget.exceeded:
            raise OutputLimit(f"more than {self._budget.limit} bytes of output")
        if time.monotonic() - self._sent_at >= INTERVAL:
            self.send_pending()
        else:
            self._send_later()
        return len(text)

    def flush(self) -> None:
        """Do nothing: text is on its way within `INTERVAL`, and a guest may flush ten thousand times."""

    def send_pending(self) -> None:
        """Send what was written and not sent yet."""
        with self._lock:
            if self._active and self._pending:
                text, self._pending = "".join(self._pending), []
                self._sent_at = time.monotonic()
                self._send(self.name, text)

    def _send_later(self) -> None:
        if self._flusher is None and self._active:
            # Known before it starts: an interrupt that comes meanwhile must leave no thread that nobody ends.
            self._flusher = threading.Thread(target=self._send_at_intervals, daemon=True)
            try:
                self._flusher.start()
            except RuntimeError:
                self._flusher = None
                return  # the guest has used up its threads: its text is sent when the cell ends
        with self._wake:
            self._wake.notify()

    def _send_at_intervals(self) -> None:
        with self._wake:
            while self._active:
                if self._pending:
                    self._wake.wait_for(lambda: not self._active, INTERVAL)
                    self.send_pending()
                else:
                    self._wake.wait()


def _join(thread: threading.Thread) -> None:
    """Wait for a thread that has been told to end, though it may be just starting, or never have been started."""
    for _ in range(20):
        try:
            thread.join(1)
        except RuntimeError:  # not started, as far as is known
            time.sleep(0.001)
        else:
            return
