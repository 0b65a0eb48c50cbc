"""Who made a container or a directory, so that the next start can remove what a killed process left behind."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from sandbox.errors import SandboxUnavailableError
from sandbox.guest.processes import remove

PREFIX = "genprm-"
OWNER_FILE = "owner"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip() or socket.gethostname()
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """The start time of a process in clock ticks since boot (field 22 of its stat), None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def identity() -> str:
    """This process, in words that no other process ever shares: machine, boot, pid namespace, pid, start time."""
    pid = os.getpid()
    return f"{_machine_id()}:{_boot_id()}:{os.stat('/proc/self/ns/pid').st_ino}:{pid}:{_started(pid)}"


def is_gone(owner: str) -> bool:
    """Whether the process with that `identity` is known to have ended.

    False where it cannot be known: another machine, of those that share an engine, or another pid namespace of the same
    boot may hold a living owner.
    """
    try:
        machine, boot, namespace, pid, started = owner.split(":")
    except ValueError:
        return False
    if machine != _machine_id():
        return False
    if boot != _boot_id():
        return True
    if namespace != str(os.stat("/proc/self/ns/pid").st_ino):
        return False
    return _started(int(pid)) != started


def make_directory() -> Path:
    """A private directory with a path short enough for unix sockets, marked as ours.

    Raises:
        SandboxUnavailableError: it cannot be written.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
        (folder / OWNER_FILE).write_text(identity())
    except OSError as error:
        raise SandboxUnavailableError(f"no directory for sockets in /tmp: {error.strerror}") from error
    return folder


def remove_directory(folder: Path) -> None:
    """Delete a directory of ours, with whatever guests of the local backend have left in it."""
    # The mark goes last: where we are killed on the way, the next start still knows whose this was.
    remove([str(path) for path in folder.glob("*") if path.name != OWNER_FILE])
    remove([str(folder)])


def reap_directories() -> None:
    """Remove the directories whose owners have ended."""
    for mark in Path("/tmp").glob(f"{PREFIX}*/{OWNER_FILE}"):
        try:
            if mark.parent.stat().st_uid == os.getuid() and is_gone(mark.read_text()):
                remove_directory(mark.parent)
        except OSError:
            continue  # another start of ours is removing it at this moment
