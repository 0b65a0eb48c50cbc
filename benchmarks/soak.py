"""Thousands of sessions, a tenth of them ended by force; then everything is counted that could have been left behind.

    python benchmarks/soak.py [--backend docker|local] [--sessions 10000] [--at-once 16]

Counted before the first session and after the last: our descriptors, threads and tasks, the kernel server's
descriptors, all processes of the sandbox, its socket files, containers, and what a guest sees in its /tmp. Resident
memory of both processes is taken when a tenth of the sessions is over, and at the end. Its last line is one JSON
object, with "leaked": what there is more of; its exit status is 1 if that is anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path

from sandbox import Limits, RunStatus, Sandbox, Session

TIMEOUT = 0.2
"""For what never ends by itself."""
ENOUGH = 60
"""For what does, on however busy a machine."""
VIOLENT = {
    "killed": "import os\nos.kill(os.getpid(), 9)",
    "crashed": "import ctypes\nctypes.string_at(0)",
    "exited": "import os\nos._exit(1)",
    "timed out": "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
    "interrupted": "while True: pass",
    "out of memory": "x = []\nwhile True: x.append(bytearray(1 << 24))",
    "flooded": "while True: print('x' * 1000)",
    "left children": "import os, time\nfor _ in range(3):\n    if os.fork() == 0: os.setsid(); time.sleep(600)",
    "left files": "import os\nfor i in range(50): os.makedirs(f'a/{i}'); open(f'a/{i}/f', 'w').write('x')",
    "cancelled": None,
}
ENDLESS = {"timed out", "interrupted", "flooded"}


async def one(sandbox: Sandbox, number: int, statuses: dict[str, int]) -> None:
    async with await sandbox.session() as session:
        if number % 10:
            result = await session.run("import sympy\nprint(sympy.factorint(360))")
            assert result.status is RunStatus.OK, result
            if number % 10 == 5:
                async with await session.fork() as branch:
                    assert (await branch.run("sympy.Integer(1)")).result == "1"
            status = "ok"
        else:
            status = await end_by_force(session, list(VIOLENT)[number // 10 % len(VIOLENT)])
        statuses[status] = statuses.get(status, 0) + 1


async def end_by_force(session: Session, how: str) -> str:
    code = VIOLENT[how]
    if code is not None:
        return (await session.run(code, TIMEOUT if how in ENDLESS else ENOUGH)).status.value
    running = asyncio.create_task(session.run("while True: pass", 60))
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return "cancelled"


def server_processes(others: frozenset[int] = frozenset()) -> list[int]:
    """Kernel servers and kernels, in containers too, without ``others``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"\0sandbox.guest\0" in path.read_bytes() and int(path.parent.name) not in others:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return sorted(found)


def rss_mib(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return round(int(fields["VmRSS"].split()[0]) / 1024, 1)


async def count(sandbox: Sandbox, others: frozenset[int]) -> dict[str, int]:
    pids = server_processes(others)
    counts = {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "server descriptors": len(os.listdir(f"/proc/{pids[0]}/fd")),
        "processes": len(pids),
        "socket files": sum(len(list(Path("/tmp").glob(f"genprm-*/{where}/k*-[1-5]"))) for where in ("s*", "ipc/s*")),
    }
    if sandbox.backend == "docker":
        from sandbox.docker_launcher import LABEL, connect_engine

        client = connect_engine()
        counts["containers"] = len(client.containers.list(all=True, filters={"label": LABEL}))
        client.close()
    async with await sandbox.session() as session:
        seen = await session.run("import os\nprint(sum(len(os.listdir(d)) for d in ('/tmp', '/dev/shm')))")
        if sandbox.backend == "docker":
            counts["files in the container"] = int(seen.stdout)
    return counts


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", default="docker", choices=["docker", "local"])
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=16)
    options = parser.parse_args()
    others = frozenset(server_processes())
    statuses: dict[str, int] = {}
    async with Sandbox(options.backend, Limits(memory_mib=128), sessions=options.at_once + 2, ready=0) as sandbox:
        warm = [await sandbox.session() for _ in range(options.at_once)]
        await asyncio.gather(*(session.close() for session in warm))
        await one(sandbox, 1, {})
        before, pids = await count(sandbox, others), server_processes(others)
        begun, memory = time.monotonic(), []
        queue = iter(range(options.sessions))

        async def work() -> None:
            for number in queue:
                await one(sandbox, number, statuses)
                if number == options.sessions // 10:
                    memory.append((rss_mib(os.getpid()), rss_mib(pids[0])))

        await asyncio.gather(*(work() for _ in range(options.at_once)))
        seconds = time.monotonic() - begun
        await asyncio.sleep(1)
        memory.append((rss_mib(os.getpid()), rss_mib(pids[0])))
        after = await count(sandbox, others)
    leaked = {name: after[name] - before[name] for name in after if after[name] > before[name]}
    print(f"before: {before}\nafter:  {after}\n{statuses}", file=sys.stderr)
    print(
        json.dumps(
            {
                "backend": options.backend, "sessions": options.sessions, "seconds": round(seconds, 1),
                "sessions_per_s": round(options.sessions / seconds, 1), "statuses": statuses, "leaked": leaked,
                "rss_mib_at_a_tenth": memory[0], "rss_mib_at_the_end": memory[-1],
            }
        )
    )  # fmt: skip
    sys.exit(1 if leaked else 0)


asyncio.run(main())
