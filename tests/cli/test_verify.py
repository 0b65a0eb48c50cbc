"""``genprm verify`` and ``genprm eval processbench``, from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from genprm import Verification, parse_row

from .conftest import SCRIPT, Cli, command

NOWHERE = ("--base-url", "http://127.0.0.1:9/v1")
LOCAL = ("--sandbox", "local", "--backend", "scripted", "--model")


def test_rows_table_and_page(cli: Cli, rows_file: Path, script: Path, tmp_path: Path):
    done = cli("verify", rows_file, *LOCAL, script, "-o", "out.jsonl", "--html", "out.html")
    assert done.returncode == 0, done.stderr
    rows = [parse_row(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row.id for row in rows] == [f"r{n}" for n in range(6)]
    assert [row.first_error for row in rows] == [-1, -1, 0, -1, -1, 0]
    assert all(isinstance(row, Verification) and row.usage.code_runs == 2 for row in rows)
    assert "6 solutions, 12 steps; 2 with an error found; 0 steps unscored" in " ".join(done.stdout.split())
    assert "no protection from hostile code" in done.stderr
    assert (tmp_path / "out.html").read_text().count("<article") == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "out.jsonl", "rows.jsonl", "script.json"]


def test_the_row_has_the_fields_that_were_promised(cli: Cli, rows_file: Path, script: Path):
    done = cli("verify", rows_file, *LOCAL, script, "-o", "-", "--limit", 1)
    [row] = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"id", "first_error", "score", "steps", "unscored", "usage", "schema_version"} <= row.keys()
    assert {"index", "score", "verdict", "segments", "stop_reason"} <= row["steps"][0].keys()
    assert row["steps"][0]["verdict"] == "correct"
    assert [segment["kind"] for segment in row["steps"][0]["segments"]][:3] == ["analysis", "code", "output"]


def test_standard_input_and_votes(cli: Cli, rows_file: Path, script: Path):
    done = cli("verify", "-", *LOCAL, script, "-o", "-", "--votes", 3, stdin=rows_file.read_text())
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 6
    assert all(len(step["votes"]) == 3 for row in rows for step in row["steps"])


def test_unscored_steps_are_exit_status_1(cli: Cli, rows_file: Path, tmp_path: Path):
    rules = [{"when": r"boxed\{$", "text": "perhaps"}, {"text": "x</analyze>\n"}]
    (tmp_path / "s.json").write_text(json.dumps(rules))
    done = cli("verify", rows_file, *LOCAL, tmp_path / "s.json", "--no-code", "-o", "-", "--limit", 1)
    assert done.returncode == 1
    row = json.loads(done.stdout)
    assert (row["unscored"], row["score"], row["first_error"]) == (2, None, -1)
    assert (row["steps"][0]["stop_reason"], row["steps"][0]["parse"]) == ("judged", "no_verdict_token")


def test_ten_thousand_steps_fail_their_row_only(cli: Cli, script: Path, tmp_path: Path):
    rows = [{"id": n, "problem": "p", "steps": ["s"] * n} for n in (1, 10_000)]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = cli("verify", "long.jsonl", *LOCAL, script, "-o", "-")
    assert done.returncode == 1
    good, bad = (json.loads(line) for line in done.stdout.splitlines())
    assert good["score"] == pytest.approx(0.9)
    assert "10000 steps: at most 512" in bad["error"]


def test_processbench(cli: Cli, rows_file: Path, script: Path, tmp_path: Path):
    (tmp_path / "other.jsonl").write_text(rows_file.read_text())
    done = cli("eval", "processbench", rows_file, "other.jsonl", *LOCAL, script, "--json", "f1.json", "-o", "rows")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "f1.json").read_text())
    assert figures["average_f1"] == 100
    assert figures["subsets"].keys() == {"rows", "other"}
    assert figures["subsets"]["rows"].keys() == {
        "f1", "error_accuracy", "correct_accuracy", "rows", "unscored", "tokens", "f1_interval", "median_seconds",
        "generators", "positions",
    }  # fmt: skip
    assert "average" in done.stdout
    assert len((tmp_path / "rows" / "rows.jsonl").read_text().splitlines()) == 12


BAD = [
    (["verify", "rows.jsonl", "-o", "rows.jsonl"], "rows.jsonl is read from by the same command"),
    (["verify", "rows.jsonl", "-o", "x", "--html", "x"], "x is written by the same command"),
    (["verify", "rows.jsonl", "-o", "/dev/null"], "/dev/null: is no regular file"),
    (["verify", "boolean.jsonl"], "boolean.jsonl, line 1, field label: expected a whole number"),
    (["verify", "missing.jsonl"], "missing.jsonl: No such file"),
    (["verify", "empty.jsonl"], "empty.jsonl: no rows in it"),
    (["verify", "broken.jsonl"], "broken.jsonl, line 7: not valid JSON"),
    (["verify", "nosteps.jsonl"], "nosteps.jsonl, line 1, field steps: missing"),
    (["verify", "rows.jsonl", "--votes", "0"], "--votes 0: expected a number from 1 on, or auto"),
    (["verify", "rows.jsonl", "--votes", "auto", "--max-votes", "1"], "--max-votes is 1: expected at least 2"),
    (["verify", "rows.jsonl", "--votes", "auto", "--confidence", "0.3"], "--confidence: input should be greater"),
    (["verify", "rows.jsonl", "--style", "direct>nonsense"], "--style nonsense: there is no such style"),
    (["verify", "rows.jsonl", "--style", "direct>direct"], "expected one style, or two different ones"),
    (["verify", "rows.jsonl", "--rounds", "2"], "--rounds goes with --style thinkprm only"),
    (["verify", "rows.jsonl", "--style", "thinkprm", "--rounds", "9"], "--rounds: input should be less"),
    (["verify", "rows.jsonl", "--style", "thinkprm", "--rounds", "2", "--votes", "2"], "--rounds goes with one vote"),
    (["verify", "rows.jsonl", "--style", "judge", "--history", "none"], "--history goes with the styles"),
    (["verify", "rows.jsonl", "--style", "discriminative"], "smollm2-135m is not known: choose --prm-format"),
    (["verify", "rows.jsonl", "--prm-format", "qwen"], "--prm-format goes with --style discriminative only"),
    (["verify", "rows.jsonl", "--chain-tokens", "0"], "--chain-tokens: input should be greater"),
    (["verify", "rows.jsonl", "--in-flight", "0"], "--in-flight: input should be greater"),
    (["verify", "rows.jsonl", "--stop-at-first-error", "--aggregate", "majority"], "needs the mean over votes"),
    (["verify", "rows.jsonl", "--max-votes", "4"], "--max-votes and --confidence go with --votes auto only"),
    (["verify", "rows.jsonl", "--sure", "0.8"], "--sure goes with two styles only"),
    (["verify", "rows.jsonl", "--style", "judge>genprm"], "judge answers with a word, and is never unsure"),
    (["verify", "rows.jsonl", "--style", "direct", "--no-code"], "go with --style genprm only"),
    (["eval", "compare", "rows.jsonl"], "compare takes two files or more"),
    (["eval", "compare", "rows.jsonl", "missing.jsonl"], "rows.jsonl, line 1: no row that verify wrote"),
    (["eval", "calibration", "missing.jsonl"], "missing.jsonl: No such file"),
    (["eval", "bon", "rows.jsonl"], "rows.jsonl, line 1, field candidates: missing"),
    (["verify", "rows.jsonl", "--style", "nonsense"], "--style nonsense"),
    (["verify", "rows.jsonl", "--sandbox", "podman"], "expected docker, local or unix:DIRECTORY"),
    (["verify", "rows.jsonl", "--step-tokens", "0"], "--step-tokens: input should be greater"),
    (["verify", "rows.jsonl", "--step-tokens", "5", "--analysis-tokens", "9"], "is more than step_tokens"),
    (["verify", "rows.jsonl", "-o", "missing/out.jsonl"], "no such folder"),
    (["verify", "rows.jsonl", "--html", "/proc/out.html"], "genprm: /proc/out.html: "),
    (["verify", "rows.jsonl", "--html", "missing/out.html"], "no such folder"),
    (["verify", "rows.jsonl", "--model", "no-such/model", "--sandbox", "local"], "no-such/model"),
    (["verify", "rows.jsonl", "--adapter", "missing"], "missing: no such adapter folder"),
    (["verify", "rows.jsonl", "--backend", "openai"], "--base-url"),
    (["verify", "rows.jsonl", *NOWHERE, "--sandbox", "local"], "no OpenAI-compatible server"),
    (["verify", "rows.jsonl", "--backend", "scripted"], "--model"),
    (["verify", "rows.jsonl", *LOCAL, "rows.jsonl"], "no model script"),
    (["verify", "rows.jsonl", "--no-analysis", "--no-code"], "leave nothing to verify with"),
    (["verify", "rows.jsonl", "--sandbox", "unix:missing"], "no directory of kernel servers"),
    (["eval", "processbench", "unlabelled.jsonl"], "row a has no field label"),
    (["eval", "processbench", "rows.jsonl", "rows.jsonl"], "same name"),
    (["verify", "rows.jsonl", "--limit", "0"], "--limit is 0: expected at least 1"),
    (["verify", "rows.jsonl", "--temperature", "-1"], "--temperature: input should be greater"),
    (["sandbox", "run", "1", "--timeout", "0"], "--timeout: input should be greater"),
    (["sandbox", "run", "1", "--backend", "podman"], "expected docker, local or unix:DIRECTORY"),
    (["sandbox", "run", "1", "--isolation", "vm"], "unknown isolation 'vm': expected container or kernel"),
    (["sandbox", "run", "1", "--backend", "local", "--runtime", "runsc"], "are for the docker backend"),
    (["sandbox", "bench", "--kernels", "1,x"], "--kernels: expected numbers from 1 to 1000"),
    (["sandbox", "install-kernelspec", "--isolation", "vm"], "unknown isolation 'vm'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_line_and_exit_status_2(
    cli: Cli, rows_file: Path, tmp_path: Path, arguments: list[str], words: str
):
    good = rows_file.read_text()
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text(good + '{"id": \n')
    (tmp_path / "nosteps.jsonl").write_text('{"id": "a", "problem": "p"}\n')
    (tmp_path / "boolean.jsonl").write_text('{"id": "a", "problem": "p", "steps": ["s"], "label": true}\n')
    (tmp_path / "unlabelled.jsonl").write_text('{"id": "a", "problem": "p", "steps": ["s"]}\n')
    before = sorted(tmp_path.iterdir())
    done = cli(*arguments, HF_HUB_OFFLINE="1")
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    ours = [line for line in done.stderr.splitlines() if line.startswith("genprm:") and "sandbox: local" not in line]
    assert len(ours) == 1, done.stderr
    assert sorted(tmp_path.iterdir()) == before, "something was left half-written"


@pytest.mark.parametrize(
    "arguments", [["verify", "rows.jsonl"], ["sandbox", "check"], ["sandbox", "build"], ["sandbox", "run", "1"]]
)
def test_no_docker_engine(cli: Cli, rows_file: Path, arguments: list[str]):
    done = cli(*arguments, DOCKER_HOST="unix:///nonexistent.sock")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no Docker engine answers: start it" in done.stderr


def start(rows_file: Path, script: Path, tmp_path: Path) -> subprocess.Popen[str]:
    arguments = ("verify", rows_file, *LOCAL, script, "-o", tmp_path / "out.jsonl")
    return subprocess.Popen(
        command(*arguments), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )


def wait_for_rows(tmp_path: Path, count: int) -> None:
    partial = tmp_path / "out.jsonl.partial"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if partial.exists() and partial.read_bytes().count(b"\n") > count:
            return
        time.sleep(0.02)
    raise AssertionError("no rows were finished")


@pytest.fixture
def many_rows(tmp_path: Path) -> Path:
    """Rows that take from one to twelve times as long."""
    rows = [{"id": f"r{n}", "problem": "p", "steps": ["s"] * (1 + n)} for n in range(12)]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "many.jsonl"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_where_it_was(
    cli: Cli, many_rows: Path, script: Path, tmp_path: Path, number: signal.Signals
):
    script.write_text(json.dumps([{**rule, "seconds": 0.1} for rule in SCRIPT]))  # slow, to be met at work
    whole = cli("verify", many_rows, *LOCAL, script, "-o", tmp_path / "whole.jsonl")
    assert whole.returncode == 0
    process = start(many_rows, script, tmp_path)
    wait_for_rows(tmp_path, 3)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert "Traceback" not in stderr
    if number is not signal.SIGKILL:
        assert process.returncode == 130
        assert "interrupted" in stderr
    assert not (tmp_path / "out.jsonl").exists()
    again = cli("verify", many_rows, *LOCAL, script, "-o", "out.jsonl")
    assert again.returncode == 0, again.stderr
    assert "of 12 rows are done already" in again.stderr

    def without_times(path: Path) -> list[object]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["usage"]["seconds"] = 0
            for step in row["steps"]:
                for segment in step["segments"]:
                    segment["run"] = None
        return rows

    assert without_times(tmp_path / "out.jsonl") == without_times(tmp_path / "whole.jsonl")
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_a_full_disk(cli: Cli, rows_file: Path, script: Path, tmp_path: Path):
    if os.getuid() != 0:
        pytest.skip("only root can mount a file system")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", small], check=True)
    try:
        done = cli("verify", rows_file, *LOCAL, script, "-o", small / "out.jsonl")
        assert done.returncode == 2
        assert "No space left on device" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        assert not (small / "out.jsonl").exists()
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_reader_that_leaves(rows_file: Path, script: Path, tmp_path: Path):
    line = " ".join(f"'{word}'" for word in command("verify", rows_file, *LOCAL, script, "-o", "-"))
    done = subprocess.run(f"{line} | true", shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert "Traceback" not in done.stderr


def test_help_and_version(cli: Cli):
    assert "verify" in cli("--help").stdout
    assert cli("--version").stdout.strip() == "0.1.0"
    assert "--sandbox" in cli("verify", "--help").stdout
