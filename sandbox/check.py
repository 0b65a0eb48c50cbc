"""The self-check: asks, from inside a kernel, whether each wall stands. What cannot be shown counts as broken."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sandbox.errors import SandboxError
from sandbox.result import RunStatus
from sandbox.sandbox import Sandbox

PROBE = """
import ctypes, json, os, resource, socket

def reachable():
    # Connecting a datagram socket sends nothing: it only asks for a route.
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))
    except OSError as error:
        return error.strerror or str(error)
    return "there is a route"

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
    "capabilities": status["CapEff"], "seccomp": status["Seccomp"],
    "filters": int(status.get("Seccomp_filters", 0)),
    "allowed": denied(("ptrace", (99, 0, 0, 0)), ("memfd_create", (b"x", 0)), ("unshare", (0x10000000,))),
    "no_new_privileges": status["NoNewPrivs"],
    "interfaces": sorted(name for _, name in socket.if_nameindex()), "connect": reachable(),
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
        other = await neighbour.run("import os; print(os.getuid(), os.getpid())")
        other_uid, other_pid = (int(word) for word in other.stdout.split())
        spying = await session.run(
            f"open('/proc/{other_pid}/mem', 'rb').close(); open('/proc/{other_pid}/environ').read()"
        )
        killing = await session.run(f"import os; os.kill({other_pid}, 9)")
    unlimited = {"-1", "max", "unknown"}
    return [
        Finding("no network", seen["interfaces"] == ["lo"] and seen["connect"] != "there is a route", seen["connect"]),
        Finding("not root", seen["uid"] != 0 and 0 not in [seen["gid"], *seen["groups"]], f"user {seen['uid']}"),
        Finding("no capabilities", int(seen["capabilities"], 16) == 0, seen["capabilities"]),
        Finding("no new privileges", seen["no_new_privileges"] == "1", seen["no_new_privileges"]),
        # One filter is ours, whatever the engine does: only a second one shows that the engine's is in force.
        Finding("engine's seccomp filter", seen["filters"] >= 2, f"{seen['filters']} filters, mode {seen['seccomp']}"),
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
        Finding("own user per kernel", seen["uid"] != other_uid, f"{seen['uid']}, {other_uid}"),
        Finding("neighbour's memory", spying.error is not None and spying.error.name == "PermissionError", ""),
        Finding("neighbour's life", killing.error is not None and killing.error.name == "PermissionError", ""),
    ]


def _is_limit(value: str, unlimited: set[str]) -> bool:
    return value not in unlimited and value.isdigit() and int(value) < 1 << 50
