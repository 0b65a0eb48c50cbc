"""How fast the label job is when the model costs nothing, and whether its memory grows with the input.

    python benchmarks/label_throughput.py [--rows 1000 100000]

The whole job, from a file to labels on disk, with a simulated policy that answers at once: what is measured is the
job's own cost per rollout. Each size runs in a process of its own, whose peak memory is compared. The last line is
JSON.
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
from collections.abc import Iterator
from pathlib import Path

from genprm.policy import Policy
from genprm.records import Problem
from rationale_synth.jobs import open_label_run, run_label_job, take_input
from rationale_synth.label import LabelOptions
from rationale_synth.label_output import write_labels
from rationale_synth.simulate import SimulatedPolicy


def problems(rows: int) -> Iterator[Problem]:
    return (Problem(id=f"p{n}", problem=f"What is {n} and {n}?", answer=str(2 * n)) for n in range(rows))


def answer_of(problem: str) -> str:
    """Known from the text alone, so that nothing grows with the number of problems but the job."""
    return str(2 * int(problem.split()[-1].rstrip("?")))


def measure(rows: int) -> None:
    """One run; prints its figures."""
    # Few rollouts per row for many rows: the memory, not the rollouts, is what a large input is measured for.
    options = LabelOptions(samples=8, max_samples=8, solutions=2, rollouts=16)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        mark = take_input(problems(rows), Path(folder) / "run")
        policy = Policy(SimulatedPolicy(answer_of), options.sampling)
        with open_label_run(Path(folder) / "run", options, "simulated", mark) as run:
            asyncio.run(run_label_job(run, policy, options))
            summary = write_labels(run, options.rule, "simulated")
        seconds = time.monotonic() - started
    print(json.dumps({
        "rows": rows, "completions": policy.completions, "solutions": summary.solutions,
        "completions_per_s": round(policy.completions / seconds), "rows_per_s": round(rows / seconds, 1),
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
    print(json.dumps({
        "rollouts_per_s": min(run["completions_per_s"] for run in runs),
        "memory_ratio": round(runs[-1]["peak_mib"] / runs[0]["peak_mib"], 2), "runs": runs,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
