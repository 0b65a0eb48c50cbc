"""``genprm view``: what it cannot show is refused in one line."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.cli.conftest import Cli


def refused(cli: Cli, *arguments: object) -> str:
    done = cli("view", *arguments, "--port", "0")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    return done.stderr


def test_nothing_to_show(cli: Cli, tmp_path: Path):
    assert "none.jsonl: no such file or folder" in refused(cli, "none.jsonl")
    (tmp_path / "empty").mkdir()
    assert "expected one of rows.jsonl, labelled.jsonl, train.jsonl" in refused(cli, "empty")


def test_a_label_run_that_has_not_ended(cli: Cli, tmp_path: Path):
    row = {"id": "p", "problem": "What is 1 + 1?", "answer": "2"}
    (tmp_path / "problems.jsonl").write_text(json.dumps(row) + "\n")
    assert cli("label", "problems.jsonl", "-o", "run", "--policy", "simulated").returncode == 1, "nothing was labelled"
    (tmp_path / "run" / "labelled.jsonl").unlink()
    assert "run: the job has not ended, and its rows are written at its end" in refused(cli, "run")


def test_a_port_in_use(cli: Cli, rows_file: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli("view", rows_file, "--port", port)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert str(port) in done.stderr
