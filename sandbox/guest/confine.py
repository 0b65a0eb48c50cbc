"""What a forked child does to itself before it becomes a kernel: its descriptors, its limits, its environment.

With users of its own (the container, see `sandbox.guest.users`) no other kernel may read a kernel's memory, files or
environment. Without them (the local backend) only the resource limits hold.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import random
import resource
import signal
import sys

MIB = 1 << 20
OOM_SCORE = 1000
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


@dataclasses.dataclass(frozen=True)
class KernelLimits:
    """The limits of one kernel. The server's own values are upper bounds for what a client may ask for."""

    memory_mib: int = 512
    """Memory that the kernel and its children may use beyond what the server shares with them, MiB."""
    processes: int = 32
    """Processes and threads of one kernel's user."""
    file_mib: int = 16
    """Size of the largest file it may write, MiB."""
    output_bytes: int = 65536
    """Text per cell, stdout, stderr and result together, bytes of UTF-8."""

    def clipped(self, asked: dict[str, int]) -> KernelLimits:
        """These limits, lowered (never raised) to what a client asked for."""
        names = [field.name for field in dataclasses.fields(self)]
        return KernelLimits(**{name: min(getattr(self, name), asked.get(name, 1 << 62)) for name in names})


def prctl(option: int, value: int, pointer: int = 0) -> None:
    """Call prctl(2); raises `OSError` where it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, ctypes.c_void_p(pointer), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def keep_only(descriptors: set[int]) -> None:
    """Point 0, 1 and 2 at /dev/null and close everything else but ``descriptors``."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        if number > 2 and number not in descriptors:
            try:
                os.close(number)
            except OSError:
                pass  # the descriptor that listed the directory


def set_limits(limits: KernelLimits, *, count_processes: bool) -> None:
    """Set the rlimits. Memory counts from what the process has mapped by now, which it shares with the server."""
    sizes = _mapped_bytes()
    for kind, used in ((resource.RLIMIT_DATA, sizes["VmData"]), (resource.RLIMIT_AS, sizes["VmSize"])):
        resource.setrlimit(kind, (used + limits.memory_mib * MIB,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_mib * MIB,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    resource.setrlimit(resource.RLIMIT_STACK, (8 * MIB, 8 * MIB))
    if count_processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (limits.processes,) * 2)
    # Past the file size limit a write fails with EFBIG, which Python shows, where the signal would kill.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _mapped_bytes() -> dict[str, int]:
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return {name: int(lines[name].split()[0]) * 1024 for name in ("VmData", "VmSize")}


def set_environment(home: str) -> None:
    """Replace the environment by an allow-list. Nothing of the server's is inherited but the search path."""
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    os.environ.clear()
    os.environ.update(
        {
            "PATH": path, "HOME": home, "TMPDIR": home, "USER": "guest", "LOGNAME": "guest", "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "agg",
        }
    )  # fmt: skip


def seed(number: int) -> None:
    """Begin the random numbers of `random` and `numpy.random` anew."""
    random.seed(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number % (1 << 32))


def remove_zero() -> None:
    """Remove ``/dev/zero`` where it is a container's own: mapped shared, it is memory that no limit counts."""
    with open("/proc/self/mounts") as mounts:
        if any(mount.split()[1:3] == ["/dev", "tmpfs"] for mount in mounts):
            with contextlib.suppress(FileNotFoundError):  # another server in this container was first
                os.unlink("/dev/zero")


def prefer_for_oom() -> None:
    """Let the kernel's out-of-memory killer take this process before the server."""
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write(str(OOM_SCORE))
