"""Whether the memory of a verification grows with its input, and how many rows a second it can take.

    python benchmarks/many_rows.py [--rows 1000 100000]

The whole run, from rows to rows on disk, with a scripted model that answers at once: what is measured is the engine's
own cost per row. Each size runs in a process of its own, whose peak memory is compared with the first one's. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from genprm.batch import Checked, verify_rows
from genprm.options import Backend, RunOptions
from genprm.records import Solution

STEPS = ("First we add them.", "So it is done.")


def measure(rows: int) -> None:
    """One run; prints its figures."""
    solutions = (Solution(id=f"r{n}", problem=f"What is {n} and {n}?", steps=STEPS) for n in range(rows))
    with tempfile.TemporaryDirectory() as folder:
        script, output = Path(folder) / "script.json", Path(folder) / "rows.jsonl"
        script.write_text('[{"yes": 0.9}]')
        options = RunOptions(backend=Backend.SCRIPTED, model=str(script), style="direct")
        started = time.monotonic()
        with Checked(Solution, solutions) as checked:
            asyncio.run(verify_rows(checked, options, output, lambda line: print(line, file=sys.stderr)))
        seconds = time.monotonic() - started
        with open(output, "rb") as file:
            written = sum(1 for _ in file)
    print(json.dumps({
        "rows": rows, "written": written, "rows_per_s": round(rows / seconds),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        measure(options.one)
        return
    runs = []
    for rows in options.rows:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(rows)], stdout=subprocess.PIPE, text=True, check=True
        )
        runs.append(json.loads(done.stdout))
        print(json.dumps(runs[-1]), flush=True)
    print(json.dumps({"growth_mib": round(runs[-1]["peak_mib"] - runs[0]["peak_mib"], 1), "runs": runs}))


if __name__ == "__main__":
    main()
