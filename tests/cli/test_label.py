"""`genprm label` as a user runs it: real runs, wrong input, and every way to be interrupted."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, command
from tests.conftest import DATA

PROBLEMS = 120
OUTPUTS = ("labelled.jsonl", "labelled.parquet", "README.md", "plots/labels_by_step.png", "plots/values_by_step.png")


def write_problems(folder: Path) -> Path:
    path = folder / "problems.jsonl"
    rows = [{"id": f"p{n}", "problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(PROBLEMS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write_problems(tmp_path)


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Problems, and a finished run over the first ten."""
    folder = tmp_path_factory.mktemp("ten")
    problems = write_problems(folder)
    arguments = command("label", problems, "-o", folder / "run", "--policy", "simulated", "--limit", 10)
    subprocess.run(arguments, check=True, capture_output=True, timeout=120)
    return problems, folder / "run"


def outputs(run: Path) -> list[bytes]:
    shards = sorted((run / "shards").iterdir())
    assert [path.suffix for path in shards] == [".jsonl"] * len(shards)
    return [(run / name).read_bytes() for name in OUTPUTS] + [path.read_bytes() for path in shards]


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "labelled.jsonl").read_text().splitlines()]


def test_a_run(cli: Cli, problems: Path, tmp_path: Path):
    done = cli("label", problems, "-o", "run", "--policy", "simulated", "--limit", 40)
    assert (done.returncode, done.stderr) == (0, "")
    assert "of K from all prefixes" in done.stdout
    found = rows(tmp_path / "run")
    assert {row["id"].split("/")[0] for row in found} <= {f"p{n}" for n in range(40)}
    for row in found:
        assert len(row["steps"]) == len(row["step_labels"]) == len(row["values"]) == len(row["rollouts"])
        assert row["label"] == next((n for n, label in enumerate(row["step_labels"]) if label == 0), -1)
        assert row["correct"] is (row["values"][-1] == 1)


def test_what_it_wrote_loads_as_a_dataset(cli: Cli, problems: Path, tmp_path: Path):
    import datasets

    assert cli("label", problems, "-o", "run", "--policy", "simulated", "--limit", 20).returncode == 0
    found = rows(tmp_path / "run")
    for kind, name in (("json", "labelled.jsonl"), ("parquet", "labelled.parquet")):
        loaded = datasets.load_dataset(
            kind, data_files=str(tmp_path / "run" / name), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert [row["step_labels"] for row in loaded] == [row["step_labels"] for row in found]
        assert [row["values"] for row in loaded] == [row["values"] for row in found]


def test_labelled_rows_are_input_for_verify(cli: Cli, problems: Path, script: Path):
    assert cli("label", problems, "-o", "run", "--policy", "simulated", "--limit", 3).returncode == 0
    done = cli("eval", "processbench", "run/labelled.jsonl", "--model", script, "--backend", "scripted", "--no-execute")
    assert "correct acc." in done.stdout, done.stderr


@pytest.mark.alone
def test_killed_at_random_moments(cli: Cli, problems: Path, tmp_path: Path):
    """Three times kill -9, then to the end: every byte is that of an undisturbed run."""
    assert cli("label", problems, "-o", "whole", "--policy", "simulated").returncode == 0
    arguments = command("label", problems, "-o", "run", "--policy", "simulated")
    kills = 0
    for _ in range(20):
        process = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and not list((tmp_path / "run").glob("shards/*")):
            time.sleep(0.01)
        time.sleep(random.random())
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        if kills == 3:
            break
    done = cli("label", problems, "-o", "run", "--policy", "simulated")
    assert done.returncode == 0
    assert kills, "it ended before anybody could kill it"
    assert outputs(tmp_path / "run") == outputs(tmp_path / "whole")


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(cli: Cli, problems: Path, tmp_path: Path, number: signal.Signals):
    process = subprocess.Popen(
        command("label", problems, "-o", "run", "--policy", "simulated"), cwd=tmp_path, text=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run/shards/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said.splitlines()[-1]) == (130, "genprm: interrupted")
    assert not (tmp_path / "run" / "labelled.jsonl").exists()
    assert cli("label", problems, "-o", "run", "--policy", "simulated").returncode == 0


def test_sigterm_reaches_a_background_job(problems: Path, tmp_path: Path):
    """A script's ``command &`` ignores SIGINT from birth."""
    process = subprocess.Popen(
        command("label", problems, "-o", "run", "--policy", "simulated"), cwd=tmp_path, text=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run/shards/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said.splitlines()[-1]) == (130, "genprm: interrupted")


def test_a_finished_run_is_labelled_anew(cli: Cli, problems: Path, tmp_path: Path):
    first = cli("label", problems, "-o", "run", "--policy", "simulated", "--limit", 30)
    shards = [path.read_bytes() for path in (tmp_path / "run" / "shards").iterdir()]
    by_rpe = outputs(tmp_path / "run")
    again = cli("label", problems, "-o", "run", "--policy", "simulated", "--limit", 30, "--rule", "rel-ratio")
    assert again.returncode == 0
    assert "the values were drawn to settle rpe 0.8" in again.stderr
    assert "Labels by rel-ratio 0.7" in again.stdout
    assert [path.read_bytes() for path in (tmp_path / "run" / "shards").iterdir()] == shards
    assert outputs(tmp_path / "run") != by_rpe
    back = cli("label", problems, "-o", "run", "--policy", "simulated", "--limit", 30)
    assert back.stdout == first.stdout
    assert outputs(tmp_path / "run") == by_rpe


def test_fixed_k_and_a_rule_that_needs_more(cli: Cli, problems: Path):
    arguments = ("label", problems, "-o", "run", "--policy", "simulated", "--limit", 30, "--fixed", "--rollouts", 8)
    assert cli(*arguments).returncode == 0
    done = cli(*arguments, "--rule", "abs-q")
    assert done.returncode == 2
    assert "its values cannot be labelled by abs-q: the value after" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "1"], "has seed = 0, not 1: choose another folder"),
        (["--limit", "9"], "another input (10 rows, not 9"),
        (["--policy", "simulated-weak"], "has policy = 'simulated', not 'simulated-weak'"),
        (["--threshold", "0.5", "--rule", "hard"], "the rule hard has no threshold"),
        (["--samples", "0"], "samples: input should be greater than or equal to 1"),
        (["--confidence", "2"], "confidence: input should be less than or equal to 1"),
        (["--policy", "simulated-huge"], "no such policy, but simulated-weak, simulated-medium, simulated-strong"),
    ],
)
def test_options_of_another_run(ten: tuple[Path, Path], change: list[str], message: str):
    problems, run = ten
    done = subprocess.run(
        command("label", problems, "-o", run, "--policy", "simulated", "--limit", 10, *change),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"problem": "P"}\n', "problems.jsonl, line 1: no gold answer"),
        ('{"problem": "P", "answer": "1"}\n{"problem": "Q"', "problems.jsonl, line 2: not valid JSON"),
        ("", "problems.jsonl: no rows in it"),
    ],
)
def test_bad_input_leaves_nothing_behind(cli: Cli, tmp_path: Path, content: str, message: str):
    (tmp_path / "problems.jsonl").write_text(content)
    done = cli("label", "problems.jsonl", "-o", "run", "--policy", "simulated")
    assert done.returncode == 2
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["problems.jsonl"]


