"""A seccomp filter of our own, on top of the engine's: system calls that no honest check needs, and attacks do.

What each has been seen to do here: a traced kernel cannot be reaped by its server, memory in a memfd is not counted
for any process, message queues outlive their session. The others are the parts of the Linux kernel through which
sandboxes have been left before. A denied call fails with EPERM; the filter is inherited and cannot be taken off.
"""

from __future__ import annotations

import ctypes
import platform
import struct

from sandbox.guest.confine import prctl

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
RETURN_ALLOW = 0x7FFF0000
RETURN_EPERM = 0x00050000 | 1
LOAD_WORD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER_AT, MACHINE_AT = 0, 4  # offsets in struct seccomp_data

# machine -> (its audit code, system call numbers)
_MACHINES = {
    "x86_64": (0xC000003E, {
        "ptrace": 101, "syslog": 103, "mq_open": 240, "add_key": 248, "request_key": 249, "keyctl": 250,
        "unshare": 272, "perf_event_open": 298, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308,
        "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "memfd_create": 319, "bpf": 321,
        "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "pidfd_getfd": 438, "memfd_secret": 447,
    }),
    "aarch64": (0xC00000B7, {
        "unshare": 97, "syslog": 116, "ptrace": 117, "mq_open": 180, "add_key": 217, "request_key": 218,
        "keyctl": 219, "perf_event_open": 241, "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268,
        "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "memfd_create": 279, "bpf": 280,
        "userfaultfd": 282, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "pidfd_getfd": 438, "memfd_secret": 447,
    }),
}  # fmt: skip
X32_CALLS = 0x40000000
"""System calls of the x32 kind carry this bit, and would be other numbers for the same calls."""


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def program(machine: str) -> bytes:
    """The filter as classic BPF.

    Raises:
        KeyError: the machine's system calls are not listed here.
    """
    audit, calls = _MACHINES[machine]
    numbers = sorted(calls.values())
    lines = [
        _instruction(LOAD_WORD, MACHINE_AT),
        _instruction(JUMP_EQUAL, audit, 1, 0),
        _instruction(RETURN, RETURN_EPERM),
        _instruction(LOAD_WORD, NUMBER_AT),
        _instruction(JUMP_AT_LEAST, X32_CALLS, len(numbers) + 1, 0),
    ]
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        lines.append(_instruction(JUMP_EQUAL, number, left, 0))
    lines += [_instruction(RETURN, RETURN_ALLOW), _instruction(RETURN, RETURN_EPERM)]
    return b"".join(lines)


def deny_calls() -> None:
    """Install the filter in this thread and all that it starts. On a machine that is not listed, do nothing.

    Raises:
        OSError: the Linux kernel refuses.
    """
    if platform.machine() not in _MACHINES:
        return
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    code = program(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a count of instructions, padding, a pointer
    header = struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(buffer))
    pointer = ctypes.create_string_buffer(header, len(header))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(pointer))
