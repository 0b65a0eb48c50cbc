"""`genprm synth` as a user runs it: validation, planted data, rationales for a label run, and wrong input."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rationale_synth.validate import labelled, plants, worked_solutions
from tests.cli.conftest import Cli, command

LOCAL = ("--sandbox", "local")
OUTPUTS = ("train.jsonl", "train.parquet", "README.md", "plots/rejections.png")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What a finished `genprm label` leaves, as far as `synth` reads it."""
    folder = tmp_path / "run"
    folder.mkdir()
    solutions, _ = worked_solutions(None)
    rows = [labelled(planted) for planted in plants(solutions)]
    (folder / "labelled.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return folder


@pytest.fixture
def critic(tmp_path: Path) -> Path:
    """A critic that argues about the first paragraph only, and guesses."""
    section = "### Paragraph 1\n<analyze>\nLet us see.\n</analyze>\n<verify>\n```python\nprint(6 * 7)\n```\n"
    rules = [
        {"when": r"\[Code Output\]\n\n```\n42\n```\n$", "one_of": [f"</verify>\n\\boxed{{{n}}}" for n in (1, 2, -1)]},
        {"text": section, "seconds": 0.05},
    ]
    path = tmp_path / "critic.json"
    path.write_text(json.dumps(rules))
    return path


def outputs(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in OUTPUTS]


@pytest.mark.docker
def test_validate_in_containers(cli: Cli):
    done = cli("synth", "validate", timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert "unjustified leap" in done.stdout
    assert "8 worked solutions; 0 more could not be worked out anew" in done.stdout


def test_planted_data(cli: Cli, tmp_path: Path):
    rows = [
        {"question": f"Pens cost ${n}. Tom buys {n + 3}. What does he pay?",
         "answer": f"He pays {n}*{n + 3}=$<<{n}*{n + 3}={n * (n + 3)}>>{n * (n + 3)}.\n#### {n * (n + 3)}"}
        for n in range(2, 6)
    ]  # fmt: skip
    (tmp_path / "worked.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "answer": "?"}])
    )
    done = cli("synth", "plant", "worked.jsonl", "-o", "data", "--no-reword", *LOCAL)
    assert done.returncode == 0, done.stderr
    assert "1 of 5 solutions cannot be worked out anew" in done.stderr
    records = [json.loads(line) for line in (tmp_path / "data" / "train.jsonl").read_text().splitlines()]
    assert sum(record["label"] == -1 for record in records) == sum(record["label"] == 0 for record in records) == 4
    done = cli(
        "synth", "plant", "worked.jsonl", "-o", "chains", "--style", "thinkprm", "--no-reword"
    )  # without a sandbox
    assert done.returncode == 0, done.stderr
    chains = [json.loads(line) for line in (tmp_path / "chains" / "train.jsonl").read_text().splitlines()]
    assert [(each["id"], each["label"]) for each in chains] == [(each["id"], each["label"]) for each in records]
    assert all("Is the solution correct?" in chain["messages"][-1]["content"] for chain in chains)


def test_planted_data_of_our_own_families_in_other_words(cli: Cli, tmp_path: Path):
    row = {"question": "Pens cost $2. Tom buys 5. What does he pay?", "answer": "He pays 2*5=$<<2*5=10>>10.\n#### 10"}
    odd = row | {"answer": "There are 37 reasons for it.\n" + row["answer"]}
    (tmp_path / "worked.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (row, odd)))
    arguments = ("synth", "plant", "worked.jsonl", "--errors", 1, "--no-balance", *LOCAL)
    done = cli(*arguments, "-o", "data", "--families", 50)
    assert done.returncode == 0
    left_out = re.search(
        r"^genprm: (\d+) solutions name numbers that come from nowhere, and are left out$", done.stderr, re.M
    )
    assert left_out
    assert 2 <= int(left_out[1]) <= 6  # those of the odd row, and few of the families'
    assert cli(*arguments, "-o", "plain", "--no-reword").returncode == 0
    found = [(tmp_path / name / "train.jsonl").read_text().splitlines() for name in ("data", "plain")]
    data, plain = [[json.loads(line) for line in lines] for lines in found]
    assert (len(data), len(plain)) == (104 - int(left_out[1]), 2)
    assert {record["problem"] for record in plain} < {record["problem"] for record in data}
    assert not {record["steps"][0] for record in plain} >= {record["steps"][0] for record in data[:2]}
    assert any("import math" in turn["content"] for record in data for turn in record["messages"])


def test_planted_data_without_what_is_evaluated_on(cli: Cli, tmp_path: Path):
    worked = "He pays {0}*6=$<<{0}*6={1}>>{1}.\n#### {1}"
    rows = [
        {"question": f"Tom buys six {what} at the market on a Monday, ${n} each. What does he pay?",
         "answer": worked.format(n, 6 * n)}
        for n, what in ((2, "pens"), (3, "hens"), (4, "ducks"))
    ]  # fmt: skip
    (tmp_path / "worked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text(json.dumps({"id": "1", "problem": rows[1]["question"], "steps": ["s"]}) + "\n")
    arguments = ("synth", "plant", "worked.jsonl", "-o", "data", "--decontaminate", "test.jsonl", "--no-reword", *LOCAL)
    done = cli(*arguments, "--errors", 1, "--no-balance")
    assert done.returncode == 0, done.stderr
    assert "2 solutions are of problems in an evaluation file, and are left out" in done.stderr
    records = [json.loads(line) for line in (tmp_path / "data" / "train.jsonl").read_text().splitlines()]
    assert len(records) == 4
    assert not any("hens" in record["problem"] for record in records)
    assert sorted(record["label"] for record in records) == [-1, -1, 0, 0]
    missing = cli(*arguments[:-2], "--decontaminate", "nowhere.jsonl", "-o", "other", *LOCAL)
    assert (missing.returncode, missing.stderr) == (2, "genprm: nowhere.jsonl: No such file or directory\n")


@pytest.mark.alone
def test_rationales_for_a_label_run_killed_on_the_way(cli: Cli, run_folder: Path, critic: Path, tmp_path: Path):
    arguments = ("synth", run_folder, "--backend", "scripted", "--model", critic, *LOCAL, "--tries", 6, "--no-balance")
    whole = cli(*arguments, "-o", "whole")
    assert whole.returncode == 0, whole.stderr
    assert "missing section" in whole.stdout
    for _ in range(3):
        process = subprocess.Popen(
            command(*arguments, "-o", "data"), cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        while process.poll() is None and not list((tmp_path / "data").glob("shards/*")):
            time.sleep(0.01)
        time.sleep(random.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = cli(*arguments, "-o", "data")
    assert again.returncode == 0, again.stderr
    assert again.stdout.replace("data/", "whole/") == whole.stdout
    # The critic is called what its file is called; nothing in the data depends on when a row was finished.
    assert outputs(tmp_path / "data") == outputs(tmp_path / "whole")
    records = [json.loads(line) for line in (tmp_path / "data" / "train.jsonl").read_text().splitlines()]
    assert records
    assert all(record["label"] == 0 for record in records)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nowhere"],
            "nowhere: no such file or folder",
        ),
        (["run", "--tries", "0"], "tries: input should be greater than or equal to 1"),
        (["run", "--limit", "0"], "--limit is 0: expected at least 1"),
        (["run", "--backend", "scripted"], "--backend scripted needs --model"),
        (["run", "--filter", "labels"], "--filter labels goes with --style genprm-step only"),
        (["plant", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["plant", "nowhere.jsonl", "--style", "genprm-step"], "--style: expected genprm or thinkprm, for planted"),
    ],
)
def test_wrong_input(cli: Cli, run_folder: Path, tmp_path: Path, arguments: list[str], message: str):
    done = cli("synth", *arguments, "-o", "data", *LOCAL)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_labelled_rows_from_elsewhere(cli: Cli, tmp_path: Path):
    """Rows in ProcessBench's form, with the labels' verdicts in the rationales of a model that always says Yes."""
    rows = [{"id": f"{label}", "problem": "P", "steps": ["a", "b"], "label": label} for label in (-1, 0, 1)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules = [
        {"when": r"```python\n$", "text": "print(6 * 7)\n```\n"},
        {"when": "step by step: $", "text": "Hm.</analyze>\n"},
        {"when": r"boxed\{$", "yes": 0.9},
        {"text": "</verify>\n<output>\n"},
    ]
    (tmp_path / "model.json").write_text(json.dumps(rules))
    model = ("--backend", "scripted", "--model", "model.json", "--style", "genprm-step", *LOCAL)
    done = cli("synth", "rows.jsonl", "-o", "data", *model, "--filter", "labels", "--right-per-wrong", 1)
    assert (done.returncode, "is kept  100.0 %" in done.stdout) == (0, True), done.stdout
    kept = [json.loads(line) for line in (tmp_path / "data" / "train.jsonl").read_text().splitlines()]
    said = {row["id"]: re.findall(r"boxed{(\w+)", json.dumps(row["messages"])) for row in kept}
    assert said == {"-1": ["Yes", "Yes"], "0": ["No"]}, "balanced: one of each"
    (tmp_path / "rows.jsonl").write_text('{"problem": "P", "steps": ["a"]}\n')
    done = cli("synth", "rows.jsonl", "-o", "other", *model)
    assert (done.returncode, "rows.jsonl: row row-0 has no field label" in done.stderr) == (2, True)


def test_a_broken_line_and_another_run(cli: Cli, run_folder: Path, critic: Path):
    arguments = ("synth", run_folder, "-o", "data", "--backend", "scripted", "--model", critic, *LOCAL, "--limit", 3)
    done = cli(*arguments)
    assert (done.returncode, "there are no records" in done.stderr) == (1, True)
    done = cli(*arguments, "--seed", 1)
    assert (done.returncode, "has seed = 0, not 1" in done.stderr) == (2, True)
    with open(run_folder / "labelled.jsonl", "a") as file:
        file.write('{"id": 1}\n')
    done = cli("synth", run_folder, "-o", "other", "--backend", "scripted", "--model", critic, *LOCAL)
    assert done.returncode == 2
    assert "labelled.jsonl, line " in done.stderr
