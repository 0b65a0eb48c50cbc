"""``genprm search`` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from genprm.pools import read_pools
from genprm.search.records import FailedSearch, SearchOutput, SearchResult, parse_search_row
from tests.cli.conftest import Cli, command

WRITES = [{"when": r"a step\.\n\n$", "text": "\\boxed{42}"}, {"text": "a step.\n\n\\boxed{42}"}]


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"id": f"p{n}", "problem": f"Q{n}", "answer": "42"}) + "\n" for n in range(4)))
    return path


def arguments(folder: Path, method: str, writes: list[dict[str, object]], *more: object) -> list[object]:
    (folder / "judge.json").write_text(json.dumps([{"when": r"\{$", "yes": 0.9}]))
    (folder / "policy.json").write_text(json.dumps(writes))
    return [
        "search", method, "problems.jsonl", "-o", "out.jsonl", "--style", "direct", "--history", "none",
        "--backend", "scripted", "--model", "judge.json",
        "--policy-backend", "scripted", "--policy", "policy.json", *more,
    ]  # fmt: skip


def rows(folder: Path) -> list[SearchOutput]:
    return [parse_search_row(line) for line in (folder / "out.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("method", ["bon", "beam", "reset", "refine"])
def test_each_method(cli: Cli, tmp_path: Path, problems: Path, method: str):
    done = cli(*arguments(tmp_path, method, WRITES, "--plot", "curve.png", "--json", "figures.json"))
    assert done.returncode == 0, done.stderr
    assert [row.id for row in rows(tmp_path)] == ["p0", "p1", "p2", "p3"]
    assert all(isinstance(row, SearchResult) and row.correct for row in rows(tmp_path))
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "figures.json").read_text())[method]["accuracy"] == 100
    assert len(read_pools(str(tmp_path / "out.jsonl"), None).pools) == 4, "a pool, too"
    beside = cli("search", "curves", "out.jsonl")
    assert beside.returncode == 0
    assert "100.0" in beside.stdout


def test_a_failing_problem_takes_nobody_along(cli: Cli, tmp_path: Path, problems: Path):
    done = cli(*arguments(tmp_path, "bon", [{"when": "Q2\n", "text": ""}, *WRITES]))
    assert done.returncode == 1
    kinds = [type(row) for row in rows(tmp_path)]
    assert kinds == [SearchResult, SearchResult, FailedSearch, SearchResult]


def test_killed_and_gone_on_with(cli: Cli, tmp_path: Path, problems: Path):
    slow = [{**rule, "seconds": 1.0} for rule in WRITES]
    wanted = arguments(tmp_path, "reset", slow, "--in-flight", "1")
    process = subprocess.Popen(command(*wanted), cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    partial = tmp_path / "out.jsonl.partial"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    kept = partial.read_bytes().splitlines()[1:3]
    done = cli(*wanted)
    assert done.returncode == 0, done.stderr
    assert "of 4 problems are done already" in done.stderr
    out = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["id"] for line in out] == ["p0", "p1", "p2", "p3"]
    assert [json.dumps(json.loads(line)["row"]) for line in kept] == [json.dumps(json.loads(line)) for line in out[:2]]
    assert not partial.exists()


@pytest.mark.parametrize(
    ("method", "more", "words"),
    [
        ("beam", ["--width", "9"], "--width 9 is more than the 8 beams"),
        ("bon", ["--policy-base-url", "http://x/v1"], "the policy: --base-url and --tokenizer go with"),
        ("bon", ["--policy-temperature", "-1"], "--policy-temperature is at least 0"),
        ("bon", ["--limit", "0"], "--limit is 0"),
        ("bon", ["--plot", "curve.nonsense"], "curve.nonsense: no kind of picture"),
        ("reset", ["--stop-at-first-error"], "reset asks for a verdict on each chunk"),
        ("reset", ["--aggregate", "majority"], "reset asks for a verdict on each chunk"),
        ("bon", ["--json", "/nowhere/f.json"], "no such folder"),
    ],
)
def test_wrong_options(cli: Cli, tmp_path: Path, problems: Path, method: str, more: list[str], words: str):
    done = cli(*arguments(tmp_path, method, WRITES, *more))
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_verifier_that_cannot_write_is_no_policy(cli: Cli, tmp_path: Path, problems: Path):
    done = cli("search", "bon", "problems.jsonl", "-o", "out.jsonl", "--style", "discriminative", "--model",
               "Qwen/Qwen2.5-Math-PRM-7B")  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "name a --policy" in done.stderr


def test_curves_of_other_problems(cli: Cli, tmp_path: Path, problems: Path):
    assert cli(*arguments(tmp_path, "bon", WRITES)).returncode == 0
    whole = (tmp_path / "out.jsonl").read_text()
    (tmp_path / "fewer.jsonl").write_text(whole[: whole.index("\n") + 1])
    done = cli("search", "curves", "out.jsonl", "fewer.jsonl")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "fewer.jsonl: not the problems of out.jsonl" in done.stderr
    assert "one is named twice" in cli("search", "curves", "out.jsonl", "./out.jsonl").stderr


def test_curves_of_something_else(cli: Cli, tmp_path: Path, problems: Path):
    done = cli("search", "curves", "problems.jsonl")
    assert done.returncode == 2
    assert done.stderr.startswith("genprm: problems.jsonl, line 1: no row that search wrote: ")
