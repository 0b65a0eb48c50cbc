"""What has been heard of one cell, while it runs and when it is over. All of it may be forged by the guest."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sandbox.guest.streams import clean, cut
from sandbox.guest.wire import Message
from sandbox.result import RunError, RunResult, RunStatus

ERROR_TEXT = 8192
"""Most characters kept of an exception's text or traceback (an honest kernel sends no more)."""
ALLOWANCE = 1 << 20
"""Bytes a kernel may send for one cell, beside 16 for each byte of output: text as JSON takes up to 6, framing more."""
ALLOWANCE_PER_SECOND = 1 << 16
"""Bytes more for every second that it runs."""


class Cell:
    """One cell's outcome in the making.

    Args:
        request: the id of the message that asked for it.
        limit: bytes of text that are kept.
    """

    def __init__(self, request: str, limit: int) -> None:
        self.request = request
        self.begun = asyncio.Event()
        """The kernel has read it, and can be interrupted in it."""
        self.complete = asyncio.Event()
        """Both the reply and the end of its output are here."""
        self.over = asyncio.Event()
        """It is complete, or will never be."""
        self.flooded = False
        self.truncated = False
        self.reply: Message | None = None
        self.result: str | None = None
        self.streams: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._idle = False
        self._limit = limit
        self._kept = 0
        self._bytes = 0
        self._begun = time.monotonic()

    def on_bytes(self, size: int) -> None:
        """So many bytes have come, whatever they are."""
        self._bytes += size
        allowed = 16 * self._limit + ALLOWANCE + ALLOWANCE_PER_SECOND * (time.monotonic() - self._begun)
        if self._bytes > allowed:
            self._flood()

    def on_iopub(self, kind: str, content: Any) -> None:
        """A message on the iopub channel; raises whatever a message of wrong types makes it raise."""
        if kind == "execute_input":
            self.begun.set()
        elif kind == "stream":
            self._keep(str(content["text"]), self.streams[content["name"]])
        elif kind == "execute_result":
            kept: list[str] = []
            self._keep(str(content["data"]["text/plain"]), kept)
            self.result = "".join(kept)
        elif kind == "status" and content["execution_state"] == "idle":
            self._idle = True
            self._check_complete()

    def on_reply(self, message: Message) -> None:
        """The reply on the shell channel; raises as `on_iopub` does."""
        error_of(message["content"])
        self.reply = message["content"]
        self.truncated = self.truncated or bool(message["metadata"].get("truncated"))
        self._check_complete()

    def outcome(
        self, *, seconds: float, timed_out: bool, died: tuple[RunStatus, RunError], state_lost: bool
    ) -> RunResult:
        """The result. ``died`` says how its kernel ended, for a cell that never became complete."""
        error = error_of(self.reply)
        if self.flooded:
            status, error = RunStatus.OUTPUT_LIMIT, RunError(name="OutputLimit", value="the kernel was flooding us")
        elif timed_out:
            status, error = RunStatus.TIMEOUT, RunError(name="TimeoutError", value=f"still running after {seconds:g} s")
        elif not self.complete.is_set():
            status, error = died
        elif error is None:
            status = RunStatus.OK
        else:
            special = {"MemoryError": RunStatus.MEMORY, "OutputLimit": RunStatus.OUTPUT_LIMIT}
            status = special.get(error.name, RunStatus.ERROR)
        return RunResult(
            status=status,
            stdout="".join(self.streams["stdout"]),
            stderr="".join(self.streams["stderr"]),
            result=self.result,
            error=error,
            duration=time.monotonic() - self._begun,
            truncated=self.truncated or self.flooded,
            state_lost=state_lost,
        )

    def _keep(self, text: str, into: list[str]) -> None:
        # The kernel keeps to the limit by itself; only one that forges messages gets here with more.
        room = max(0, self._limit - self._kept)
        text = clean(text)
        size = len(text.encode("utf-8"))
        self._kept += size
        into.append(text if size <= room else cut(text, room))
        self.truncated = self.truncated or size > room
        if self._kept > 4 * self._limit:
            self._flood()

    def _flood(self) -> None:
        self.flooded = True
        self.over.set()

    def _check_complete(self) -> None:
        if self._idle and self.reply is not None:
            self.complete.set()
            self.over.set()


def error_of(reply: Message | None) -> RunError | None:
    """The error in an ``execute_reply``; raises if the guest made one up that has the wrong types."""
    if reply is None or reply["status"] == "ok":
        return None
    name, value, trace = reply["ename"], reply["evalue"], "\n".join(reply["traceback"])
    name, value, trace = (clean(text[:ERROR_TEXT]) for text in (name, value, trace))
    return RunError(name=name, value=value, traceback=trace)
