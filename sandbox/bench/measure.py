"""The figures of our own kernels, and how each grows with the number of kernels that are alive."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sandbox.host import FolderHost
from sandbox.sandbox import Sandbox
from sandbox.session import Session

IMPORTS = "import numpy, sympy, scipy.stats, scipy.optimize"
CELLS = 300
"""Round trips whose median and 99th percentile are taken."""
LOAD_SECONDS = 1.5
"""How long cells are run one after the other, in several kernels at once, for the throughput."""
KERNELS_UNDER_LOAD = 8
TICKS = os.sysconf("SC_CLK_TCK")


async def timed(work: Callable[[], Coroutine[Any, Any, Any]], times: int) -> list[float]:
    """How long ``work`` takes, each of so many times, milliseconds."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        await work()
        took.append((time.perf_counter() - begun) * 1000)
    return took


def median(values: list[float]) -> float:
    """The median, rounded as it is printed."""
    return round(statistics.median(values), 3)


def percentile_99(values: list[float]) -> float:
    """The 99th percentile; of few values, the largest."""
    return round(sorted(values)[min(len(values) - 1, int(len(values) * 0.99))], 3)


def cpu_seconds(pids: list[int]) -> float:
    """CPU time that living processes have used, in user and in system mode."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it was no kernel, but the server's short-lived helper
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def pss_mib(pids: list[int]) -> float | None:
    """Proportional set size, the mean of those processes that live, MiB; None where we may not see it."""
    sizes = []
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            return None
        sizes += [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
    return round(sum(sizes) / 1024 / len(sizes), 2) if sizes else None


def descendants(root: int) -> list[int]:
    """The processes below ``root``, as this machine numbers them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def server_pids(sandbox: Sandbox) -> list[int] | None:
    """The kernel servers' processes, as this machine numbers them; None inside gVisor, where they are none of ours."""
    if sandbox.backend == "docker":
        if sandbox.runtime not in (None, "runc"):
            return None
        from sandbox.docker_launcher import container_pid

        return [container_pid(server.name) for server in sandbox.servers]
    hosts = [server.host for server in sandbox.servers]
    return [host.process_id for host in hosts if isinstance(host, FolderHost) and host.process_id]


def memory_per_kernel(sandbox: Sandbox, servers: list[int], kernels: list[int]) -> float | None:
    """PSS, MiB. The kernel server is not counted where all kernels have it in common, and is where each has its own."""
    counted = kernels + (servers if sandbox.isolation == "kernel" else [])
    mean = pss_mib(counted)
    return None if mean is None or not kernels else round(mean * len(counted) / len(kernels), 2)


async def throughput(sessions: list[Session], pids: list[int] | None) -> float | None:
    """Trivial cells per second of CPU time, client, server and kernels together."""
    if pids is None:
        return None
    mine = [os.getpid(), *pids]
    before, cells, end = cpu_seconds(mine), 0, time.perf_counter() + LOAD_SECONDS

    async def work(session: Session) -> None:
        nonlocal cells
        while time.perf_counter() < end:
            await session.run("pass")
            cells += 1

    await asyncio.gather(*(work(session) for session in sessions[:KERNELS_UNDER_LOAD]))
    return round(cells / max(cpu_seconds(mine) - before, 1 / TICKS), 1)


async def at(sandbox: Sandbox, sessions: list[Session], count: int) -> dict[str, Any]:
    """Open sessions until ``count`` are alive, and measure there."""

    async def fresh() -> None:
        session = await sandbox.session()
        await session.run(IMPORTS)
        sessions.append(session)

    starts = await timed(fresh, count - len(sessions))
    while len(starts) < 5:  # too few to tell: more, which do not stay
        starts += await timed(fresh, 1)
        await sessions.pop().close()
    servers = await asyncio.to_thread(server_pids, sandbox)
    kernels = [pid for server in servers or [] for pid in await asyncio.to_thread(descendants, server)]
    memory = None if servers is None else await asyncio.to_thread(memory_per_kernel, sandbox, servers, kernels)
    await sessions[0].run("pass")
    cells = await timed(lambda: sessions[0].run("pass"), CELLS)
    return {
        "kernels": count,
        "fresh_ms": median(starts),
        "fresh_p99_ms": percentile_99(starts),
        "cell_ms": median(cells),
        "cell_p99_ms": percentile_99(cells),
        "cells_per_s_per_core": await throughput(sessions, None if servers is None else servers + kernels),
        "pss_mib": memory,
    }


async def growth(make: Callable[..., Sandbox], counts: list[int]) -> list[dict[str, Any]]:
    """`at` each of ``counts`` living kernels, in rising order."""
    sessions: list[Session] = []
    async with make(ready=0, sessions=max(counts) + 8) as sandbox:
        found = [await at(sandbox, sessions, count) for count in sorted(counts)]
        await asyncio.gather(*(session.close() for session in sessions))
    return found


async def pooled(make: Callable[..., Sandbox], times: int = 30) -> float:
    """Taking a kernel that was kept ready and running its first cell, median, milliseconds."""
    took = []
    async with make(ready=4) as sandbox:
        for _ in range(times):
            async with asyncio.timeout(60):
                while sandbox.ready < 4:  # noqa: ASYNC110 - nobody but this benchmark needs to be told
                    await asyncio.sleep(0.01)
            begun = time.perf_counter()
            session = await sandbox.session()
            await session.run(IMPORTS)
            took.append((time.perf_counter() - begun) * 1000)
            await session.close()
    return median(took)


async def forked(make: Callable[..., Sandbox], times: int = 20) -> float:
    """`Session.fork`, median, milliseconds."""
    async with make(ready=0) as sandbox, await sandbox.session() as session:
        await session.run(IMPORTS)

        async def fork() -> None:
            await (await session.fork()).close()

        return median(await timed(fork, times))
