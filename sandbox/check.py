"""The self-check: asks, from inside a kernel, whether each wall stands. What cannot be shown counts as broken."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from sandbox.docker_launcher import SHARING
from sandbox.errors import SandboxError, SessionClosedError
from sandbox.result import RunStatus
from sandbox.sandbox import Sandbox

PROBE = """
import ctypes, json, os, resource, socket

def interfaces():
    with open("/proc/net/dev") as file:
        return sorted(line.split(":")[0].strip() for line in file if ":" in line)

def writable(path):
    try:
        with open(os.path.join(path, ".probe"), "w"):
            os.unlink(os.path.join(path, ".probe"))
        return True
    except OSError:
        return False

def denied(*names):
    libc = ctypes.CDLL(None, use_errno=True)
    left = []
    for name, arguments in names:
        ctypes.set_errno(0)
        if getattr(libc, name)(*arguments) != -1 or ctypes.get_errno() != 1:
            left.append(name)
    return left

def no_socket(family):
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
    except OSError:
        return True
    return False

def outside_profile():
    # io_setup, with arguments that the call itself would find invalid: no filter but the container's forbids it.
    number = {"x86_64": 206, "aarch64": 0}.get(os.uname().machine)
    libc = ctypes.CDLL(None, use_errno=True)
    return number is not None and libc.syscall(number, 0, None) == -1 and ctypes.get_errno() == 1

def cgroup(*paths):
    for path in paths:
        try:
            with open("/sys/fs/cgroup/" + path) as file:
                return file.read().strip()
        except OSError:
            continue
    return "unknown"

status = {name: value.strip() for name, _, value in (line.partition(":") for line in open("/proc/self/status"))}
mounts = [line.split() for line in open("/proc/self/mounts")]
print(json.dumps({
    "uid": os.getuid(), "groups": os.getgroups(), "gid": os.getgid(),
    "capabilities": status["CapEff"], "permitted": status["CapPrm"], "profile": outside_profile(),
    "kernel": " ".join(os.uname()[2:4]),
    "allowed": denied(
        ("ptrace", (99, 0, 0, 0)), ("memfd_create", (b"x", 0)), ("unshare", (0x10000000,)), ("setuid", (os.getuid(),)),
        ("setresuid", (os.getuid() + 1,) * 3),
    ),
    "no_new_privileges": ctypes.CDLL(None).prctl(39, 0, 0, 0, 0),
    "interfaces": interfaces(), "no_sockets": no_socket(socket.AF_INET) and no_socket(socket.AF_UNIX),
    "root_writable": any(writable(path) for path in ("/", "/etc", "/usr", "/var", "/opt", "/root")),
    "read_only": any(mount[1] == "/" and "ro" in mount[3].split(",") for mount in mounts),
    "unsized": [
        mount[1] for mount in mounts if writable(mount[1]) and not (mount[2] == "tmpfs" and "size=" in mount[3])
    ],
    "memory": resource.getrlimit(resource.RLIMIT_DATA)[1], "processes": resource.getrlimit(resource.RLIMIT_NPROC)[1],
    "file": resource.getrlimit(resource.RLIMIT_FSIZE)[1], "files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    "container_memory": cgroup("memory.max", "memory/memory.limit_in_bytes"),
    "container_processes": cgroup("pids.max", "pids/pids.max"),
    "environment": sorted(os.environ), "sockets": os.access("/ipc", os.R_OK | os.X_OK),
}))
"""
SPY = """
import os
read = []
for path in ("mem", "cwd/marker", "root/etc/passwd"):
    try:
        if os.getpid() != PID:
            open(f"/proc/PID/{path}", "rb").close()
            read.append(path)
    except OSError:
        pass
print(read)
"""
ALLOWED_ENVIRONMENT = {
    "HOME", "LANG", "LC_ALL", "LOGNAME", "MKL_NUM_THREADS", "MPLBACKEND", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "PATH", "PYTHONHASHSEED", "TMPDIR", "TZ", "USER",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One wall, and what was seen of it."""

    wall: str
    holds: bool
    seen: str


