"""RPE against hard labels: from rollouts to a page, with a policy of known values, and a tiny model to be trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiments.world import ROOT, lay_out
from tests.train.conftest import tiny, tokenizer  # noqa: F401 - fixtures


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_from_rollouts_to_a_page(tiny: Path, tmp_path: Path):  # noqa: F811
    data, run = lay_out(tmp_path)
    command = (sys.executable, "-m", "experiments.label_rules", data, "-o", run, "--base", tiny, "--gsm8k", "1")
    options = ("--policy", "simulated", "--problems", "20", "--rollouts", "8", "--rows", "2")

    def label_rules() -> str:
        done = subprocess.run(
            [*map(str, command), *options], cwd=ROOT, capture_output=True, text=True, timeout=500
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return (run / "label-rules" / "README.md").read_text()

    page = label_rules()
    rows = {
        rule: [json.loads(line) for line in (run / "label-rules" / f"{rule}.jsonl").read_text().splitlines()]
        for rule in ("rpe", "hard")
    }
    assert [row["values"] for row in rows["rpe"]] == [row["values"] for row in rows["hard"]]
    wrong = {rule: sum(row["step_labels"].count(0) for row in found) for rule, found in rows.items()}
    assert wrong["rpe"] > wrong["hard"] > 0
    for rule, found in rows.items():
        assert f"\n| {rule} | {len(found)} | " in page
        assert page.count(f"\n| {rule} labels | {len(found)} | 1 |") == 3
    assert label_rules() == page
    manifest = json.loads((run / "label-rules" / "manifest.json").read_text())
    assert {made["start"] for made in manifest["commands"]} == {0}
