"""The comparison of verifiers at our size: from records to a page, with a tiny model in the embedded one's place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.small_scale import first_votes
from genprm.aggregate import ChainVotes, combine_chains
from genprm.records import Solution, StepVote, StopReason, Usage, Verification
from tests.docs.world import ROW
from tests.experiments.world import ROOT, lay_out
from tests.train.conftest import tiny, tokenizer  # noqa: F401 - fixtures


def test_the_first_votes_are_those_of_a_run_with_fewer():
    scores = ((0.9, 0.2), (0.7, 0.6), (0.1, 0.8), (0.1, 0.9))
    chains = [
        ChainVotes(
            tuple(StepVote(score=score, stop_reason=StopReason.JUDGED) for score in each), Usage(completion_tokens=10)
        )
        for each in scores
    ]
    solution = Solution.model_validate({**ROW, "label": 0})
    by_votes = {count: combine_chains(solution, chains[:count], "m", "genprm") for count in (1, 2, 4)}
    for count, row in by_votes.items():
        assert first_votes(by_votes[4], count) == row
    first_errors = [row.first_error for row in by_votes.values() if isinstance(row, Verification)]
    assert first_errors == [1, 1, 0]


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
