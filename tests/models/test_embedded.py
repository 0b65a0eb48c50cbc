"""SmolLM2-135M itself, through the whole loop."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genprm import Budget, Verifier
from genprm.models.embedded import EMBEDDED, SHIPPED, embedded_folder

pytestmark = pytest.mark.model


def test_weights_are_converted_once():
    folder = embedded_folder()
    stamp = (folder / "config.json").stat().st_mtime_ns
    assert folder == embedded_folder()
    assert (folder / "config.json").stat().st_mtime_ns == stamp
    hidden = {path.name for path in folder.parent.iterdir() if path.name.startswith(f".{EMBEDDED}")}
    assert hidden <= {f".{EMBEDDED}-lock"}


@pytest.mark.alone
def test_a_conversion_that_was_killed_is_done_again(tmp_path: Path):
    code = "from genprm.models.embedded import embedded_folder; print(embedded_folder())"
    environment = {**os.environ, "GENPRM_CACHE": str(tmp_path)}
    first = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / f".{EMBEDDED}-new").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    first.kill()
    first.wait()
    assert not (tmp_path / EMBEDDED).exists()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == str(tmp_path / EMBEDDED), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{EMBEDDED}-lock", EMBEDDED]


@pytest.mark.alone
def test_a_real_model_argues_writes_code_and_judges(tmp_path: Path):
    budget = Budget(step_tokens=256, analysis_tokens=128)
    with Verifier.from_pretrained(sandbox="local", budget=budget) as verifier:
        report = verifier.verify(
            "A shop sells 3 boxes of 12 eggs each. How many eggs is that?",
            ["There are 3 * 12 = 36 eggs.", "So the answer is 38."],
            votes=2,
        )
    assert len(report.steps) == 2
    assert report.model == f"{EMBEDDED}+{SHIPPED}"
    assert report.usage.completion_tokens > 50
    kinds = {segment.kind.value for step in report.steps for vote in step.votes for segment in vote.segments}
    assert {"analysis", "code", "judgement"} <= kinds
    for step in report.steps:
        assert len(step.votes) == 2
        assert step.score is None or 0 <= step.score <= 1
