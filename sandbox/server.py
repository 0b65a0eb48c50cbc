"""The client's end of one kernel server: requests over its control socket, and the news it sends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxLostError, SandboxRefusedError, SandboxTimeoutError, SandboxUnavailableError

REQUEST_DEADLINE = 30.0
"""Seconds within which the server must answer a request. A fork takes milliseconds; a loaded machine, more."""


class KernelServer:
    """A connection to one kernel server. Every kernel it starts dies with the connection."""

    def __init__(self, folder: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.folder = folder
        """The directory, as seen from here, that holds the server's sockets."""
        self.kernels = 0
        """Kernels that are running for us."""
        self.about: dict[str, Any] = {}
        """What the server said of itself: ``isolated``, ``limits``, ``python``, ``missing``."""
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._on_exit: dict[str, Callable[[dict[str, Any] | None], None]] = {}
        self._lost = False
        self._task = asyncio.create_task(self._listen(), name=f"listen {folder.name}")

    @classmethod
    async def connect(cls, folder: Path, deadline: float = REQUEST_DEADLINE) -> KernelServer:
        """Connect to the server whose sockets lie in ``folder``.

        Raises:
            SandboxUnavailableError: nothing listens there.
            SandboxTimeoutError: it does not say hello in time.
        """
        try:
            async with asyncio.timeout(deadline):
                reader, writer = await asyncio.open_unix_connection(folder / "control")
        except (OSError, TimeoutError) as error:
            raise SandboxUnavailableError(f"no kernel server answers at {folder / 'control'}: {error}") from error
        server = cls(folder, reader, writer)
        try:
            server.about = await server.request("hello", deadline=deadline)
        except BaseException:
            await server.close()
            raise
        return server

    @property
    def lost(self) -> bool:
        """Whether the connection is gone, and every kernel with it."""
        return self._lost

    async def request(self, op: str, *, deadline: float = REQUEST_DEADLINE, **fields: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises:
            SandboxLostError: the server is gone.
            SandboxTimeoutError: it did not answer within ``deadline`` seconds.
            SandboxRefusedError: it answered that it cannot.
        """
        if self._lost:
            raise SandboxLostError(f"kernel server {self.folder.name} is gone")
        number = next(self._numbers)
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies[number] = reply
        try:
            async with asyncio.timeout(deadline):
                self._writer.write(json.dumps({"id": number, "op": op, **fields}).encode() + b"\n")
                await self._writer.drain()
                answer = await reply
        except TimeoutError as error:
            raise SandboxTimeoutError(
                f"kernel server {self.folder.name}: no answer to {op!r} in {deadline} s"
            ) from error
        except (ConnectionError, OSError) as error:
            raise SandboxLostError(f"kernel server {self.folder.name} is gone: {error}") from error
        finally:
            self._replies.pop(number, None)
        if not answer["ok"]:
            raise SandboxRefusedError(f"kernel server {self.folder.name}: {answer['error']}")
        return answer

    def on_exit(self, kernel: str, callback: Callable[[dict[str, Any] | None], None]) -> None:
        """Call ``callback`` once when ``kernel`` ends: with the server's event, or with None if the server is lost."""
        if self._lost:
            callback(None)
        else:
            self._on_exit[kernel] = callback

    async def close(self) -> None:
        """Hang up. The server then kills our kernels; an owned one ends."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                message = json.loads(line)
                if message.get("event") == "exit":
                    callback = self._on_exit.pop(message["kernel"], None)
                    if callback:
                        callback(message)
                elif (reply := self._replies.get(message["id"])) and not reply.done():
                    reply.set_result(message)
                elif "kernel" in message:
                    # Whoever asked for this kernel has been cancelled, or has given up waiting.
                    unwanted = {"id": next(self._numbers), "op": "kill", "kernel": message["kernel"]}
                    self._writer.write(json.dumps(unwanted).encode() + b"\n")
        except (OSError, ValueError):
            pass  # a connection that breaks, or talks nonsense, is lost: said below
        finally:
            self._lost = True
            for reply in self._replies.values():
                if not reply.done():
                    reply.set_exception(SandboxLostError(f"kernel server {self.folder.name} is gone"))
            callbacks, self._on_exit = self._on_exit, {}
            for callback in callbacks.values():
                callback(None)
