"""How full the container's memory is, and whom the Linux kernel has killed for it."""

from __future__ import annotations

from sandbox.guest.confine import OOM_SCORE

CROWDED = 0.7
"""The share of the container's memory from which on a kernel answers for all that its processes may hold."""


def container_memory() -> float:
    """The share of the container's memory that cannot be taken back; 0 where that is not told."""
    for limit, counted in (("memory.max", "memory.stat"), ("memory/memory.limit_in_bytes", "memory/memory.stat")):
        try:
            with open(f"/sys/fs/cgroup/{limit}") as file:
                most = int(file.read())  # "max": there is none
            with open(f"/sys/fs/cgroup/{counted}") as file:
                counts = dict(line.split() for line in file)
        except (OSError, ValueError):
            continue
        # What the two versions of cgroups call it; the rest can be taken back.
        return sum(int(counts.get(name, 0)) for name in ("anon", "rss", "shmem", "sock")) / most
    return 0.0


def oom_kills() -> int:
    """How often the container's memory limit has made the kernel kill a process; 0 where that is not told."""
    for path in ("memory.events", "memory/memory.oom_control"):
        try:
            with open(f"/sys/fs/cgroup/{path}") as file:
                counts = dict(line.split() for line in file)
        except (OSError, ValueError):
            continue
        return int(counts.get("oom_kill", 0))
    return 0


def may_be_spared(pid: int) -> bool:
    """Whether a kernel has lowered its score for the Linux kernel's out-of-memory killer. gVisor has no such thing."""
    try:
        with open(f"/proc/{pid}/oom_score_adj") as score:
            return int(score.read()) < OOM_SCORE
    except (OSError, ValueError):
        return False
