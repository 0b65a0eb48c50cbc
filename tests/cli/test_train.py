"""`genprm train` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli


def test_a_discriminative_baseline_refuses_rows_without_labels(cli: Cli, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"id": "1", "problem": "P", "steps": ["s"]}\n')
    done = cli("train", "discriminative", "rows.jsonl", "-o", "out", "--variant", "head")
    assert done.returncode == 2
    assert done.stderr == "genprm: rows.jsonl, id 1: no label: expected the first wrong step, -1 for none\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["rows.jsonl"], "rows.jsonl, line 1: no training record, field style: missing"),
        (["rows.jsonl", "--eval-every", "2"], "--eval-every needs --dev, the rows to watch"),
        (["rows.jsonl", "--recipe", "mine"], "--recipe mine: there is no such recipe, but thinkprm, genprm"),
        (["rows.jsonl", "--rank", "0"], "--rank: input should be greater than or equal to 1"),
        (["rows.jsonl", "--patience", "2"], "--patience needs --dev"),
        (["rows.jsonl", "--base", "no/such-model"], "'no/such-model' cannot be loaded"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_status_2(cli: Cli, tmp_path: Path, arguments: list[str], message: str):
    (tmp_path / "rows.jsonl").write_text('{"id": "1", "problem": "P", "steps": ["s"]}\n')
    done = cli("train", "sft", *arguments, "-o", "adapter", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "adapter").exists()
