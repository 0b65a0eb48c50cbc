"""The private line between the kernel server and one kernel: small JSON messages, and descriptors.

A message that begins with `TICKETS` is the one that is no JSON: see `sandbox.guest.seccomp.install`.

The kernel's end is in the guest's hands: nothing that comes from it is believed without a look at the process table.
"""

from __future__ import annotations

import json
import socket
from typing import Any

MESSAGE_BYTES = 1 << 14
TICKETS = b"T"


def make_tether() -> tuple[socket.socket, socket.socket]:
    """A pair of connected ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
    """Send one message; raises `OSError` if nobody is there any more, or does not read."""
    data = json.dumps(message).encode()[:MESSAGE_BYTES]
    socket.send_fds(end, [data], descriptors or [], socket.MSG_DONTWAIT)


def receive(end: socket.socket, descriptors: int = 0) -> tuple[dict[str, Any], list[int]]:
    """Read one message with at most so many descriptors.

    Raises:
        OSError: the other end is closed.
        ValueError: it is no message.
    """
    data, received, _, _ = socket.recv_fds(end, MESSAGE_BYTES, descriptors, socket.MSG_DONTWAIT)
    if not data:
        raise ConnectionResetError("the tether is cut")
    if data.startswith(TICKETS):
        return {"tickets": data[len(TICKETS) :]}, []
    try:
        message = json.loads(data)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(message, dict):
        raise ValueError("no object")
    return message, received
