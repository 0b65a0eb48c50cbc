"""The client's end of one kernel server: requests over its control socket, and the news it sends."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

from sandbox.errors import (
    SandboxLostError,
    SandboxRefusedError,
    SandboxTimeoutError,
    SandboxUnavailableError,
    SessionForkError,
)
from sandbox.guest import version
from sandbox.guest.streams import clean
from sandbox.host import Host

REQUEST_DEADLINE = 30.0
"""Seconds within which the server must answer a request. A fork takes milliseconds; a loaded machine, more."""
LINE_BYTES = 1 << 20
"""Longest line that is read from a server."""


class KernelServer(asyncio.Protocol):
    """A connection to one kernel server. Every kernel it starts dies with the connection."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.name = host.name
        self.kernels = 0
        """Kernels that are running for us."""
        self.about: dict[str, Any] = {}
        """What the server said of itself: ``isolated``, ``limits``, ``python``, ``missing``, ``version``."""
        self.lost = False
        """Whether the connection is gone, and every kernel with it."""
        self.silent = False
        """Whether it did not answer in time, and has said nothing since: no kernel is asked of it meanwhile."""
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._on_exit: dict[str, Callable[[dict[str, Any] | None], None]] = {}
        self._exited: dict[str, dict[str, Any]] = {}
        self._unwanted: set[str] = set()
        """Kernels that nobody waits for, until word of their end has come."""

    @classmethod
    async def connect(cls, host: Host, deadline: float = REQUEST_DEADLINE) -> KernelServer:
        """Connect to the server that runs on ``host``, which is closed with it, and if this fails.

        Raises:
            SandboxUnavailableError: nothing listens there, or it is of another version.
            SandboxTimeoutError: it does not say hello in time.
        """
        server = cls(host)
        try:
            async with asyncio.timeout(deadline):
                server._transport = await host.open("control", lambda: server)
            server.about = await server.request("hello", deadline=deadline)
            if server.about.get("version") != version():
                raise SandboxUnavailableError(
                    f"kernel server {host.name} is of version {server.about.get('version')}, this is {version()}: "
                    "build its image anew, and start it again"
                )
        except (OSError, TimeoutError) as error:
            await server.close()
            raise SandboxUnavailableError(f"no kernel server answers at {host.name}: {error}") from error
        except BaseException:
            await server.close()
            raise
        return server

    async def request(self, op: str, *, deadline: float = REQUEST_DEADLINE, **fields: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises:
            SandboxLostError: the server is gone.
            SandboxTimeoutError: it did not answer within ``deadline`` seconds.
            SandboxRefusedError: it answered that it cannot.
            SessionForkError: it answered that the state of the kernel forbids it.
        """
        if self.lost or self._transport is None:
            raise SandboxLostError(f"kernel server {self.name} is gone")
        number = next(self._numbers)
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies[number] = reply
        try:
            async with asyncio.timeout(deadline):
                self._transport.write(json.dumps({"id": number, "op": op, **fields}).encode() + b"\n")
                answer = await reply
        except asyncio.CancelledError:
            if reply.done() and not reply.cancelled() and reply.exception() is None:
                self._never_taken(reply.result())
            raise
        except TimeoutError as error:
            if not reply.done() or reply.cancelled():
                self.silent = True
                raise SandboxTimeoutError(f"kernel server {self.name}: no answer to {op!r} in {deadline} s") from error
            answer = reply.result()  # it came while our process stood still
        finally:
            self._replies.pop(number, None)
        if answer["ok"]:
            return answer
        reason = clean(str(answer["error"]))  # parts of it may be a guest's
        if answer.get("state"):
            raise SessionForkError(f"the session cannot be forked: {reason}")
        raise SandboxRefusedError(f"kernel server {self.name}: {reason}")

    def on_exit(self, kernel: str, callback: Callable[[dict[str, Any] | None], None]) -> None:
        """Call ``callback`` once when ``kernel`` ends: with the server's event, or with None if the server is lost."""
        if self.lost or kernel in self._exited:
            callback(self._exited.pop(kernel, None))
        else:
            self._on_exit[kernel] = callback

    async def close(self) -> None:
        """Hang up and close the host. The server then kills our kernels; an owned one ends."""
        if self._transport:
            self._transport.abort()
        self.connection_lost(None)
        await self.host.close()

    # What comes in

    def data_received(self, data: bytes) -> None:
        self.silent = False
        *lines, self._received = (self._received + data).split(b"\n")
        try:
            for line in lines:
                self._on_message(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._hang_up()  # it talks nonsense
        if len(self._received) > LINE_BYTES:
            self._hang_up()

    def connection_lost(self, _error: Exception | None) -> None:
        if self.lost:
            return
        self.lost = True
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(SandboxLostError(f"kernel server {self.name} is gone"))
        callbacks, self._on_exit = self._on_exit, {}
        for callback in callbacks.values():
            callback(None)

    def _hang_up(self) -> None:
        if self._transport:
            self._transport.abort()

    def _on_message(self, message: dict[str, Any]) -> None:
        if message.get("event") == "exit":
            kernel = message["kernel"]
            callback = self._on_exit.pop(kernel, None)
            if callback:
                callback(message)
            elif kernel in self._unwanted:
                self._unwanted.discard(kernel)
            else:
                self._exited[kernel] = message
        elif (reply := self._replies.get(message["id"])) and not reply.done():
            reply.set_result(message)
        else:
            self._never_taken(message)

    def _never_taken(self, answer: dict[str, Any]) -> None:
        """Whoever asked for the kernel of this answer has been cancelled, or has given up waiting."""
        if "kernel" in answer and self._transport:
            self._unwanted.add(str(answer["kernel"]))
            unwanted = {"id": next(self._numbers), "op": "kill", "kernel": answer["kernel"]}
            self._transport.write(json.dumps(unwanted).encode() + b"\n")
