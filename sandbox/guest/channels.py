"""The kernel's end of its five Jupyter sockets: who is connected, what they say, what they are told.

One thread, no buffers of its own: a message goes out before the next line of the guest's code runs. The listening
sockets come from the kernel server, bound where the kernel's own user may not go.
"""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import Iterator

from sandbox.guest import zmtp

KINDS = {"shell": "ROUTER", "iopub": "XPUB", "stdin": "ROUTER", "control": "ROUTER", "hb": "REP"}
"""Channel -> the kind of ZeroMQ socket it is. Their order gives the integers that stand for ports, from 1."""
PORTS = {channel: port for port, channel in enumerate(KINDS, start=1)}
REQUEST_BYTES = 1 << 26
"""Largest request that is read."""
SEND_DEADLINE = 60.0
"""Seconds that a client may leave its messages unread, before it is dropped."""


class Peer:
    """One client's connection to one channel."""

    def __init__(self, channel: str, connection: socket.socket) -> None:
        self.channel = channel
        self.connection = connection
        self.topics: list[bytes] = []
        """What it has subscribed to (iopub only)."""
        self.inbox: deque[list[bytes]] = deque()
        """Messages that have been read and not yet been handed out."""
        self._decoder = zmtp.Decoder(REQUEST_BYTES)
        connection.settimeout(SEND_DEADLINE)

    def receive(self) -> None:
        """Read what has arrived; raises `OSError` or `zmtp.ProtocolError` at the connection's end."""
        data = self.connection.recv(1 << 16)
        if not data:
            raise ConnectionResetError
        self.inbox += self._decoder.feed(data)

    def subscribe(self, event: bytes) -> bool:
        """Take a subscription message (ZMTP 3.0, section "PUB"): whether it was a new subscription."""
        if event[:1] == b"\x01":
            self.topics.append(event[1:])
            return True
        if event[:1] == b"\x00" and event[1:] in self.topics:
            self.topics.remove(event[1:])
        return False


class Channels:
    """Five listening sockets and everybody who has connected to them.

    Args:
        listeners: the listening sockets, in the order of `KINDS`.
        tether: the socket on which the kernel server itself speaks to the kernel.
    """

    def __init__(self, listeners: list[socket.socket], tether: socket.socket) -> None:
        self.tether = tether
        self.descriptors = {tether.fileno()}
        """Every descriptor that is the kernel's own."""
        self._selector = selectors.PollSelector()
        self._peers: set[Peer] = set()
        self._listeners = listeners
        for channel, listener in zip(KINDS, listeners, strict=True):
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, channel)
            self.descriptors.add(listener.fileno())
        self._selector.register(tether, selectors.EVENT_READ, None)

    def wait(self) -> Iterator[tuple[Peer, list[bytes]] | None]:
        """Wait until something arrives: messages, each with its sender; None where the server wants something."""
        left_over = any(peer.inbox for peer in self._peers)
        for key, _ in self._selector.select(0 if left_over else None):
            if key.data is None:
                yield None
            elif isinstance(key.data, str):
                self._accept(key.data, key.fileobj)  # type: ignore[arg-type]
            else:
                self._receive(key.data)
        for peer in list(self._peers):
            while peer.inbox:
                yield peer, peer.inbox.popleft()

    def take_waiting(self, peer: Peer) -> list[list[bytes]]:
        """Everything else that has arrived from ``peer`` by now."""
        while peer in self._peers and _readable(peer.connection):
            self._receive(peer)
        messages, peer.inbox = list(peer.inbox), deque()
        return messages

    def _receive(self, peer: Peer) -> None:
        try:
            peer.receive()
        except (OSError, zmtp.ProtocolError):
            self._drop(peer)

    def send(self, peer: Peer, frames: list[bytes]) -> None:
        """Send one message; a peer that does not take it is dropped."""
        if peer in self._peers:
            try:
                peer.connection.sendall(zmtp.encode(frames))
            except OSError:
                self._drop(peer)

    def publish(self, topic: bytes, frames: list[bytes]) -> None:
        """Send one message to every subscriber of ``topic``."""
        for peer in list(self._peers):
            if any(topic.startswith(prefix) for prefix in peer.topics):
                self.send(peer, frames)

    def close(self) -> None:
        """Hang up on everybody."""
        for peer in list(self._peers):
            self._drop(peer)
        for each in (*self._listeners, self.tether):
            each.close()
        self._selector.close()

    def _accept(self, channel: str, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # it has gone again, or no descriptor is left
        peer = Peer(channel, connection)
        self._peers.add(peer)
        self.descriptors.add(connection.fileno())
        self._selector.register(connection, selectors.EVENT_READ, peer)
        try:
            connection.sendall(zmtp.opening(KINDS[channel]))
        except OSError:
            self._drop(peer)

    def _drop(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self.descriptors.discard(peer.connection.fileno())
        try:
            self._selector.unregister(peer.connection)
        except (KeyError, ValueError):
            pass  # the guest has closed the descriptor behind our back
        peer.connection.close()


def _readable(connection: socket.socket) -> bool:
    with selectors.PollSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(0))
