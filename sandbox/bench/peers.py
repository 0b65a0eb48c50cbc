"""The same figures of others: ipykernel here and in ``docker run``, llm-sandbox. What is not installed is None."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from sandbox.bench.measure import (
    CELLS,
    IMPORTS,
    LOAD_SECONDS,
    TICKS,
    cpu_seconds,
    median,
    percentile_99,
    pss_mib,
    timed,
)
from sandbox.owner import make_directory, remove_directory

DOCKERFILE = b"FROM %s\nRUN pip install --no-cache-dir ipykernel\nENTRYPOINT []\n"


async def _cells(client: AsyncKernelClient, pids: list[int]) -> dict[str, Any]:
    async def cell() -> None:
        await client.execute_interactive("pass", timeout=60)

    took = await timed(cell, CELLS)
    before, count, end = cpu_seconds([os.getpid(), *pids]), 0, time.perf_counter() + LOAD_SECONDS
    while pids and time.perf_counter() < end:
        await cell()
        count += 1
    used = cpu_seconds([os.getpid(), *pids]) - before
    return {
        "cell_ms": median(took),
        "cell_p99_ms": percentile_99(took),
        "cells_per_s_per_core": round(count / max(used, 1 / TICKS), 1) if pids else None,
        "pss_mib": pss_mib(pids) if pids else None,
    }


async def ipykernel(times: int = 5) -> dict[str, Any] | None:
    """ipykernel, started and awaited by jupyter_client as its documentation says, then our imports."""
    if importlib.util.find_spec("ipykernel") is None:
        return None
    managers: list[tuple[AsyncKernelManager, AsyncKernelClient]] = []

    async def start() -> None:
        manager = AsyncKernelManager(kernel_name="python3")
        await manager.start_kernel(stderr=subprocess.DEVNULL)
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        await client.execute_interactive(IMPORTS, timeout=60)
        managers.append((manager, client))

    try:
        starts = await timed(start, times)
        provisioner: Any = managers[0][0].provisioner
        found = await _cells(managers[0][1], [provisioner.pid])
        everyone = [manager.provisioner.pid for manager, _ in managers]  # type: ignore[union-attr]
        return {"cold_ms": median(starts), **found, "pss_mib": pss_mib(everyone)}
    finally:
        for manager, client in managers:
            client.stop_channels()
            await manager.shutdown_kernel(now=True)


async def ipykernel_in_docker(times: int = 3) -> dict[str, Any] | None:
    """``docker run`` of a stock ipykernel over unix sockets, without limits: from the command to our imports."""
    import io

    from sandbox.docker_launcher import connect_engine
    from sandbox.errors import SandboxUnavailableError
    from sandbox.image import build_image, image_tag

    try:
        engine = await asyncio.to_thread(connect_engine)
    except SandboxUnavailableError:
        return None
    await asyncio.to_thread(build_image, engine, lambda _line: None)
    dockerfile = io.BytesIO(DOCKERFILE % image_tag().encode())
    tag = image_tag().replace("sandbox", "bench")
    await asyncio.to_thread(lambda: engine.images.build(fileobj=dockerfile, tag=tag, rm=True))
    started: list[tuple[Any, AsyncKernelClient, Path]] = []

    async def start() -> None:
        folder = make_directory()
        client = AsyncKernelClient(transport="ipc", ip=str(folder / "k"), connection_file=str(folder / "c.json"))
        for port, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), start=1):
            setattr(client, f"{name}_port", port)
        client.session.key = b"key"
        client.write_connection_file()
        container = await asyncio.to_thread(
            lambda: engine.containers.run(
                tag, ["python", "-m", "ipykernel", "-f", str(folder / "c.json")], detach=True, auto_remove=True,
                volumes={str(folder): {"bind": str(folder), "mode": "rw"}},
            )
        )  # fmt: skip
        started.append((container, client, folder))
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        await client.execute_interactive(IMPORTS, timeout=60)

    try:
        starts = await timed(start, times)
        return {"cold_ms": median(starts), **await _cells(started[0][1], [])}
    finally:
        for container, client, folder in started:
            client.stop_channels()
            await asyncio.to_thread(container.remove, force=True)
            remove_directory(folder)
        engine.close()


async def llm_sandbox(times: int = 3) -> dict[str, Any] | None:
    """llm-sandbox: a session from an image that is there, then one ``print``. Its sessions keep no state."""
    if importlib.util.find_spec("llm_sandbox") is None:
        return None
    from llm_sandbox import SandboxSession

    def measure() -> tuple[list[float], list[float]]:
        starts, cells = [], []
        for _ in range(times):
            begun = time.perf_counter()
            with SandboxSession(lang="python", image="python:3.11-slim", skip_environment_setup=True) as session:
                session.run("print(1)")
                starts.append((time.perf_counter() - begun) * 1000)
                for _ in range(10):
                    begun = time.perf_counter()
                    session.run("pass")
                    cells.append((time.perf_counter() - begun) * 1000)
        return starts, cells

    try:
        starts, cells = await asyncio.to_thread(measure)
    except Exception as error:  # noqa: BLE001 - another project's failure is a finding, and no reason to end
        return {"failed": f"{type(error).__name__}: {error}"[:200]}
    return {"cold_ms": median(starts), "cell_ms": median(cells), "cell_p99_ms": percentile_99(cells)}
