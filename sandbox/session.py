"""One session: one fresh kernel, used by one verification, then destroyed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient

from sandbox.errors import (
    SandboxError,
    SandboxLostError,
    SandboxTimeoutError,
    SandboxUnavailableError,
    SessionClosedError,
)
from sandbox.limits import Limits
from sandbox.result import RunError, RunResult, RunStatus
from sandbox.server import KernelServer

WELCOME_DEADLINE = 20.0
"""Seconds within which a kernel that reported itself ready must welcome us on its iopub channel."""
DRAIN = 0.1
"""Seconds in which the last words of a kernel that died are still read."""
NOT_THE_GUESTS = ("container memory", "server ended")
"""Ends of a kernel that say nothing about the code it ran."""
ERROR_TEXT = 8192
"""Most characters kept of an exception's text or traceback (an honest kernel sends no more)."""


@dataclass
class _Cell:
    """What has been heard of the cell that is running."""

    request: str
    limit: int
    done: asyncio.Event = field(default_factory=asyncio.Event)
    reply: dict[str, Any] | None = None
    truncated: bool = False
    idle: bool = False
    flooded: bool = False
    streams: dict[str, list[str]] = field(default_factory=lambda: {"stdout": [], "stderr": []})
    result: str | None = None
    received: int = 0

    def text(self, name: str) -> str:
        return "".join(self.streams[name])