async def check_isolation(sandbox: Sandbox) -> list[Finding]:
    """Probe a fresh kernel of ``sandbox``, and its neighbour.

    Raises:
        SandboxError: no kernel could be had, or the probe did not come back: nothing is known.
    """
    async with await sandbox.session() as session, await sandbox.session() as neighbour:
        run = await session.run(PROBE)
        if run.status is not RunStatus.OK:
            raise SandboxError(f"the probe did not run: {run.error}")
        seen = json.loads(run.stdout)
        other = await neighbour.run("import os; open('marker', 'w').close(); print(os.getuid(), os.getpid())")
        other_uid, other_pid = (int(word) for word in other.stdout.split())
        spying = await session.run(SPY.replace("PID", str(other_pid)))
        # In a container of its own a neighbour's number may be the spy's.
        await session.run(f"if os.getpid() != {other_pid}: os.kill({other_pid}, 9)")
        try:
            survived = (await neighbour.run("1")).result == "1"
        except SessionClosedError:
            survived = False
    unlimited = {"-1", "max", "unknown"}
    return [
        Finding("no network", set(seen["interfaces"]) <= {"lo"}, " ".join(seen["interfaces"])),
        Finding("no sockets", seen["no_sockets"], ""),
        Finding("not root", seen["uid"] != 0 and 0 not in [seen["gid"], *seen["groups"]], f"user {seen['uid']}"),
        # CAP_SETUID may be had, and does nothing without a ticket: see sandbox.guest.users.
        Finding(
            "no capabilities",
            int(seen["capabilities"], 16) == 0 and int(seen["permitted"], 16) in (0, 1 << 7),
            f"{seen['capabilities']}, permitted {seen['permitted']}",
        ),
        Finding("no new privileges", seen["no_new_privileges"] == 1, str(seen["no_new_privileges"])),
        _kernel_wall(sandbox, seen),
        Finding("own seccomp filter", not seen["allowed"], " ".join(["allowed:", *seen["allowed"]])),
        Finding(
            "read-only root", seen["read_only"] and not seen["root_writable"], "" if seen["read_only"] else "writable"
        ),
        Finding("writable mounts are sized", not seen["unsized"], ", ".join(seen["unsized"])),
        Finding("memory limit", 0 < seen["memory"] < 1 << 36, f"{seen['memory'] >> 20} MiB"),
        Finding("process limit", 0 < seen["processes"] <= 4096, str(seen["processes"])),
        Finding("file size limit", 0 < seen["file"] < 1 << 40, f"{seen['file'] >> 20} MiB"),
        Finding("container memory limit", _is_limit(seen["container_memory"], unlimited), seen["container_memory"]),
        Finding(
            "container process limit", _is_limit(seen["container_processes"], unlimited), seen["container_processes"]
        ),
        Finding(
            "clean environment", set(seen["environment"]) <= ALLOWED_ENVIRONMENT, f"{len(seen['environment'])} names"
        ),
        Finding("sockets out of reach", not seen["sockets"], ""),
        Finding(
            "own user per kernel",
            seen["uid"] != other_uid or sandbox.isolation == "kernel",
            f"{seen['uid']}, {other_uid}",
        ),
        Finding("neighbour's memory and files", spying.stdout == "[]\n", spying.stdout.strip()),
        Finding("neighbour's life", survived, ""),
    ]


def _kernel_wall(sandbox: Sandbox, seen: dict[str, Any]) -> Finding:
    """What stands between the guest's system calls and the host's Linux kernel."""
    if sandbox.runtime in (None, *SHARING):
        return Finding("container's seccomp profile", seen["profile"], "")
    host = " ".join(os.uname()[2:4])
    return Finding(f"a kernel of its own ({sandbox.runtime})", seen["kernel"] != host, seen["kernel"])


def _is_limit(value: str, unlimited: set[str]) -> bool:
    return value not in unlimited and value.isdigit() and int(value) < 1 << 50
