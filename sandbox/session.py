"""One session: one fresh kernel, used by one verification, then destroyed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sandbox.cell import Cell
from sandbox.channel import Channel
from sandbox.errors import (
    SandboxError,
    SandboxLostError,
    SandboxTimeoutError,
    SessionClosedError,
)
from sandbox.guest.channels import PORTS
from sandbox.guest.streams import clean
from sandbox.guest.wire import BadMessage, Message, Wire
from sandbox.limits import Limits
from sandbox.result import RunError, RunResult, RunStatus
from sandbox.server import KernelServer

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox

WELCOME_DEADLINE = 20.0
"""Seconds within which a kernel that reported itself ready must welcome us on its iopub channel."""
HANG_UP_GRACE = 1.0
"""Seconds in which word of its end must follow when a kernel has hung up."""
DRAIN = 0.1
"""Seconds in which the last words of a kernel that died are still read."""
NOT_THE_GUESTS = ("container memory", "server ended")
"""Ends of a kernel that say nothing about the code it ran."""
MESSAGE_SLACK = 1 << 20
"""A message larger than this and 16 times the output limit (see `sandbox.cell.ALLOWANCE`) is not received."""
IDLE_BYTES = 1 << 20
"""Bytes that a kernel may send while no cell runs, over its whole life."""


class Session:
    """A kernel with its state. Cells run one after the other; `close` (or the context manager) destroys it.

    Made by `Sandbox.session`, or by `fork` from another one.
    """

    def __init__(self, sandbox: Sandbox, server: KernelServer, name: str, key: str, limits: Limits) -> None:
        self.name = name
        """The kernel's name on its server."""
        self.key = key
        """The key that its messages are signed with."""
        self.server = server
        self.on_close: Callable[[], None] = lambda: None
        """Called once, when the session has been closed."""
        self._sandbox = sandbox
        self._limits = limits
        self._wire = Wire(key.encode(), "host")
        self._shell = self._channel("DEALER", self._on_reply)
        self._iopub = self._channel("SUB", self._on_iopub)
        self._turn = asyncio.Lock()
        self._cell: Cell | None = None
        self._idle_bytes = 0
        self._welcomed = asyncio.Event()
        self._ended = asyncio.Event()
        self._exit: dict[str, Any] | None = None
        self._broken = ""
        self._killing: asyncio.Task[None] | None = None
        self._hung_up: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        server.on_exit(name, self._on_exit)

    def _channel(self, kind: str, on_message: Callable[[Message], None]) -> Channel:
        def receive(frames: list[bytes]) -> None:
            try:
                on_message(self._wire.unpack(frames)[1])
            except BadMessage as error:
                self._on_nonsense(str(error))
            except Exception as error:  # noqa: BLE001 - a guest may send anything, signed with its own key
                self._on_nonsense(f"{type(error).__name__}: {error}")

        limit = 16 * self._limits.output_bytes + MESSAGE_SLACK
        return Channel(kind, limit, receive, self._on_bytes, self._on_nonsense, self._on_hung_up)

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

    @property
    def lost(self) -> bool:
        """Whether the sandbox has lost its kernel, for no fault of the guest's."""
        reason = None if self._exit is None else self._exit.get("reason")
        return self._ended.is_set() and (reason in NOT_THE_GUESTS or (self._exit is None and not self._broken))

    async def open(self) -> None:
        """Connect to the kernel's channels.

        Raises:
            SandboxError: the kernel does not answer.
        """
        try:
            async with asyncio.timeout(WELCOME_DEADLINE):
                await self.server.host.open(f"{self.name}-{PORTS['iopub']}", lambda: self._iopub)
                await self.server.host.open(f"{self.name}-{PORTS['shell']}", lambda: self._shell)
                await self._welcomed.wait()
        except TimeoutError as error:
            raise SandboxTimeoutError(f"kernel {self.name} said nothing in {WELCOME_DEADLINE} s") from error
        except OSError as error:
            raise SandboxLostError(f"no socket for kernel {self.name}: {error}") from error
        if self._ended.is_set() or self._broken:
            raise SandboxLostError(f"kernel {self.name} ended before its first cell")

    async def run(self, code: str, timeout: float | None = None) -> RunResult:
        """Run one cell and wait for its end, at most ``timeout`` seconds (the sandbox's limit by default).

        Never takes much longer than ``timeout`` plus the grace an interrupt gets, whatever the code does. Cells that
        are asked for at once run one after the other.

        Raises:
            ValueError: ``timeout`` is no positive number.
            SessionClosedError: the session was closed, meanwhile perhaps, or lost its kernel in an earlier cell.
            SandboxLostError: the kernel server went away: nothing is known about the code.
        """
        seconds = self._limits.timeout if timeout is None else timeout
        if not isinstance(seconds, int | float) or not 0 < seconds < inf:
            raise ValueError(f"timeout is {seconds!r}: expected seconds, more than 0")
        async with self._turn:
            self._check_alive()
            return await self._run(code, seconds)

    async def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the cell that is running, if one is; its `run` then returns.

        Raises:
            SessionClosedError: there is no kernel any more.
        """
        self._check_alive()
        if self._cell is not None:
            await self._interrupt(self._cell)

    async def fork(self, seed: int | None = None) -> Session:
        """A second session that starts from this one's Python state, and is isolated from it from then on.

        Variables, imports, functions and the files in the home directory are all there. Waits for the cell that runs.
        The new session counts among those that may be open at once, and lives on when this one is closed.

        Args:
            seed: None to go on with the same random numbers as this session, or a seed for `random` and
                `numpy.random`, so that branches differ.

        Raises:
            SessionForkError: the state cannot be forked: live threads or child processes, open files, sockets or
                pipes, shared memory. The message names them; this session goes on.
            SessionClosedError: there is no kernel any more.
            SandboxError: the sandbox could not do it.
        """
        return await self._sandbox.branch(self, seed)

    async def ask_to_fork(self, seed: int | None) -> dict[str, Any]:
        """The kernel server's answer, with the new kernel's name and key. For `Sandbox.branch`."""
        async with self._turn:
            self._check_alive()
            return await self.server.request("fork", kernel=self.name, seed=seed)

    async def close(self) -> None:
        """Destroy the kernel with everything it left behind. Safe to call twice; never raises for a dead server."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name=f"close {self.name}")
        # Whoever waits may be cancelled; the kernel is destroyed all the same.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._shell.close()
        self._iopub.close()
        if self._hung_up:
            self._hung_up.cancel()
        try:
            await self._sandbox.discard(self)
        finally:
            self.on_close()

    def _check_alive(self) -> None:
        if not self.alive:
            raise SessionClosedError(f"kernel {self.name} is gone")

    async def _run(self, code: str, seconds: float) -> RunResult:
        # A lone surrogate cannot be sent as UTF-8; spelled out, it means the same in a string literal.
        content = {
            "code": clean(code),
            "silent": False,
            "store_history": False,
            "allow_stdin": False,
            "stop_on_error": False,
        }
        request, frames = self._wire.pack("execute_request", content)
        cell = self._cell = Cell(request, self._limits.output_bytes)
        self._shell.send(frames)
        try:
            timed_out = not await self._in_time(cell, seconds)
            if timed_out or cell.flooded:
                await self._stop(cell)
            elif self._exit:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN):
                        await cell.complete.wait()
            if self._closing is not None:
                raise SessionClosedError(f"kernel {self.name} was closed while code was running")
            if self.lost:
                raise SandboxLostError(
                    f"the kernel was killed for no fault of its own: {self._exit['reason']}" if self._exit
                    else f"kernel server {self.server.name} went away while code was running"
                )  # fmt: skip
        except asyncio.CancelledError:
            await self.close()
            raise
        finally:
            self._cell = None
        return cell.outcome(
            seconds=seconds, timed_out=timed_out, died=self._how_it_died(), state_lost=self._ended.is_set()
        )

    async def _in_time(self, cell: Cell, seconds: float) -> bool:
        """Wait until the cell is over; False if time is up first."""
        if self._ended.is_set():
            cell.over.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await cell.over.wait()
        return cell.over.is_set()  # also where its end was heard too late because nothing was: our process stood still

    async def _interrupt(self, cell: Cell) -> None:
        """Interrupt a cell once it has begun: a kernel that has not come to it yet would not hear."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.grace):
                await cell.begun.wait()
        await self.server.request("interrupt", kernel=self.name)

    async def _stop(self, cell: Cell) -> None:
        """Interrupt the cell; kill the kernel from outside if that does not end it at once."""
        if not cell.flooded:
            await self._interrupt(cell)
            if await self._in_time(cell, self._limits.grace) and not cell.flooded:
                return
        # The answer comes when everything the guest has left is gone, which may take it long; its end, at once.
        self._killing = asyncio.create_task(self._kill(), name=f"kill {self.name}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WELCOME_DEADLINE):
                await self._ended.wait()
        if not self._ended.is_set():
            raise SandboxTimeoutError(f"kernel {self.name} was not ended in {WELCOME_DEADLINE} s")

    def _how_it_died(self) -> tuple[RunStatus, RunError]:
        event = self._exit or {}
        if event.get("reason") == "memory":
            return RunStatus.MEMORY, RunError(name="MemoryError", value="the kernel was killed at its memory limit")
        if event.get("reason") in ("processes", "disk"):
            what = {"processes": "too many processes", "disk": "too much on disk"}[event["reason"]]
            how = f"the kernel was killed for {what}"
        elif self._broken:
            how = f"the kernel broke the protocol: {self._broken}"
        elif event.get("signal"):
            how = f"the kernel was killed by signal {event['signal']}"
        else:
            how = f"the kernel exited with status {event.get('code')}"
        return RunStatus.DIED, RunError(name="KernelDied", value=how)

    # What comes in

    def _on_bytes(self, size: int) -> None:
        if self._cell is not None:
            self._cell.on_bytes(size)
            return
        self._idle_bytes += size
        if self._idle_bytes > IDLE_BYTES:
            self._on_nonsense("it talks while no cell runs")

    def _on_iopub(self, message: Message) -> None:
        kind = message["header"]["msg_type"]
        if kind == "iopub_welcome":
            self._welcomed.set()
        elif self._cell and message["parent_header"].get("msg_id") == self._cell.request:
            self._cell.on_iopub(kind, message["content"])

    def _on_reply(self, message: Message) -> None:
        if self._cell and message["parent_header"].get("msg_id") == self._cell.request:
            self._cell.on_reply(message)

    def _on_nonsense(self, reason: str) -> None:
        if self._broken or self._ended.is_set():
            return
        self._broken = reason[:200]
        self._welcomed.set()
        self._killing = asyncio.create_task(self._kill(), name=f"kill {self.name}")

    def _on_hung_up(self) -> None:
        """It is about to end, as a rule; one that has closed its sockets and lives on has nothing to live for."""
        if self._hung_up is None:
            self._hung_up = asyncio.create_task(self._await_end(), name=f"end of {self.name}")

    async def _await_end(self) -> None:
        try:
            async with asyncio.timeout(HANG_UP_GRACE):
                await self._ended.wait()
        except TimeoutError:
            self._on_nonsense("it closed its sockets")

    async def _kill(self) -> None:
        with contextlib.suppress(SandboxError):
            await self.server.request("kill", kernel=self.name)

    def _on_exit(self, event: dict[str, Any] | None) -> None:
        self._exit = event
        self._ended.set()
        self._welcomed.set()
        if self._cell:
            self._cell.over.set()
