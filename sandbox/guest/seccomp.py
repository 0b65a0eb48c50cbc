"""The kernels' own seccomp filter, on top of the container's: what no honest check needs, and attacks do.

Denied (EPERM): what traces or reads other processes, memory that no limit counts, shared objects and keys that outlive
their session, namespaces, and the parts of the Linux kernel through which sandboxes have been left before. Denied too
is every socket but a connected `socketpair` of streams or packets: there is no network, and neighbours must not be
reachable, which datagrams, whose sockets the system gives names to, would make them. Nor can a process hide its files
from who measures them.
Changing the user takes a ticket, see `sandbox.guest.users`. The filter is inherited and cannot be taken off.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import struct
from collections.abc import Callable

from sandbox.guest.confine import prctl
from sandbox.guest.users import PR_SET_DUMPABLE

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
RETURN_ALLOW = 0x7FFF0000
RETURN_EPERM = 0x00050000 | 1
RETURN_ENOSYS = 0x00050000 | 38
LOAD_WORD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN, AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
# A and X are the two registers. TAX would be shorter than STORE and LOAD_X, but gVisor forgets X at the next load.
STORE, LOAD_STORED, LOAD_X, SUBTRACT, JUMP_EQUAL_X = 0x02, 0x60, 0x61, 0x14, 0x1D
NUMBER_AT, MACHINE_AT, ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data; arguments are 64-bit, low word first
INSTRUCTION = 8  # bytes; the operand is the last four
TICKET = 8  # bytes
MAP_SHARED, MAP_ANONYMOUS = 0x01, 0x20
"""Shared memory without a file stays whole while one page of it is mapped, so that no limit would count it."""
AF_UNIX, SOCK_STREAM, SOCK_SEQPACKET, SOCK_KINDS = 1, 1, 5, 0xF
NEW_NAMESPACES = 0x7E020000
"""Every CLONE_NEW* flag that clone(2) takes."""

# machine -> (its audit code, numbers of the calls that are denied, of clone, setresuid, mmap, socketpair and prctl)
_MACHINES = {
    "x86_64": (0xC000003E, {
        "shmget": 29, "socket": 41, "connect": 42, "bind": 49, "listen": 50, "semget": 64, "msgget": 68,
        "ptrace": 101, "syslog": 103, "setuid": 105, "setreuid": 113, "setfsuid": 122, "pivot_root": 155, "acct": 163,
        "mq_open": 240, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298,
        "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308,
        "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "memfd_create": 319, "bpf": 321,
        "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "pidfd_getfd": 438, "memfd_secret": 447,
    }, 56, 117, 9, 53, 157),
    "aarch64": (0xC00000B7, {
        "pivot_root": 41, "acct": 89, "unshare": 97, "syslog": 116, "ptrace": 117, "setreuid": 145, "setuid": 146,
        "setfsuid": 151, "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194, "socket": 198, "bind": 200,
        "listen": 201, "connect": 203, "add_key": 217, "request_key": 218, "keyctl": 219, "perf_event_open": 241,
        "fanotify_init": 262, "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268,
        "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "memfd_create": 279, "bpf": 280,
        "userfaultfd": 282, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "pidfd_getfd": 438, "memfd_secret": 447,
    }, 220, 147, 222, 199, 167),
}  # fmt: skip
CLONE3 = 435
"""Its flags lie in memory, out of a filter's sight: "no such call" makes the C library use clone instead."""
X32_CALLS = 0x40000000
"""System calls of the x32 kind carry this bit, and would be other numbers for the same calls."""
DENY, ALLOW = (RETURN, RETURN_EPERM), (RETURN, RETURN_ALLOW)


def _argument(index: int, *, high: bool = False) -> tuple[int, int]:
    return (LOAD_WORD, ARGUMENTS_AT + 8 * index + 4 * high)


