"""A whole file through the verifier, with a scripted model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "many_rows.py"


def test_memory_does_not_grow_with_the_rows():
    """Of a row only its place in the output is kept: a few hundred bytes. The row itself takes kilobytes."""
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--rows", "2000", "10000"], capture_output=True, text=True, check=True, timeout=240
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert [run["written"] for run in figures["runs"]] == [2000, 10_000]
    assert figures["growth_mib"] < 12
