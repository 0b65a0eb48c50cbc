"""ZMTP 3.0, the wire protocol of ZeroMQ sockets, as far as Jupyter needs it. Bytes in, messages out; no I/O.

Both ends of a session speak it through this module, and `jupyter_client` speaks it through libzmq. libzmq itself
is used at neither end: it collects a message of endlessly many frames without bound, its assertions end the whole
process when a peer floods it, and its threads forbid to fork a kernel that has begun to work.
"""

from __future__ import annotations

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
MORE, LONG, COMMAND = 1, 2, 4
MESSAGE_FRAMES = 32
"""Most frames of one message. Jupyter's have seven, plus routes and buffers."""


class ProtocolError(Exception):
    """What the peer sends is no ZMTP, or more than it may send."""


def _frame(body: bytes, flags: int) -> bytes:
    if len(body) < 256:
        return bytes((flags, len(body))) + body
    return bytes((flags | LONG,)) + len(body).to_bytes(8, "big") + body


def encode(frames: list[bytes]) -> bytes:
    """The bytes of one message."""
    last = len(frames) - 1
    return b"".join(_frame(frame, MORE if index < last else 0) for index, frame in enumerate(frames))


def opening(kind: str) -> bytes:
    """What a socket of this ``kind`` (ROUTER, DEALER, XPUB, SUB, ...) says first, without waiting for its peer."""
    properties = b""
    for name, value in ((b"Socket-Type", kind.encode()), (b"Identity", b"")):
        properties += bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value
    return GREETING + _frame(b"\x05READY" + properties, COMMAND)


class Decoder:
    """Takes one peer's bytes as they come.

    Args:
        limit: most bytes of one message, all frames together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._greeted = False
        self._frames: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The messages that ``data`` completes, in order.

        Raises:
            ProtocolError: the peer broke the protocol, or its message is larger than the limit.
        """
        self._buffer += data
        if not self._greeted:
            if len(self._buffer) < len(GREETING):
                return []
            greeting = bytes(self._buffer[: len(GREETING)])
            # Major version 3 or later, mechanism NULL. The rest is padding, or of no concern to either side.
            if (
                greeting[0] != 0xFF
                or greeting[9] != 0x7F
                or greeting[10] < 3
                or greeting[12:32].rstrip(b"\0") != b"NULL"
            ):
                raise ProtocolError("no ZMTP 3 greeting")
            del self._buffer[: len(GREETING)]
            self._greeted = True
        messages = []
        while (frame := self._next_frame()) is not None:
            flags, body = frame
            if flags & COMMAND:
                continue  # READY, and what later versions may add: nothing that we would act upon
            self._frames.append(body)
            self._size += len(body)
            if self._size > self._limit or len(self._frames) > MESSAGE_FRAMES:
                raise ProtocolError(f"a message of more than {self._limit} bytes or {MESSAGE_FRAMES} frames")
            if not flags & MORE:
                messages.append(self._frames)
                self._frames, self._size = [], 0
        return messages

    def _next_frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        flags, start = buffer[0], 2
        if flags & ~(MORE | LONG | COMMAND):
            raise ProtocolError(f"a frame with unknown flags {flags:#x}")
        length = buffer[1]
        if flags & LONG:
            start = 9
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[1:9], "big")
        if length > self._limit:
            raise ProtocolError(f"a frame of {length} bytes; the limit is {self._limit}")
        if len(buffer) < start + length:
            return None
        body = bytes(memoryview(buffer)[start : start + length])
        del buffer[: start + length]
        return flags, body
