"""The server under more requests than it can take: does it refuse in order, answer what it accepted, and stay small?

    python benchmarks/serve_load.py [--seconds 120] [--clients 150] [--sandbox docker] [--kill 10]

A scripted model, real kernels; every client asks again when it has its answer, or after a 429 when it was told to. With
``--kill`` the server's sandbox container is killed every so many seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

from sandbox.docker_launcher import LABEL, connect_engine

SCRIPT = [
    {"when": r"```python\n$", "text": "import time\ntime.sleep(0.05)\nprint(6 * 7)\n```\n"},
    {"when": "step by step: $", "text": "Hm.</analyze>\n", "seconds": 0.1},
    {"when": r"boxed\{$", "yes": 0.9},
    {"text": "</verify>\n<output>\n"},
]
ROW = {"problem": "P", "steps": ["one", "two"]}
WARM = 0.1
"""Share of the time before memory is looked at for the first time."""


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=150)
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--kill", type=float, help="kill a kernel server every so many seconds")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.json"
        script.write_text(json.dumps(SCRIPT))
        genprm = str(Path(sys.executable).with_name("genprm"))
        command = [genprm, "serve", "--backend", "scripted", "--model", str(script)]
        options = ["--sandbox", chosen.sandbox, "--port", "0", "--in-flight", "16", "--max-waiting", "32"]
        with (Path(folder) / "log").open("w") as log, subprocess.Popen([*command, *options], stderr=log) as server:
            try:
                url = await address(Path(folder) / "log")
                found = await load(url, server.pid, chosen.seconds, chosen.clients, chosen.kill)
            finally:
                server.terminate()
            served = served_times(Path(folder) / "log")
    print(json.dumps({"seconds": chosen.seconds, "clients": chosen.clients, "kill": chosen.kill, **found, **served}))


async def address(log: Path) -> str:
    """Where the server listens, once it does."""
    while True:
        for line in log.read_text().splitlines():
            if line.startswith("{") and (said := json.loads(line))["event"] == "listening":
                return str(said["url"])
        await asyncio.sleep(0.1)


async def load(url: str, pid: int, seconds: float, clients: int, kill: float | None) -> dict[str, object]:
    """Ask until the time is up; every request that was begun is waited for."""
    statuses: Counter[str] = Counter()
    times: list[float] = []
    refused: list[float] = []
    end = time.monotonic() + seconds

    async def client(session: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            begun = time.monotonic()
            try:
                answer = await session.post("/v1/verify", json=ROW)
            except httpx.HTTPError as error:
                statuses[type(error).__name__] += 1
                continue
            statuses[str(answer.status_code)] += 1
            (refused if answer.status_code == 429 else times).append(time.monotonic() - begun)
            if answer.status_code == 429:
                await asyncio.sleep(float(answer.headers["retry-after"]))

    async def killer() -> None:
        while kill:
            await asyncio.sleep(kill)
            statuses["killed"] += await asyncio.to_thread(kill_container, pid)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as session:
        killing = asyncio.create_task(killer())
        working = [asyncio.create_task(client(session)) for _ in range(clients)]
        await asyncio.sleep(seconds * WARM)
        early = resident(pid)
        await asyncio.gather(*working)
        late = resident(pid)
        killing.cancel()
    times.sort()
    refused.sort()
    return {
        "statuses": dict(statuses),
        "answered_per_s": round(statuses["200"] / seconds, 1),
        "p50_s": round(times[len(times) // 2], 3),
        "p99_s": round(times[int(0.99 * len(times))], 3),
        "refused_p99_s": round(refused[int(0.99 * len(refused))], 3) if refused else None,
        "resident_mib": [round(early, 1), round(late, 1)],
    }


def served_times(log: Path) -> dict[str, float]:
    """How long requests took by the server's own clock: without what clients and connections waited for."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    found = {}
    for status in (200, 429):
        seconds = sorted(line["seconds"] for line in lines if line.get("status") == status)
        found[f"served_{status}_p99_s"] = seconds[int(0.99 * len(seconds))] if seconds else 0.0
    return found


def kill_container(pid: int) -> int:
    """Kill the containers of a process; returns how many there were."""
    client = connect_engine()
    killed = 0
    for container in client.containers.list(filters={"label": LABEL}, ignore_removed=True):
        if f":{pid}:" in container.labels[LABEL]:
            container.kill()
            killed += 1
    client.close()
    return killed


def resident(pid: int) -> float:
    """Resident memory of a process, MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    asyncio.run(main())
