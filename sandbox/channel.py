"""The client's end of one Jupyter channel of one kernel. Everything that comes in is written by the guest, if it wants.

Bytes are read the moment they arrive and nothing is stored but one unfinished message of bounded size, so a guest
that floods us costs time, which its deadline and its allowance of bytes bound. A channel is connected once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sandbox.guest import zmtp


class Channel(asyncio.Protocol):
    """A ZMTP connection.

    Args:
        kind: the kind of socket we are: DEALER, or SUB (which subscribes to everything).
        limit: most bytes of one message.
        on_message: gets every message, as frames.
        on_bytes: gets the size of whatever arrives, before it is looked at.
        on_broken: gets the reason, once, when the peer breaks the protocol. Not called after `close`.
        on_hung_up: called, once, when the peer hangs up. Not called after `close`, or after ``on_broken``.
    """

    def __init__(
        self,
        kind: str,
        limit: int,
        on_message: Callable[[list[bytes]], None],
        on_bytes: Callable[[int], None],
        on_broken: Callable[[str], None],
        on_hung_up: Callable[[], None],
    ) -> None:
        self._kind = kind
        self._decoder = zmtp.Decoder(limit)
        self._on_message = on_message
        self._on_bytes = on_bytes
        self._on_broken = on_broken
        self._on_hung_up = on_hung_up
        self._transport: asyncio.Transport | None = None
        self._open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        subscription = zmtp.encode([b"\x01"]) if self._kind == "SUB" else b""
        transport.write(zmtp.opening(self._kind) + subscription)

    def data_received(self, data: bytes) -> None:
        if not self._open:
            return
        self._on_bytes(len(data))
        try:
            for message in self._decoder.feed(data):
                if self._open:
                    self._on_message(message)
        except zmtp.ProtocolError as error:
            self.close()
            self._on_broken(str(error))

    def connection_lost(self, _error: Exception | None) -> None:
        if self._open:
            self._open = False
            self._on_hung_up()

    def send(self, frames: list[bytes]) -> None:
        """Send one message; one that can not be sent any more is forgotten."""
        if self._open and self._transport:
            self._transport.write(zmtp.encode(frames))

    def close(self) -> None:
        """Hang up at once."""
        self._open = False
        if self._transport:
            self._transport.abort()
