"""Carries clients' connections over standard input and output, where no directory of sockets can be shared.

A gVisor sandbox or an engine on another machine has no unix socket in common with us, but what is attached to a
container's standard input and output always gets through. The relay is a process of its own beside the kernel server:
it connects to the server's and the kernels' sockets like any client, and ends with standard input.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from sandbox.guest import confine, mux


class Stream:
    """One connection that is carried."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.allowed = mux.WINDOW
        """Bytes that the client still lets us send."""
        self.outgoing = bytearray()
        """Bytes from the client that the socket has not taken yet."""


class Relay:
    """Standard input and output on one side, the sockets in ``folder`` on the other."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._streams: dict[int, Stream] = {}
        self._frames = mux.Frames()
        self._selector = selectors.DefaultSelector()
        self._selector.register(0, selectors.EVENT_READ, None)

    def run(self) -> None:
        """Carry until standard input ends."""
        while True:
            for key, events in self._selector.select():
                if key.data is None:
                    data = os.read(0, 1 << 16)
                    if not data:
                        return
                    for number, kind, body in self._frames.feed(data):
                        self._on_frame(number, kind, body)
                elif key.data in self._streams:
                    self._on_socket(key.data, events)

    def _on_frame(self, number: int, kind: int, body: bytes) -> None:
        stream = self._streams.get(number)
        if kind == mux.OPEN:
            self._open(number, body.decode())
        elif stream is None:
            return  # closed from this side a moment ago
        elif kind == mux.DATA:
            stream.outgoing += body
            self._write(number, stream)
        elif kind == mux.GRANT:
            stream.allowed += int.from_bytes(body, "big")
            self._watch(number, stream)
        else:
            self._close(number)

    def _open(self, number: int, name: str) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)  # a kernel that takes no connections must not keep the others waiting
        try:
            connection.connect(os.path.join(self._folder, name))
        except OSError:
            connection.close()
            self._send(mux.frame(number, mux.CLOSE))
            return
        self._streams[number] = Stream(connection)
        self._selector.register(connection, selectors.EVENT_READ, number)

    def _on_socket(self, number: int, events: int) -> None:
        stream = self._streams[number]
        if events & selectors.EVENT_WRITE:
            self._write(number, stream)
        if events & selectors.EVENT_READ and number in self._streams:
            try:
                data = stream.connection.recv(min(stream.allowed, mux.FRAME_BYTES))
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close(number)
                self._send(mux.frame(number, mux.CLOSE))
                return
            stream.allowed -= len(data)
            self._send(mux.frame(number, mux.DATA, data))
            self._watch(number, stream)

    def _write(self, number: int, stream: Stream) -> None:
        try:
            sent = stream.connection.send(stream.outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(number)
            self._send(mux.frame(number, mux.CLOSE))
            return
        del stream.outgoing[:sent]
        if sent:
            self._send(mux.grant(number, sent))
        self._watch(number, stream)

    def _watch(self, number: int, stream: Stream) -> None:
        events = (selectors.EVENT_READ if stream.allowed else 0) | (selectors.EVENT_WRITE if stream.outgoing else 0)
        registered = stream.connection in self._selector.get_map()
        if events and registered:
            self._selector.modify(stream.connection, events, number)
        elif events:
            self._selector.register(stream.connection, events, number)
        elif registered:
            self._selector.unregister(stream.connection)

    def _close(self, number: int) -> None:
        stream = self._streams.pop(number)
        if stream.connection in self._selector.get_map():
            self._selector.unregister(stream.connection)
        stream.connection.close()

    @staticmethod
    def _send(data: bytes) -> None:
        while data:
            data = data[os.write(1, data) :]


def start_relay() -> Callable[[str], None]:
    """Fork the relay for the kernel server that this process is about to become.

    Returns what the server calls with the path of its directory once its sockets are there.
    """
    read, write = os.pipe()
    server = os.getpid()
    if os.fork() == 0:
        os.close(write)
        _be_relay(read, server)
    os.close(read)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    os.close(null)

    def announce(text: str) -> None:
        os.write(write, text.encode())

    return announce


def _be_relay(pipe: int, server: int) -> NoReturn:
    try:
        confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
        folder = os.read(pipe, 4096).decode()
        if folder.startswith("/") and os.getppid() == server:
            os.write(1, mux.frame(0, mux.OPEN))  # stream 0 is never opened: it says that the server is there
            Relay(folder).run()
    except Exception as error:  # noqa: BLE001 - whatever it is, the container's standard error should have it
        print(f"relay: {error!r}", file=sys.stderr)
    finally:
        os._exit(0)
