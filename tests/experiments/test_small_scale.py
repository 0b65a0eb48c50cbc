"""The comparison of verifiers at our size: from records to a page, with a tiny model in the embedded one's place."""

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
@pytest.mark.docker
def test_from_records_to_a_page(tiny: Path, tmp_path: Path):  # noqa: F811
    data, run = lay_out(tmp_path)
    command = (sys.executable, "-m", "experiments.small_scale", data, "-o", run, "--base", tiny, "--gsm8k", "1")
    options = ("--sizes", "3", "--rows", "2", "--votes", "4")

    def small_scale() -> list[dict[str, object]]:
        done = subprocess.run(
            [*map(str, command), *options], cwd=ROOT, capture_output=True, text=True, timeout=500
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return list(json.loads((run / "small-scale" / "results.json").read_text()))

    cells = small_scale()
    found = {(cell["kind"], cell["size"], cell["votes"], cell["file"]) for cell in cells}
    assert len(found) == len(cells) == 3 * (3 + 5 + 1)
    assert {size for _, size, votes, _ in found if votes == 4} == {4}
    page = (run / "small-scale" / "README.md").read_text()
    assert page.count("\n| generative, code |") == 3 * 3
    assert (run / "small-scale" / "planted.png").stat().st_size > 1000
    manifest = json.loads((run / "small-scale" / "manifest.json").read_text())
    assert {(made["start"], made["status"] in (0, 1)) for made in manifest["commands"]} == {(0, True)}
    assert small_scale() == cells
    again = json.loads((run / "small-scale" / "manifest.json").read_text())
    assert again["commands"] == manifest["commands"]
