"""The users that kernels run as. Each kernel has one of its own; nobody can become another's.

To fork a kernel with all its state, its own process must fork and change its user, which only a process with
CAP_SETUID can do. So a kernel keeps that one capability, not in force, and a seccomp filter (`sandbox.guest.seccomp`)
turns it into something narrow: the only change of user that gets through is to a user of the kernel's own *family*,
and only with that user's 64-bit ticket. The tickets are made with the filter; only the kernel server keeps them, and
gives each out once, to the process that is to become that user. A family is made anew for every session.
"""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass

from sandbox.guest.confine import prctl

PR_SET_KEEPCAPS = 8
PR_SET_DUMPABLE = 4
"""A process that has changed its user is closed to all but root, even to those who measure its files as its user."""
CAP_SETUID = 7
CAPABILITY_VERSION_3 = 0x20080522
SETRESUID = {"x86_64": 117, "aarch64": 147}
BRANCHES = 256
"""How often the kernels of one session can be forked, all together. A ticket takes seven instructions of the filter."""


@dataclass
class Family:
    """The users of one session's kernel and of all that are forked from it: ``first``, and the next `BRANCHES`.

    Args:
        first: the first kernel's user, and the whole family's group.
        tickets: 8 bytes for each of the others, as `sandbox.guest.seccomp.install` made them.
    """

    first: int
    tickets: bytes = b""
    branches: int = 0
    """Users that have been given out."""

    def next_member(self) -> tuple[int, int]:
        """The user and the ticket of another kernel; raises `IndexError` if all have been given out."""
        ticket = self.tickets[8 * self.branches : 8 * self.branches + 8]
        if not ticket:
            raise IndexError("no user is left")
        self.branches += 1
        return self.first + self.branches, int.from_bytes(ticket, "little")


def become_first(family: Family) -> None:
    """Give up root for good, and every capability but what `become_next` needs. Only root can call this."""
    prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(family.first, family.first, family.first)
    os.setresuid(family.first, family.first, family.first)
    prctl(PR_SET_DUMPABLE, 1)
    _set_capabilities(permitted=1 << CAP_SETUID, effective=0)


def become_next(user: int, ticket: int) -> None:
    """Become another member of the family.

    Raises:
        OSError: the ticket is not that user's.
    """
    _set_capabilities(permitted=1 << CAP_SETUID, effective=1 << CAP_SETUID)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SETRESUID[platform.machine()], user, user, user, ctypes.c_uint64(ticket)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    prctl(PR_SET_DUMPABLE, 1)
    _set_capabilities(permitted=1 << CAP_SETUID, effective=0)


def become_for_good(user: int) -> None:
    """Become ``user`` with no capability left. Only root can call this."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _set_capabilities(*, permitted: int, effective: int) -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(effective, permitted, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
