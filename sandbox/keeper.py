"""A process that keeps one isolated kernel for a Jupyter client: what `sandbox.provisioner` starts.

    python -m sandbox.keeper '{"backend": "docker", "runtime": null, ...}'

It prints one line, the kernel's connection information as JSON (or ``{"error": ...}``), and carries what the client
says to the sockets in its own directory on to the kernel. SIGINT interrupts the kernel, SIGTERM ends it, and so does
the end of its standard input, by which it learns that its client is gone; it ends with the kernel.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from sandbox.errors import SandboxError
from sandbox.guest import zmtp
from sandbox.guest.channels import PORTS
from sandbox.host import Host
from sandbox.limits import Limits
from sandbox.owner import make_directory, remove_directory
from sandbox.sandbox import Sandbox

MESSAGE_BYTES = 1 << 26
"""Largest message of the kernel that is let through."""


class ClientsLife(asyncio.Protocol):
    """Reads standard input to its end.

    Args:
        ended: is called then.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def connection_lost(self, _error: Exception | None) -> None:
        self._ended()


class Pipe(asyncio.Protocol):
    """One end of a connection that is carried: what comes in here goes out at ``other``, no faster than it can.

    Args:
        decoder: follows what comes in, and ends the connection where it breaks the protocol; None: it is trusted.
    """

    def __init__(self, decoder: zmtp.Decoder | None) -> None:
        self.other: Pipe | None = None
        self.transport: asyncio.Transport | None = None
        self._decoder = decoder

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            if self._decoder:
                self._decoder.feed(data)
        except zmtp.ProtocolError:
            self.connection_lost(None)
            return
        if self.other and self.other.transport:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other and self.other.transport:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other and self.other.transport:
            self.other.transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        for end in (self, self.other):
            if end and end.transport:
                end.transport.close()


def _carrier(host: Host, socket: str) -> Callable[[], Pipe]:
    """Makes the client's end of a connection, and opens the kernel's end as soon as it is connected."""
    tasks: set[asyncio.Task[None]] = set()

    class ClientEnd(Pipe):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            assert self.transport
            self.transport.pause_reading()
            task = asyncio.create_task(self._connect())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        async def _connect(self) -> None:
            assert self.transport
            self.other = Pipe(zmtp.Decoder(MESSAGE_BYTES))
            self.other.other = self
            try:
                await host.open(socket, lambda: self.other)  # type: ignore[arg-type, return-value]
                self.transport.resume_reading()
            except OSError:
                self.transport.close()

    return lambda: ClientEnd(None)


async def keep(backend: str, limits: Limits, options: dict[str, Any]) -> int:
    """Keep one kernel until it or we are told to end; the exit status."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(status: int) -> None:
        if not ended.done():
            ended.set_result(status)

    loop.add_signal_handler(signal.SIGTERM, end, 0)
    await loop.connect_read_pipe(lambda: ClientsLife(lambda: end(0)), sys.stdin)
    sandbox = Sandbox(backend, limits, sessions=1, ready=0, **options)
    folder = make_directory()
    try:
        server, name, key = await sandbox.spawn()
        server.on_exit(name, lambda event: end(1 if event is None else _status(event)))
        interrupts: set[asyncio.Task[Any]] = set()

        def interrupt() -> None:
            task = asyncio.create_task(server.request("interrupt", kernel=name))
            interrupts.add(task)
            task.add_done_callback(interrupts.discard)

        loop.add_signal_handler(signal.SIGINT, interrupt)
        for port in PORTS.values():
            await loop.create_unix_server(_carrier(server.host, f"{name}-{port}"), str(folder / f"k-{port}"))
        _say({"transport": "ipc", "ip": str(folder / "k"), "key": key} | {f"{c}_port": p for c, p in PORTS.items()})
        return await ended
    finally:
        await sandbox.close()
        remove_directory(folder)


def _status(event: dict[str, Any]) -> int:
    """A kernel's exit status, as a shell shows it."""
    return int(128 + event["signal"] if event["signal"] else event["code"])


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    """Read the options and keep."""
    options = {name: value for name, value in json.loads(sys.argv[1]).items() if value is not None}
    limits = Limits(**options.pop("limits"))
    # A Ctrl-C in the client's terminal goes to its whole process group; until there is a kernel it means nothing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sys.exit(asyncio.run(keep(options.pop("backend"), limits, options)))
    except (SandboxError, ValueError) as error:
        _say({"error": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