class Session:
    """A kernel with its state. Cells run one after the other; `close` (or the context manager) destroys it.

    Made by `Sandbox.session`.
    """

    def __init__(self, server: KernelServer, name: str, key: str, limits: Limits, context: zmq.asyncio.Context) -> None:
        self._server = server
        self._name = name
        self._limits = limits
        self._client = AsyncKernelClient(
            transport="ipc",
            ip=str(server.folder / name),
            shell_port=1,
            iopub_port=2,
            stdin_port=3,
            control_port=4,
            hb_port=5,
            context=context,
        )
        self._client.session.key = key.encode()
        self.on_close: Callable[[], None] = lambda: None
        """Called once, when the session has been closed."""
        self._cell: _Cell | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._welcomed = asyncio.Event()
        self._ended = asyncio.Event()
        self._exit: dict[str, Any] | None = None
        self._broken = ""
        self._closing: asyncio.Task[None] | None = None
        server.on_exit(name, self._on_exit)

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def alive(self) -> bool:
        """Whether the session takes another cell."""
        return self._closing is None and not self._ended.is_set()

    async def open(self) -> None:
        """Connect to the kernel's channels.

        Raises:
            SandboxError: the kernel does not answer.
        """
        try:
            self._client.start_channels(shell=True, iopub=True, stdin=False, hb=False, control=False)
        except zmq.ZMQError as error:
            raise SandboxUnavailableError(f"no socket for kernel {self._name}: {error}") from error
        self._readers = [
            asyncio.create_task(self._read(self._client.iopub_channel, self._on_iopub), name=f"iopub {self._name}"),
            asyncio.create_task(self._read(self._client.shell_channel, self._on_reply), name=f"shell {self._name}"),
        ]
        try:
            async with asyncio.timeout(WELCOME_DEADLINE):
                await self._wait(self._welcomed)
        except TimeoutError as error:
            raise SandboxTimeoutError(f"kernel {self._name} said nothing in {WELCOME_DEADLINE} s") from error
        if self._ended.is_set():
            raise SandboxLostError(f"kernel {self._name} ended before its first cell")

    async def run(self, code: str, timeout: float | None = None) -> RunResult:
        """Run one cell and wait for its end, at most ``timeout`` seconds (the sandbox's limit by default).

        Never takes much longer than ``timeout`` plus the grace an interrupt gets, whatever the code does.

        Raises:
            SessionClosedError: the session was closed, or lost its kernel in an earlier cell.
            SandboxLostError: the kernel server went away: nothing is known about the code.
        """
        if not self.alive:
            raise SessionClosedError(f"kernel {self._name} is gone")
        seconds = self._limits.timeout if timeout is None else timeout
        started = time.monotonic()
        # A lone surrogate cannot be sent as UTF-8; spelled out, it means the same in a string literal.
        text = code.encode("utf-8", "backslashreplace").decode("utf-8")
        request = self._client.execute(text, store_history=False, allow_stdin=False, stop_on_error=False)
        cell = self._cell = _Cell(request, self._limits.output_bytes)
        try:
            timed_out = not await self._finish(cell, seconds)
            if timed_out or cell.flooded:
                await self._stop(cell)
            elif self._exit:
                await self._finish_reading(cell)
            if self._exit and self._exit.get("reason") in NOT_THE_GUESTS:
                raise SandboxLostError(f"the kernel was killed for no fault of its own: {self._exit['reason']}")
            if self._ended.is_set() and not self._exit:
                raise SandboxLostError(f"kernel server {self._server.folder.name} went away while code was running")
        except asyncio.CancelledError:
            await self.close()
            raise
        finally:
            self._cell = None
        return self._outcome(cell, timed_out, seconds, time.monotonic() - started)

    async def close(self) -> None:
        """Destroy the kernel with everything it left behind. Safe to call twice; never raises for a dead server."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name=f"close {self._name}")
        # Whoever waits may be cancelled; the kernel is destroyed all the same.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._client.stop_channels()
        self._server.kernels -= 1
        try:
            await self._server.request("kill", kernel=self._name)
        except SandboxError:
            pass  # a lost server has no kernels left
        finally:
            self.on_close()

    async def _finish(self, cell: _Cell, seconds: float) -> bool:
        """Wait until the cell is done, its kernel has ended or time is up; False for the last."""
        try:
            async with asyncio.timeout(seconds):
                await self._wait(cell.done)
        except TimeoutError:
            return False
        return True

    async def _finish_reading(self, cell: _Cell) -> None:
        """A kernel that died may have sent more than we have read: give that a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                await cell.done.wait()

    async def _wait(self, event: asyncio.Event) -> None:
        """Wait for ``event`` or for the kernel's end, whichever comes first."""
        waits = [asyncio.ensure_future(each.wait()) for each in (event, self._ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _stop(self, cell: _Cell) -> None:
        """Interrupt the cell; kill the kernel from outside if that does not end it at once."""
        if not cell.flooded:
            await self._server.request("interrupt", kernel=self._name)
            if await self._finish(cell, self._limits.grace) and not cell.flooded:
                return
        await self._server.request("kill", kernel=self._name)
        try:
            async with asyncio.timeout(WELCOME_DEADLINE):
                await self._ended.wait()
        except TimeoutError as error:
            raise SandboxTimeoutError(f"kernel {self._name} was not ended in {WELCOME_DEADLINE} s") from error

    def _outcome(self, cell: _Cell, timed_out: bool, seconds: float, duration: float) -> RunResult:
        error = _error_of(cell.reply)
        if cell.flooded:
            status, error = RunStatus.OUTPUT_LIMIT, RunError(name="OutputLimit", value="the kernel was flooding us")
        elif timed_out:
            status, error = RunStatus.TIMEOUT, RunError(name="TimeoutError", value=f"still running after {seconds:g} s")
        elif not cell.done.is_set():
            status, error = self._how_it_died()
        elif error is None:
            status = RunStatus.OK
        else:
            special = {"MemoryError": RunStatus.MEMORY, "OutputLimit": RunStatus.OUTPUT_LIMIT}
            status = special.get(error.name, RunStatus.ERROR)
        return RunResult(
            status=status,
            stdout=cell.text("stdout"),
            stderr=cell.text("stderr"),
            result=cell.result,
            error=error,
            duration=duration,
            truncated=cell.truncated or cell.flooded,
            state_lost=self._ended.is_set(),
        )

    def _how_it_died(self) -> tuple[RunStatus, RunError]:
        event = self._exit or {}
        if event.get("reason") == "memory":
            return RunStatus.MEMORY, RunError(name="MemoryError", value="the kernel was killed at its memory limit")
        if event.get("reason") == "processes":
            how = "the kernel was killed for too many processes"
        elif self._broken:
            how = f"the kernel broke the protocol: {self._broken}"
        elif event.get("signal"):
            how = f"the kernel was killed by signal {event['signal']}"
        else:
            how = f"the kernel exited with status {event.get('code')}"
        return RunStatus.DIED, RunError(name="KernelDied", value=how)

    # What comes in. All of it is written by the guest, if it wants to: sizes and types are checked, nothing is trusted.

    async def _read(self, channel: Any, handle: Any) -> None:
        while True:
            try:
                handle(await channel.get_msg())
            except (zmq.ZMQError, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001 - a guest may send anything, signed with its own key
                await self._on_nonsense(error)
                return

    def _on_iopub(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "iopub_welcome":
            self._welcomed.set()
            return
        cell = self._cell
        if cell is None or message["parent_header"].get("msg_id") != cell.request:
            return
        if kind == "stream":
            self._keep(cell, str(content["text"]), cell.streams[content["name"]])
        elif kind == "execute_result":
            kept: list[str] = []
            self._keep(cell, str(content["data"]["text/plain"]), kept)
            cell.result = "".join(kept)
        elif kind == "status" and content["execution_state"] == "idle":
            cell.idle = True
            self._check_done(cell)

    def _keep(self, cell: _Cell, text: str, into: list[str]) -> None:
        # The kernel keeps to the limit by itself; only one that forges messages gets here with more.
        cell.received += len(text)
        if cell.received <= cell.limit:
            into.append(_clean(text))
        elif cell.received > 4 * cell.limit:
            cell.flooded = True
            cell.done.set()
        else:
            cell.truncated = True

    def _on_reply(self, message: dict[str, Any]) -> None:
        cell = self._cell
        if cell is None or message["parent_header"].get("msg_id") != cell.request:
            return
        _error_of(message["content"])
        cell.reply = message["content"]
        cell.truncated = cell.truncated or bool(message["metadata"].get("truncated"))
        self._check_done(cell)

    def _check_done(self, cell: _Cell) -> None:
        if cell.idle and cell.reply is not None:
            cell.done.set()

    async def _on_nonsense(self, error: Exception) -> None:
        self._broken = f"{type(error).__name__}: {error}"[:200]
        with contextlib.suppress(SandboxError):
            await self._server.request("kill", kernel=self._name)

    def _on_exit(self, event: dict[str, Any] | None) -> None:
        self._exit = event
        self._ended.set()


def _clean(text: str) -> str:
    """``text`` with lone surrogates spelled out: an honest kernel sends none, and nobody could encode them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _error_of(reply: dict[str, Any] | None) -> RunError | None:
    """The error in an ``execute_reply``; raises if the guest made one up that has the wrong types."""
    if reply is None or reply["status"] == "ok":
        return None
    name, value, trace = reply["ename"], reply["evalue"], "\n".join(reply["traceback"])
    name, value, trace = (_clean(text[:ERROR_TEXT]) for text in (name, value, trace))
    return RunError(name=name, value=value, traceback=trace)
