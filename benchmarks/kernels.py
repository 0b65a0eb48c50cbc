"""A fresh kernel of ours against a stock one: start, round trip, memory. Both sides in one run.

    python benchmarks/kernels.py [--backend local|docker] [--count 30]

The stock side is an ipykernel, started and awaited by `jupyter_client` as its documentation says, that then imports
what ours has imported (numpy, sympy, scipy). Its last line is one JSON object; times are medians in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager

from sandbox import Sandbox

IMPORTS = "import numpy, sympy, scipy.stats, scipy.optimize"


def pss_mib(pids: list[int]) -> float:
    """Proportional set size of processes, MiB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024 / len(pids)


async def ours(backend: str, count: int) -> dict[str, float | None]:
    starts, cells, sessions, pids = [], [], [], []
    async with Sandbox(backend, sessions=1024) as sandbox:
        for _ in range(count):
            begun = time.perf_counter()
            session = await sandbox.session()
            await session.run(IMPORTS)
            starts.append(time.perf_counter() - begun)
            sessions.append(session)
        for _ in range(300):
            begun = time.perf_counter()
            await sessions[0].run("pass")
            cells.append(time.perf_counter() - begun)
        for session in sessions:
            pids.append(int((await session.run("import os; os.getpid()")).result or 0))
        # In a container the kernels have pids of their own, and other users: their memory cannot be read from here.
        memory = round(pss_mib(pids), 1) if backend == "local" else None
        await asyncio.gather(*(session.close() for session in sessions))
    return {"start_ms": _median(starts), "cell_ms": _median(cells), "pss_mib": memory}


async def stock(count: int) -> dict[str, float]:
    starts, cells, managers = [], [], []
    for _ in range(count):
        begun = time.perf_counter()
        manager = AsyncKernelManager(kernel_name="python3")
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        await client.execute_interactive(IMPORTS, timeout=60)
        starts.append(time.perf_counter() - begun)
        managers.append((manager, client))
    for _ in range(300):
        begun = time.perf_counter()
        await managers[0][1].execute_interactive("pass", timeout=60)
        cells.append(time.perf_counter() - begun)
    memory = round(pss_mib([manager.provisioner.pid for manager, _ in managers]), 1)
    for manager, client in managers:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
    return {"start_ms": _median(starts), "cell_ms": _median(cells), "pss_mib": memory}


def _median(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1000, 2)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", default="local", choices=["local", "docker"])
    parser.add_argument("--count", type=int, default=30)
    options = parser.parse_args()
    mine = await ours(options.backend, options.count)
    theirs = await stock(min(options.count, 8))
    ratios = {name: round(theirs[name] / mine[name], 1) for name in mine if mine[name] is not None}
    print(json.dumps({"backend": options.backend, "ours": mine, "stock": theirs, "times_better": ratios}))


asyncio.run(main())
