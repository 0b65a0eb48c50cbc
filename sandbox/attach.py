"""Connections to a kernel server that is reached only through its container's standard input and output.

For a runtime that shares no unix sockets with the host (gVisor), and for an engine on another machine. The other end
is `sandbox.guest.relay`.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from typing import Any

from sandbox.errors import SandboxUnavailableError
from sandbox.guest import mux

DOCKER_HEADER = struct.Struct(">BxxxI")
"""What the engine puts before each piece of output: which stream it is from, and its length."""
STDOUT, STDERR = 1, 2
STDERR_BYTES = 4096
"""How much of the end of the container's standard error is kept."""


class MuxTransport(asyncio.Transport):
    """One stream of a `Link`."""

    def __init__(self, link: Link, number: int, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._link = link
        self._number = number
        self._protocol = protocol
        self._allowed = mux.WINDOW
        self._waiting = bytearray()
        self._closing = False
        self._paused = False
        self._owed = 0

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._grant(0)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._waiting += data
        self._send()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._link.send(mux.frame(self._number, mux.CLOSE))
            self._link.forget(self._number)

    def on_frame(self, kind: int, body: bytes) -> None:
        """A frame of this stream has come."""
        if kind == mux.DATA:
            self._protocol.data_received(body)
            self._grant(len(body))
        elif kind == mux.GRANT:
            self._allowed += int.from_bytes(body, "big")
            self._send()
        elif kind == mux.CLOSE:
            self.on_end()

    def on_end(self) -> None:
        """The other side has closed the stream, or the whole link is gone."""
        if not self._closing:
            self._closing = True
            self._link.forget(self._number)
            self._protocol.connection_lost(None)

    def _grant(self, size: int) -> None:
        """Let the other side send as much as has been read, unless the protocol wants no more for now."""
        self._owed += size
        if self._owed and not self._paused and not self._closing:
            self._link.send(mux.grant(self._number, self._owed))
            self._owed = 0

    def _send(self) -> None:
        while self._waiting and self._allowed:
            size = min(len(self._waiting), self._allowed, mux.FRAME_BYTES)
            self._link.send(mux.frame(self._number, mux.DATA, bytes(self._waiting[:size])))
            self._allowed -= size
            del self._waiting[:size]


class Link(asyncio.Protocol):
    """The hijacked connection to the engine that carries a container's standard streams."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        """The kernel server is there, or never will be: then `lost`."""
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._frames = mux.Frames()
        self._streams: dict[int, MuxTransport] = {}
        self._numbers = itertools.count(1)
        self._stderr = b""

    @classmethod
    async def over(cls, connection: socket.socket) -> Link:
        """Take over a connection to the engine's attach endpoint."""
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        create = loop.create_unix_connection if connection.family == socket.AF_UNIX else loop.create_connection
        _, link = await create(cls, sock=connection)
        return link

    async def wait_for_server(self, deadline: float) -> None:
        """Wait until the kernel server takes connections.

        Raises:
            SandboxUnavailableError: it ended, or does not in ``deadline`` seconds.
        """
        try:
            async with asyncio.timeout(deadline):
                await self.ready.wait()
        except TimeoutError as error:
            raise SandboxUnavailableError(f"the kernel server did not start within {deadline:g} s") from error
        if self.lost:
            said = self._stderr.decode("utf-8", "replace").strip().splitlines()
            raise SandboxUnavailableError(f"the kernel server did not start: {said[-1] if said else 'it ended'}")

    def open(self, name: str, protocol: asyncio.Protocol) -> MuxTransport:
        """Open a stream to the server's socket of that name; if nobody listens there, it ends at once.

        Raises:
            ConnectionError: the link is gone.
        """
        if self.lost:
            raise ConnectionResetError("the container's streams are closed")
        number = next(self._numbers)
        stream = self._streams[number] = MuxTransport(self, number, protocol)
        self.send(mux.frame(number, mux.OPEN, name.encode()))
        protocol.connection_made(stream)
        return stream

    def send(self, data: bytes) -> None:
        """Send a frame."""
        if self._transport and not self.lost:
            self._transport.write(data)

    def forget(self, number: int) -> None:
        """A stream has ended."""
        self._streams.pop(number, None)

    def close(self) -> None:
        """Hang up: an owned kernel server ends."""
        if self._transport:
            self._transport.abort()
        self.connection_lost(None)

    # What comes in: the relay's frames, within the engine's. The relay is ours, but a guest might take it over.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            while len(self._received) >= DOCKER_HEADER.size:
                stream, length = DOCKER_HEADER.unpack_from(self._received)
                end = DOCKER_HEADER.size + length
                if len(self._received) < end:
                    break
                body = bytes(self._received[DOCKER_HEADER.size : end])
                del self._received[:end]
                if stream == STDOUT:
                    self._on_output(body)
                elif stream == STDERR:
                    self._stderr = (self._stderr + body)[-STDERR_BYTES:]
        except mux.MuxError:
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = True
        self.ready.set()
        for stream in list(self._streams.values()):
            stream.on_end()

    def _on_output(self, data: bytes) -> None:
        for number, kind, body in self._frames.feed(data):
            if number == 0:
                self.ready.set()
            elif number in self._streams:
                self._streams[number].on_frame(kind, body)


def attach(container: Any) -> socket.socket:
    """Attach to a container that was created with its standard input open, and has not been started.

    Raises:
        SandboxUnavailableError: the engine is reached in a way that gives us no plain socket.
    """
    parameters = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    hijacked = container.attach_socket(params=parameters)
    plain = getattr(hijacked, "_sock", hijacked)
    if type(plain) is not socket.socket:
        raise SandboxUnavailableError("the Docker engine is reached over TLS or SSH: use a plain socket")
    # The response object would close the connection when it is collected: keep a descriptor of our own.
    copy = plain.dup()
    hijacked.close()
    return copy