@pytest.mark.alone
def test_two_processes_on_one_folder(cli: Cli, problems: Path, tmp_path: Path):
    first = subprocess.Popen(command("label", problems, "-o", "run", "--policy", "simulated"), cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run/shards/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    second = cli("label", problems, "-o", "run", "--policy", "simulated")
    assert (second.returncode, "another process is working in this folder" in second.stderr) == (2, True)
    assert first.wait(120) == 0


def test_a_job_that_could_not_be_finished_is_not_begun(problems: Path, tmp_path: Path):
    code = "import sys; sys.modules['pyarrow'] = None\nfrom genprm.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "label", problems, "-o", "run", "--policy", "simulated"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "the extra 'data' is not installed (pyarrow is missing)" in done.stderr
    assert not (tmp_path / "run").exists()


def test_nothing_is_labelled(cli: Cli, tmp_path: Path):
    (tmp_path / "script.json").write_text('[{"text": "It is \\\\boxed{7}."}]')
    (tmp_path / "p.jsonl").write_text('{"problem": "P", "answer": "7"}\n{"problem": "Q", "answer": "8"}\n')
    done = cli("label", "p.jsonl", "-o", "run", "--policy", "script.json", "--backend", "scripted")
    assert done.returncode == 1
    assert "all right" in done.stdout
    assert "nothing was labelled: that takes" in done.stderr
    assert rows(tmp_path / "run") == []
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "run" / "labelled.parquet").num_rows == 0


GSM8K = DATA / "gsm8k" / "train.jsonl"
GSM8K_PROBLEMS = 2000


@pytest.mark.alone
@pytest.mark.skipif(not GSM8K.exists(), reason="no GSM8K here (GENPRM_DATA)")
@pytest.mark.timeout(900)
def test_gsm8k_killed_three_times(cli: Cli, tmp_path: Path):
    """Eight shards of real problems, whole and with three kill -9 on the way: byte for byte the same."""
    arguments = ["label", GSM8K, "--policy", "simulated", "--samples", 2, "--max-samples", 4, "--solutions", 2,
                 "--rollouts", 4, "--seed", 3, "--limit", GSM8K_PROBLEMS]  # fmt: skip
    assert cli(*arguments, "-o", "whole", timeout=600).returncode == 0
    for shard in (1, 3, 5):
        process = subprocess.Popen(
            command(*arguments, "-o", "run"), cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        while not list(tmp_path.glob(f"run/shards/{shard:05}.*")) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(0.2 * random.random())
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert cli(*arguments, "-o", "run", timeout=600).returncode == 0
    assert outputs(tmp_path / "run") == outputs(tmp_path / "whole")
    seen = [json.loads(line)["index"] for path in sorted((tmp_path / "run/shards").iterdir()) for line in path.open()]
    assert seen == list(range(GSM8K_PROBLEMS))
    shutil.rmtree(tmp_path / "run")


@pytest.mark.model
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_the_embedded_model(cli: Cli, tmp_path: Path):
    """A real model that solves such problems sometimes, killed on the way."""
    sums = [{"id": f"s{n}", "problem": f"What is {n} + {n + 1}?", "answer": str(2 * n + 1)} for n in range(3, 5)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    arguments = ["label", "p.jsonl", "-o", "run", "--samples", 4, "--max-samples", 4, "--solutions", 2, "--rollouts", 2,
                 "--max-tokens", 32, "--temperature", 0.7]  # fmt: skip
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list((tmp_path / "run").glob("shards/*")):
        time.sleep(0.01)
    time.sleep(4 * random.random())
    process.kill()
    process.wait()
    done = cli(*arguments, timeout=600)
    assert done.returncode == (0 if rows(tmp_path / "run") else 1), done.stderr
    [shard] = (tmp_path / "run" / "shards").iterdir()
    assert [json.loads(line)["problem"]["id"] for line in shard.read_text().splitlines()] == ["s3", "s4"]
