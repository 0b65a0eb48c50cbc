"""How a kernel forks: a second kernel that starts from the first one's Python state, and is its own from then on.

The process itself forks, so that everything Python holds is there: variables, imports, functions, open generators.
Its child is handed to the kernel server, becomes a user of its own, and gets a copy of the files in the home
directory. What two processes would go on to share, or only one of them would have, cannot be forked: see `obstacles`.
"""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import tarfile
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any

from sandbox.guest import confine, processes, tether, users
from sandbox.guest.channels import KINDS, Channels

FILE_BYTES = 64 << 20
"""Most bytes of files that a branch takes with it."""
ADOPTION_DEADLINE = 5.0
"""Seconds within which the kernel server must have become a branch's parent."""
ENDING = 0.5
"""Seconds for which the system may still show a thread that Python has joined: the one that sent a cell's text, say."""
REASON = 1000
"""Most characters of what is said of a failure, which must fit a message of the tether."""
HARMLESS = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}


@dataclass
class Branch:
    """What is new in the forked kernel."""

    channels: Channels
    key: bytes


class Obstacle(Exception):
    """The state of this kernel cannot be forked."""


def obstacles(own: set[int]) -> list[str]:
    """What forbids to fork this process. ``own`` are the descriptors that are the kernel's."""
    found = _live_threads()
    if processes.living_children(os.getpid()):
        found.append("live child processes")
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the descriptor that listed the directory
        if number in own or target in HARMLESS:
            continue
        kind = {"socket": "open socket", "pipe": "open pipe"}.get(target.partition(":")[0], "open file")
        found.append(f"{kind} ({target})")
    with open("/proc/self/maps") as maps:
        shared = [line.split() for line in maps]
    if any(fields[1].startswith("rw") and fields[1].endswith("s") for fields in shared):
        found.append("shared memory")
    return found


def _live_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    deadline = time.monotonic() + ENDING
    while len(os.listdir("/proc/self/task")) > 1:
        if names or time.monotonic() > deadline:
            return [f"live threads ({', '.join(names) or 'native'})"]
        time.sleep(0.001)
    return []


def make_branch(channels: Channels) -> Branch | None:
    """Do what the kernel server asks for. Returns twice: None in this kernel, the branch in the forked one."""
    try:
        request, descriptors = tether.receive(channels.tether, len(KINDS) + 1)
    except (OSError, ValueError):
        os._exit(1)  # the server is gone
    try:
        found = obstacles(channels.descriptors | set(descriptors))
        if found:
            raise Obstacle(", ".join(found))
        files = _pack(request["old_home"])
        state = random.getstate()
        if request["subreaper"]:
            confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 0)
        try:
            middle = os.fork()
            if middle == 0:
                _leave_orphan()
                return _become(channels, request["server"], descriptors, request["old_home"], files, state)
            _, status = os.waitpid(middle, 0)
        finally:
            if request["subreaper"]:
                confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 1)
        if status:
            raise Obstacle("no process left for another kernel")
        answer: dict[str, Any] = {"forked": True}
    except (Obstacle, OSError, MemoryError, RecursionError) as error:
        answer = {"refused": (str(error) or type(error).__name__)[:REASON]}
    for number in descriptors:
        os.close(number)
    tether.send(channels.tether, answer)
    return None


def _leave_orphan() -> None:
    """Fork once more and end, so that the child's parent will be the kernel server."""
    try:
        if os.fork():
            os._exit(0)
    except OSError:
        os._exit(1)


def _become(
    channels: Channels, server: int, descriptors: list[int], old_home: str, files: bytes, state: tuple[Any, ...]
) -> Branch:
    own = socket.socket(fileno=descriptors[-1])
    try:
        # What is the branch's alone, its ticket above all, comes on its own line: its origin must never have known it.
        request, _ = tether.receive(own)
        deadline = time.monotonic() + ADOPTION_DEADLINE
        while os.getppid() != server:
            if time.monotonic() > deadline:
                raise TimeoutError("the kernel server did not adopt the branch")
            time.sleep(0.0002)
        os.setsid()
        channels.close()
        if request["uid"] is not None:
            users.become_next(request["uid"], request["ticket"])
        confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
        if request["uid"] is None:
            confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 1)
        if os.getppid() != server:
            os._exit(1)
        _move(old_home, request["home"], files)
        _seed_again(state, request["seed"])
        listeners = [socket.socket(fileno=number) for number in descriptors[:-1]]
        branch = Branch(Channels(listeners, own), request["key"].encode())
        tether.send(own, {"ready": os.getpid()})
    except BaseException:  # noqa: BLE001 - the one place that can still tell the server why
        try:
            tether.send(own, {"failed": traceback.format_exc()[-REASON:]})
        finally:
            os._exit(1)
    return branch


def _pack(home: str) -> bytes:
    """The files below ``home``, as an archive; nothing if there are none."""
    if not os.path.isdir(home) or not os.listdir(home):
        return b""
    size = sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(home) for name in names)
    if size > FILE_BYTES:
        raise Obstacle(f"{size} bytes of files; at most {FILE_BYTES} can be taken along")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(home, ".")
    return buffer.getvalue()


def _move(old: str, new: str, files: bytes) -> None:
    """Make ``new`` the home directory, with those files, and change into the place that answers to the present one."""
    try:
        inside = os.path.relpath(os.getcwd(), old)
    except OSError:
        inside = "."
    os.umask(0o077)
    os.mkdir(new, 0o700)
    if files:
        with tarfile.open(fileobj=io.BytesIO(files)) as archive:
            # The guest's own files, among the guest's own files: as they are. Not every Python 3.11 has `filter=`.
            archive.extraction_filter = lambda member, _path: member
            archive.extractall(new)
        os.chmod(new, 0o700)
    for name in ("HOME", "TMPDIR"):
        if os.environ.get(name) == old:
            os.environ[name] = new
    if tempfile.tempdir == old:
        tempfile.tempdir = new
    try:
        os.chdir(new if inside.startswith("..") else os.path.join(new, inside))
    except OSError:
        os.chdir(new)


def _seed_again(state: tuple[Any, ...], seed: int | None) -> None:
    """Go on with the same random numbers, or from ``seed``. In a forked process Python itself has seeded `random`."""
    if seed is None:
        random.setstate(state)
    else:
        confine.seed(seed)