def program(machine: str, users: int = 0) -> tuple[bytes, int]:
    """The filter as classic BPF, and where in it the first user's number is subtracted (0: it lets no user change).

    setresuid is let through where all three users are the same, one of ``users`` in a row, and the fourth argument,
    which the call itself ignores, is that user's ticket. Tickets are zero here; see `ticket_places`.

    Raises:
        KeyError: the machine's system calls are not listed here.
    """
    audit, denied, clone, setresuid, mmap, socketpair, prctl_call = _MACHINES[machine]
    lines: list[tuple[int, ...]] = [
        (LOAD_WORD, MACHINE_AT), (JUMP_EQUAL, audit, 1, 0), DENY,
        (LOAD_WORD, NUMBER_AT), (JUMP_AT_LEAST, X32_CALLS, 0, 1), DENY,
        (JUMP_EQUAL, CLONE3, 0, 1), (RETURN, RETURN_ENOSYS),
        (JUMP_EQUAL, clone, 0, 4), _argument(0), (JUMP_ANY_BIT, NEW_NAMESPACES, 1, 0), ALLOW, DENY,
    ]  # fmt: skip
    lines += [
        (JUMP_EQUAL, mmap, 0, 5), _argument(3), (JUMP_ANY_BIT, MAP_ANONYMOUS, 0, 1), (JUMP_ANY_BIT, MAP_SHARED, 1, 0),
        ALLOW, DENY,
    ]  # fmt: skip
    lines += [
        (JUMP_EQUAL, socketpair, 0, 8), _argument(0), (JUMP_EQUAL, AF_UNIX, 0, 5),
        _argument(1), (AND, SOCK_KINDS), (JUMP_EQUAL, SOCK_STREAM, 1, 0), (JUMP_EQUAL, SOCK_SEQPACKET, 0, 1),
        ALLOW, DENY,
        (JUMP_EQUAL, prctl_call, 0, 6), _argument(0), (JUMP_EQUAL, PR_SET_DUMPABLE, 0, 2),
        _argument(1), (JUMP_EQUAL, 0, 1, 0), ALLOW, DENY,
    ]  # fmt: skip
    for number in sorted(denied.values()):
        lines += [(JUMP_EQUAL, number, 0, 1), DENY]
    lines += [
        (JUMP_EQUAL, setresuid, 1, 0), ALLOW,
        _argument(0), (STORE, 0), (LOAD_X, 0),
        _argument(1), (JUMP_EQUAL_X, 0, 1, 0), DENY,
        _argument(2), (JUMP_EQUAL_X, 0, 1, 0), DENY,
        (LOAD_STORED, 0), (SUBTRACT, 0),
    ]  # fmt: skip
    first_at = len(lines) * INSTRUCTION - 4
    for index in range(users):
        lines += [
            (JUMP_EQUAL, index, 0, 6),
            _argument(3), (JUMP_EQUAL, 0, 0, 3),
            _argument(3, high=True), (JUMP_EQUAL, 0, 0, 1),
            ALLOW, DENY,
        ]  # fmt: skip
    lines.append(DENY)
    code = b"".join(struct.pack("=HBBI", code, *(jumps or [0, 0]), operand) for code, operand, *jumps in lines)
    return code, first_at


def ticket_places(first_at: int, user: int) -> tuple[int, int]:
    """Where in the program the low and the high half of a user's ticket stand, four bytes each."""
    entry = first_at + 4 + user * 7 * INSTRUCTION
    return entry + 2 * INSTRUCTION + 4, entry + 4 * INSTRUCTION + 4


@functools.cache
def prepare(users: int) -> tuple[bytes, int] | None:
    """`program` for this machine, computed once, before the fork; None on a machine that is not listed."""
    return program(platform.machine(), users) if platform.machine() in _MACHINES else None


def install(first: int, users: int, publish: Callable[[bytearray], object]) -> None:
    """Install the filter in this thread and all that it starts. On a machine that is not listed, do nothing.

    Makes a ticket for each of the ``users`` from ``first`` on, hands them all to ``publish``, and wipes its own copy:
    what comes later in this process cannot find them in its memory.

    Raises:
        OSError: the Linux kernel refuses.
    """
    prepared = prepare(users)
    if prepared is None:
        return
    code, first_at = prepared
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    buffer = ctypes.create_string_buffer(code, len(code))
    view = memoryview(buffer).cast("B")
    if users:
        struct.pack_into("=I", view, first_at, first)
        tickets = bytearray(users * TICKET)
        with open("/dev/urandom", "rb", buffering=0) as source:
            source.readinto(tickets)
        halves = memoryview(tickets)
        for user in range(users):
            low, high = ticket_places(first_at, user)
            view[low : low + 4] = halves[user * TICKET : user * TICKET + 4]
            view[high : high + 4] = halves[user * TICKET + 4 : (user + 1) * TICKET]
        publish(tickets)
        ctypes.memset((ctypes.c_char * len(tickets)).from_buffer(tickets), 0, len(tickets))
    # struct sock_fprog: a count of instructions, padding, a pointer
    header = struct.pack("=H6xQ", len(code) // INSTRUCTION, ctypes.addressof(buffer))
    pointer = ctypes.create_string_buffer(header, len(header))
    try:
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(pointer))
    finally:
        ctypes.memset(buffer, 0, len(code))
