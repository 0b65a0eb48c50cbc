"""Many connections over one pair of pipes: the frames that `sandbox.guest.relay` and `sandbox.attach` exchange.

A frame is a stream's number (4 bytes), its kind (1), the length of its body (4), the body. The client opens streams
and numbers them. Each side may send `WINDOW` bytes on a stream, and more as the other side grants it: a stream whose
reader is slow holds up nobody else's.
"""

from __future__ import annotations

import struct

OPEN, DATA, CLOSE, GRANT = range(4)
"""OPEN: the body is a socket's name. CLOSE: no body; sent by either side, once. GRANT: the body is a count of bytes."""
HEADER = struct.Struct(">IBI")
WINDOW = 1 << 18
FRAME_BYTES = 1 << 16
"""Most bytes of one frame's body."""


class MuxError(Exception):
    """What arrives are no frames."""


def frame(stream: int, kind: int, body: bytes = b"") -> bytes:
    """The bytes of one frame."""
    return HEADER.pack(stream, kind, len(body)) + body


def grant(stream: int, size: int) -> bytes:
    """The frame that allows ``size`` more bytes."""
    return frame(stream, GRANT, size.to_bytes(4, "big"))


class Frames:
    """Takes bytes as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that ``data`` completes: stream, kind, body. Raises `MuxError`."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= HEADER.size:
            stream, kind, length = HEADER.unpack_from(self._buffer)
            if length > FRAME_BYTES or kind > GRANT:
                raise MuxError(f"a frame of kind {kind} and {length} bytes")
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((stream, kind, bytes(memoryview(self._buffer)[HEADER.size : end])))
            del self._buffer[:end]
        return frames
