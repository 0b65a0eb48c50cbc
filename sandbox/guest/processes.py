"""Which processes belong to a kernel, how much they use, and how to end every one of them.

With a user of its own (container) a kernel's processes are all of that user's. Without one (local backend)
they are its descendants: every kernel is a *child subreaper*, so what it or its children leave behind stays
below it, and below the server once the kernel itself is gone.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from sandbox.guest.users import become_for_good

WRITABLE = ("/tmp", "/dev/shm")
"""The directories a kernel's user can write to in the container."""


class Process(NamedTuple):
    """One line of the process table."""

    parent: int
    uid: int
    memory_kib: int
    threads: int
    zombie: bool


def table() -> dict[int, Process]:
    """Every process in this pid namespace, by pid."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := one(int(name))):
            found[int(name)] = process
    return found


def one(pid: int) -> Process | None:
    """One process; None if there is none."""
    try:
        fields = _status(f"/proc/{pid}/status")
        if int(fields["Tgid"]) != pid:
            return None  # a thread, which is found under its number, too
        if fields["State"].strip()[0] in "ZX" and int(fields.get("Threads", "1")) > 1:
            # Its first thread has ended; the others live on, and with them its memory.
            others = [name for name in os.listdir(f"/proc/{pid}/task") if name != str(pid)]
            fields |= _status(f"/proc/{pid}/task/{others[0]}/status")
        # gVisor tells only the sum. What a kernel shares with the server is taken off elsewhere, in both.
        parts = ("RssAnon", "RssShmem") if "RssAnon" in fields else ("VmRSS",)
        return Process(
            parent=int(fields["PPid"]),
            uid=int(fields["Uid"].split()[0]),
            memory_kib=sum(int(fields.get(key, "0").split()[0]) for key in parts),
            threads=int(fields.get("Threads", "1")),
            zombie=fields["State"].strip()[0] in "ZX",
        )
    except (OSError, IndexError, KeyError, ValueError):
        return None  # it has ended while we looked


def _status(path: str) -> dict[str, str]:
    # A process chooses its own name, and gVisor does not escape a line break in it: the name comes first, and of a
    # field that is there twice the last counts, so that nothing can be forged by it.
    with open(path, errors="replace") as status:
        return dict(line.split(":", 1) for line in status if ":" in line)


def below(root: int, processes: dict[int, Process]) -> list[int]:
    """The pids of ``root``'s living descendants, without ``root``."""
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found, queue = [], [root]
    while queue:
        for pid in children.get(queue.pop(), []):
            queue.append(pid)
            if not processes[pid].zombie:
                found.append(pid)
    return found


def children(pid: int) -> list[int]:
    """The children of one process, zombies included. Much cheaper than reading the whole table."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as listing:
                found += map(int, listing.read().split())
    except OSError:
        # The process is gone, or its threads come and go, or this kernel does not keep the list.
        return [child for child, process in table().items() if process.parent == pid]
    return found


def living_children(pid: int) -> list[int]:
    """The children of one process, without zombies."""
    found = []
    for child in children(pid):
        try:
            with open(f"/proc/{child}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                    found.append(child)
        except OSError:
            continue  # it has just ended
    return found


def signal_process(pid: int, number: int) -> None:
    """Send a signal; a process that is gone already is none of our trouble."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill_below(root: int) -> None:
    """Stop, then kill all descendants of ``root``, until none is left."""
    for _ in range(100):
        pids = below(root, table()) if children(root) else []
        if not pids:
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                signal_process(pid, number)


def kill_orphans(known: set[int | None]) -> None:
    """Kill our children that are not ``known``: left behind by a kernel that died, they have become ours."""
    for pid in children(os.getpid()):
        if pid not in known:
            kill_below(pid)
            signal_process(pid, signal.SIGKILL)


def wipe_user(uid: int) -> NoReturn:
    """Become ``uid``, kill all its processes and delete all its files. For a forked child.

    Its exit status is 0 if nothing is left.
    """
    status = 1
    try:
        # As root first, whom it cannot stop; then as the user, whose processes one call reaches all at once.
        for _ in range(3):
            for pid in [pid for pid, process in table().items() if process.uid == uid]:
                signal_process(pid, signal.SIGKILL)
        become_for_good(uid)
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass  # there was none left
        remove(_files_of(uid))
        status = 1 if _files_of(uid) else 0
    finally:
        os._exit(status)


FOREIGN_DEPTH, FOREIGN_ENTRIES = 4, 2000
"""How deep, and for how many entries, is looked into directories of others, where a user may have left something."""


def walk(top: str, uid: int, *, inside: bool) -> Iterator[tuple[str, os.stat_result]]:
    """What belongs to ``uid`` below ``top``: path and status of each. Whatever others have made costs little.

    Args:
        inside: go on below the user's own directories, or not.
    """
    waiting = deque([(top, 0)])
    foreign = 0
    while waiting:
        folder, depth = waiting.pop()
        for entry in _entries(folder):
            try:
                about = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # a neighbour's, that has just been removed
            mine = about.st_uid == uid
            if mine:
                yield entry.path, about
            elif foreign >= FOREIGN_ENTRIES:
                continue
            foreign += not mine
            if stat.S_ISDIR(about.st_mode) and (inside if mine else depth < FOREIGN_DEPTH):
                if mine and about.st_mode & 0o700 != 0o700:
                    _let_in(entry.path)
                waiting.append((entry.path, depth + (not mine)))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return list(listing)
    except OSError:
        return []


def _let_in(folder: str) -> None:
    """Make a directory of this user's readable to it, which it has closed to be overlooked."""
    try:
        os.chmod(folder, 0o700)
    except OSError:
        pass  # it has gone, or its path is longer than a path may be


def _files_of(uid: int) -> list[str]:
    """The topmost files and directories of a user, also those in directories that others left open to it."""
    return [path for top in WRITABLE for path, _ in walk(top, uid, inside=False)]


def remove(paths: list[str]) -> None:
    """Delete files and directories, whatever a hostile guest has made of them."""
    left = [path for path in paths if not _removed(path)]
    for start in range(0, len(left), 100):
        # Trees deeper than a path is long, directories nobody may enter.
        script = 'chmod -R u+rwx -- "$@"; rm -rf -- "$@"'
        command = ["/bin/sh", "-c", script, "sh", *left[start : start + 100]]
        subprocess.run(command, check=False, timeout=60, stderr=subprocess.DEVNULL)


def _removed(path: str) -> bool:
    try:
        if not os.path.lexists(path):
            return True
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except (OSError, RecursionError):
        return False
    return True
