"""Who fills the directories that all kernels of a container write to, so that it ends before the others notice.

A kernel may take an eighth of each writable mount, in bytes and in files. Mounts know how full they are, but not by
whom; that is measured only when one is fuller than that. The server, though root, may not look into the directories
of others, so a process of its own looks with the eyes of one user after the other.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
from collections.abc import Iterator
from typing import NoReturn

from sandbox.guest import confine, processes
from sandbox.guest.processes import WRITABLE

SHARE = 8
"""One kernel's part of a mount is its size divided by this."""
MEASURING_DEADLINE = 2.0
"""Seconds for measuring one user. Whose files take longer has made too much of them."""


def crowded() -> bool:
    """Whether some mount is fuller than one kernel may make it."""
    for path in WRITABLE:
        mount = os.statvfs(path)
        if (mount.f_blocks - mount.f_bfree) * SHARE > mount.f_blocks:
            return True
        if mount.f_files and (mount.f_files - mount.f_ffree) * SHARE > mount.f_files:
            return True
    return False


def start_measuring(users: list[tuple[int, int]]) -> tuple[int, int]:
    """Fork a process that writes, for each user (and group) in turn, a line when it begins and a line when it knows.

    Returns its pid and where to read the lines; see `offenders`. Raises `OSError`.
    """
    read, write = os.pipe2(os.O_NONBLOCK)
    try:
        pid = os.fork()
    except OSError:
        os.close(read)
        os.close(write)
        raise
    if pid == 0:
        _measure(users, write)
    os.close(write)
    return pid, read


def offenders(said: bytes, *, late: bool) -> list[int]:
    """The users who have more than their part, from what the measuring process has said.

    ``late``: it was at one user for longer than its deadline. If it has ended by itself, that user is not to blame.
    """
    found, begun = [], None
    for line in said.splitlines():
        user, too_much = json.loads(line)
        begun = user if too_much is None else None
        if too_much:
            found.append(user)
    return [*found, begun] if late and begun is not None else found


def _measure(users: list[tuple[int, int]], pipe: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
        libc = ctypes.CDLL(None)
        mounts = [(path, os.statvfs(path)) for path in WRITABLE]
        for user, group in users:
            os.write(pipe, json.dumps([user, None]).encode() + b"\n")
            libc.setfsgid(group)
            libc.setfsuid(user)
            too_much = any(_has_too_much(path, mount, user) for path, mount in mounts)
            libc.setfsuid(0)
            libc.setfsgid(0)
            os.write(pipe, json.dumps([user, too_much]).encode() + b"\n")
    finally:
        os._exit(0)


def _has_too_much(top: str, mount: os.statvfs_result, user: int) -> bool:
    size = 0
    for files, about in enumerate(_files(top, user), start=1):
        size += about.st_blocks * 512
        if size * SHARE > mount.f_blocks * mount.f_frsize or (mount.f_files and files * SHARE > mount.f_files):
            return True
    return False


def _files(top: str, user: int) -> Iterator[os.stat_result]:
    """The files of one user on the file system at ``top``, with those that are deleted but still open."""
    for _, about in processes.walk(top, user, inside=True):
        yield about
    device, seen = os.stat(top).st_dev, set()
    for pid, process in processes.table().items():
        for number in _descriptors(pid) if process.uid == user else []:
            try:
                about = os.stat(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue
            if about.st_dev == device and not about.st_nlink and about.st_ino not in seen:
                seen.add(about.st_ino)
                yield about


def _descriptors(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []
