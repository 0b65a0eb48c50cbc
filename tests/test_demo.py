"""``make demo``, as a newcomer types it, with the environment that ``make test`` has made already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IN_VENV = Path(sys.prefix) == ROOT / ".venv" and (ROOT / ".venv" / "installed").exists()

pytestmark = [pytest.mark.model, pytest.mark.skipif(not IN_VENV, reason="not running in the .venv of `make test`")]


@pytest.mark.docker
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_make_demo():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(["make", "demo"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (ROOT / "demo-out" / "results.jsonl").read_text().splitlines()]
    assert len(rows) >= 16
    assert all(row["unscored"] == 0 for row in rows)
    steps = [step for row in rows for step in row["steps"]]
    runs = [segment["run"] for step in steps for segment in step["segments"] if segment.get("run")]
    assert len(runs) > 0.9 * len(steps)
    assert sum(run["status"] == "ok" for run in runs) > 0.8 * len(runs)
    assert {row["model"] for row in rows} == {"smollm2-135m+verifier"}
    assert "demo-out/report.html" in done.stdout
    assert "locally" not in done.stderr
    assert "</html>" in (ROOT / "demo-out" / "report.html").read_text()


def test_without_an_engine_the_demo_says_so_in_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "genprm.demo.backend"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "DOCKER_HOST": "unix:///nonexistent.sock"},
    )  # fmt: skip
    assert done.stdout == "local\n"
    [line] = done.stderr.splitlines()
    for words in ("locally", "your rights", "nothing protects you", "apt-get install docker.io"):
        assert words in line
