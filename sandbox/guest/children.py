"""What the kernel server knows of each kernel, and of whoever asked for it."""

from __future__ import annotations

import dataclasses
import json
import secrets
import socket
import time
from collections import deque
from typing import Any

from sandbox.guest.confine import KernelLimits
from sandbox.guest.users import Family


@dataclasses.dataclass
class Child:
    """A kernel, from the moment it is asked for to the moment the last trace of it is gone."""

    name: str
    client: Client
    home: str
    limits: KernelLimits
    family: Family | None
    uid: int | None
    line: socket.socket
    """Our end of its tether."""
    request: int | None
    """The request that asked for it, until that is answered."""
    origin: str | None = None
    """The kernel it is forked from."""
    key: str = dataclasses.field(default_factory=lambda: secrets.token_hex(16))
    born: float = dataclasses.field(default_factory=time.monotonic)
    asked: deque[str] = dataclasses.field(default_factory=deque)
    """Its branches that it has been told to make and has not said to have made."""
    pid: int | None = None
    """None while its process is not known: a fork of another kernel, on its way."""
    base_kib: int = 0
    held_kib: int = 0
    """Of all its processes, when they were last looked at; what they share counts for each of them."""
    reason: str | None = None
    exited: bool = False
    wiped: bool = False
    wipes: int = 0
    wiper: int | None = None
    wiping_since: float = 0.0
    kill_requests: list[int] = dataclasses.field(default_factory=list)

    @property
    def may_hold_too_much(self) -> bool:
        """Whether its processes hold more than it may, if they share nothing with each other and the server."""
        return self.held_kib - self.base_kib > self.limits.memory_mib * 1024


@dataclasses.dataclass
class Measuring:
    """A look at who fills the disk, under way."""

    pid: int
    pipe: int
    said: bytes = b""
    begun: float = dataclasses.field(default_factory=time.monotonic)


class Client:
    """One connection on the control socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""
        self.gone = False

    def send(self, message: dict[str, Any]) -> None:
        if self.gone:
            return
        try:
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.gone = True
