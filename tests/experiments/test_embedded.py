"""The recipe's command line; what it runs is tested where it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.embedded import EVALUATION
from tests.docs.world import LABELLED, WORKED, write_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in EVALUATION:
        write_rows(tmp_path / "data" / name, LABELLED)
    write_rows(tmp_path / "data" / "gsm8k" / "train.jsonl", [{**WORKED[0], "id": f"row {n}"} for n in range(150)])
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("options", "found", "message"),
    [
        (("--gsm8k", "11"), None, "--gsm8k: DATA/gsm8k/train.jsonl has 10 rows to train on, not 11"),
        (("--gsm8k", "10"), '{"base": "other", "gsm8k": 10, "families": 410}', "RUN is of Recipe(base='other'"),
    ],
)
def test_what_it_refuses(data: Path, tmp_path: Path, options: tuple[str, ...], found: str | None, message: str):
    run = tmp_path / "run"
    run.mkdir()
    if found:
        (run / "recipe.json").write_text(found)
    command = [sys.executable, "-m", "experiments.embedded", str(data), "-o", str(run), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stderr.replace(str(data), "DATA").replace(str(run), "RUN").startswith(message)
    assert not list(run.glob("*-data"))
