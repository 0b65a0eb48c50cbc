"""`genprm eval bon`, `calibration` and `compare`, from outside; their figures counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genprm.aggregate import Aggregate, ChainVotes, combine_chains
from genprm.cli.main import app
from genprm.records import FailedRow, ParseStatus, Solution, StepVote, StopReason, Usage

from .conftest import Cli

PARSE = {True: ParseStatus.OK, False: ParseStatus.EMPTY}


def result(name: str, label: int | None, *scores: float | None) -> str:
    """A row as verify writes it."""
    votes = [StepVote(score=each, stop_reason=StopReason.JUDGED, parse=PARSE[each is not None]) for each in scores]
    solution = Solution(id=name, problem="p", steps=("s",) * len(scores), label=label)
    return combine_chains(solution, [ChainVotes(tuple(votes), Usage())], "m", "direct").model_dump_json() + "\n"


def by_majority() -> str:
    """Seven chains name the steps 2, 2, 2, 0, 0, 1, 1: the most say 2, and step 1, which is right, has 3 in 7."""
    chains = [
        ChainVotes(
            tuple(
                StepVote(score=float(index != first), stop_reason=StopReason.JUDGED, parse=ParseStatus.OK)
                for index in range(4)
            ),
            Usage(),
        )
        for first in (2, 2, 2, 0, 0, 1, 1)
    ]
    solution = Solution(id="b", problem="p", steps=("s",) * 4, label=2)
    return combine_chains(solution, chains, "m", "judge", aggregate=Aggregate.MAJORITY).model_dump_json() + "\n"


def failed(name: str, label: int) -> str:
    return FailedRow(id=name, problem="p", solution=("s",), label=label, error="why").model_dump_json() + "\n"


def words(text: str) -> str:
    return " ".join(text.split())


# Best of N


@pytest.fixture
def pools(tmp_path: Path) -> Path:
    """Two problems whose only right candidate is outvoted, and which another PRM likes least."""

    def candidate(number: int, right: int) -> dict[str, object]:
        correct = number == right
        steps = ["Begin.", "This holds." if correct else "This is a wrong step."]
        scores = {"other": [0.9, 0.1 if correct else 0.8]}
        return {"steps": steps, "answer": "1" if correct else "2", "correct": correct, "prm_step_scores": scores}

    rows = [
        {"problem_id": f"p{right}", "question": "Why?", "candidates": [candidate(n, right) for n in range(4)]}
        for right in (1, 3)
    ]
    path = tmp_path / "pools.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def judging(tmp_path: Path) -> tuple[object, ...]:
    """Options of a verifier that knows a wrong step when it sees one."""
    path = tmp_path / "judging.json"
    path.write_text(json.dumps([{"when": r"(?s)wrong step.*\{$", "yes": 0.2}, {"yes": 0.7}]))
    return ("--style", "direct", "--backend", "scripted", "--model", path)


def test_bon(cli: Cli, pools: Path, judging: tuple[object, ...], tmp_path: Path):
    done = cli("eval", "bon", pools, *judging, "--json", "bon.json", "-o", "rows")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "bon.json").read_text())
    assert figures["pools"] == 2
    found = {(each["scorer"], each["reduce"], each["rule"]): each for each in figures["results"]}
    assert {scorer for scorer, _, _ in found} == {"random", "oracle", "majority", "this verifier", "other"}
    assert found["random", None, None]["accuracy"]["4"] == 25
    assert found["oracle", None, None]["accuracy"]["4"] == 100
    assert found["majority", None, "majority"]["accuracy"]["4"] == 0
    for how in ("last", "mean", "min", "product"):
        assert found["this verifier", how, "best"]["accuracy"]["4"] == 100
        assert found["other", how, "best"]["accuracy"]["4"] == 0
    assert found["this verifier", "min", "weighted"]["accuracy"]["4"] == 100, "0.7 against three times 0.2"
    assert found["this verifier", "last", "best"]["interval"] == [100, 100]
    rows = [json.loads(line) for line in (tmp_path / "rows" / "rows.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"p{right}/{number}" for right in (1, 3) for number in range(4)]
    assert [row["score"] for row in rows] == pytest.approx([0.2, 0.7, 0.2, 0.2, 0.2, 0.2, 0.2, 0.7])
    assert "scorer steps choice N=1 N=2 N=4 95 % unscored" in words(done.stdout)
    assert "this verifier product weighted 25.0 50.0 100.0" in words(done.stdout), "of so few subsets all are measured"
    assert "2 problems; accuracy in percent." in done.stdout


def test_bon_by_scores_that_are_there(cli: Cli, pools: Path, tmp_path: Path):
    done = cli("eval", "bon", pools, "--scores-only", "--json", "bon.json", "--limit", 1)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads((tmp_path / "bon.json").read_text())
    assert figures["pools"] == 1
    assert {each["scorer"] for each in figures["results"]} == {"random", "oracle", "majority", "other"}


def test_bon_of_pools_of_several_sizes(cli: Cli, pools: Path, tmp_path: Path):
    first, second = (json.loads(line) for line in pools.read_text().splitlines())
    second["candidates"] = second["candidates"][:1]
    pools.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    done = cli("eval", "bon", pools, "--scores-only")
    assert done.stderr == "genprm: the smallest pool has 1 candidates, the largest 4: N goes up to the smallest\n"


def test_bon_with_candidates_that_nobody_could_judge(cli: Cli, pools: Path, tmp_path: Path):
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"when": r"(?s)wrong step.*\{$", "text": "perhaps"}, {"yes": 0.7}]))
    done = cli("eval", "bon", pools, "--style", "direct", "--backend", "scripted", "--model", script, "--json", "j")
    assert done.returncode == 1
    found = json.loads((tmp_path / "j").read_text())["results"]
    assert {each["unscored"] for each in found if each["scorer"] == "this verifier"} == {6}
    best = {each["accuracy"]["4"] for each in found if each["scorer"] == "this verifier" and each["rule"] == "best"}
    assert best == {100}, "of what is not scored nothing is chosen"


# Fewer votes


def test_fewer_votes(cli: Cli, tmp_path: Path):
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"when": r"(?s)wrong.*\{$", "yes": 0.2}, {"yes": 0.7}]))
    rows = [
        {"id": f"r{n}", "problem": "p", "steps": ["one", "wrong" if n else "two", "end"], "label": n - 1}
        for n in (0, 2)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judging = ("--style", "direct", "--backend", "scripted", "--model", script, "--votes", 3)
    done = cli("eval", "processbench", "rows.jsonl", *judging, "-o", "out")
    assert done.returncode == 0, done.stderr
    done = cli("eval", "votes", "out/rows.jsonl", "--json", "v.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "v.json").read_text())["results"]["rows"]
    assert {count: (each["f1"], each["auc"]) for count, each in found.items()} == dict.fromkeys("123", (100, 1))
    assert "subset votes F1 95 % error acc. correct acc. rows unscored AUC tokens" in words(done.stdout)
    stopped = (*judging, "--stop-at-first-error", "-o", "stopped")
    assert cli("eval", "processbench", "rows.jsonl", *stopped).returncode == 0
    done = cli("eval", "votes", "stopped/rows.jsonl")
    assert done.returncode == 2
    assert "row r2 has not 3 votes on every step: verify with --votes N" in done.stderr


# Calibration

OVERSURE = (
    *[result(f"a{n}", -1, 0.95) for n in range(3)],
    result("b", 0, 0.95),
    result("c", 1, 0.85, 0.05, 0.4),
    result("d", -1, 0.05, None),
    failed("e", -1),
)
"""Judged steps whose truth is known: 0.95 three times right and once wrong, 0.85 right, 0.05 once each."""


def test_calibration(cli: Cli, tmp_path: Path):
    (tmp_path / "one.jsonl").write_text("".join(OVERSURE[:4]))
    (tmp_path / "two.jsonl").write_text("".join(OVERSURE[4:]))
    arguments = ("one.jsonl", "two.jsonl", "--json", "c.json", "--plot", "picture")
    done = cli("eval", "calibration", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads((tmp_path / "c.json").read_text())
    assert figures["temperature"] is None
    [(name, found)] = figures["results"].items()
    assert (name, found["steps"]) == ("as it is", 7)
    assert found["ece"] == pytest.approx((4 * abs(0.95 - 3 / 4) + 1 * 0.15 + 2 * abs(0.05 - 1 / 2)) / 7)
    assert found["brier"] == pytest.approx((3 * 0.05**2 + 0.95**2 + 0.15**2 + 0.95**2 + 0.05**2) / 7)
    assert [each["count"] for each in found["bins"]] == [2, 0, 0, 0, 0, 0, 0, 0, 1, 4]
    assert "0.90 to 1.00 4 0.950 0.750" in words(done.stdout)
    assert_is_picture(tmp_path / "picture")


def assert_is_picture(path: Path) -> None:
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = imread(path)
    assert pixels.shape[:2] == (600, 600)
    assert len({tuple(pixel) for pixel in pixels.reshape(-1, pixels.shape[2]).tolist()}) > 10


def test_a_temperature_that_was_fitted_elsewhere(cli: Cli, tmp_path: Path):
    """Where 0.9 is right in three of four cases, the likeliest temperature makes 0.75 of it: 2, exactly."""
    odds = [result(f"f{n}", -1 if n < 3 else 0, 0.9) for n in range(4)]
    (tmp_path / "fit.jsonl").write_text("".join(odds))
    (tmp_path / "here.jsonl").write_text(result("a", -1, 0.9) + result("b", 0, 0.1))
    done = cli("eval", "calibration", "here.jsonl", "--fit", "fit.jsonl", "--bins", 4, "--json", "c.json")
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads((tmp_path / "c.json").read_text())
    assert figures["temperature"] == pytest.approx(2, rel=1e-4)
    cooled = figures["results"]["temperature 2.00"]
    assert cooled["brier"] == pytest.approx(1 / 16, rel=1e-4)
    assert figures["results"]["as it is"]["brier"] == pytest.approx(1 / 100)
    assert len(cooled["bins"]) == 4


def test_a_temperature_near_nothing(cli: Cli, tmp_path: Path):
    """Few steps, all on the right side of 0.5: the likeliest temperature is the lowest there is."""
    (tmp_path / "few.jsonl").write_text(result("a", -1, 0.51) + result("b", 0, 0.49) + result("c", 1, 1.0, 0.0))
    done = cli("eval", "calibration", "few.jsonl", "--fit", "few.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert "temperature 0.01 4 0.009 0.000" in words(done.stdout)


def test_subsets_whose_rows_are_only_numbered(cli: Cli, judging: tuple[object, ...], tmp_path: Path):
    for name in ("f1", "f2"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"problem": f"p of {name}", "steps": ["s"], "label": -1}))
    for run in ("r1", "r2"):
        assert cli("eval", "processbench", "f1.jsonl", "f2.jsonl", *judging, "-o", run).returncode == 0
    done = cli("eval", "compare", "r1/rows.jsonl", "r2/rows.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 rows that all have" in done.stdout


# Thresholds


def test_a_threshold_that_was_chosen_elsewhere(cli: Cli, tmp_path: Path):
    """A verifier that leans to Yes: its right steps have 0.9 and more, the wrong ones 0.7."""
    (tmp_path / "fit.jsonl").write_text(result("a", 1, 0.94, 0.7) + result("b", -1, 0.9) + result("c", -1, 0.96))
    rows = [result("d", 0, 0.74), result("e", 1, 0.95, 0.6), result("f", -1, 0.99, 0.91), result("g", -1, 0.75)]
    stopped = result("h", 1, 0.85, None)
    (tmp_path / "here.jsonl").write_text("".join(rows) + failed("i", -1) + stopped)
    done = cli("eval", "threshold", "here.jsonl", "--fit", "fit.jsonl", "--json", "t.json")
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads((tmp_path / "t.json").read_text())
    assert figures["threshold"] == pytest.approx(0.8)
    assert list(figures["results"]["here"]) == ["0.5", "0.8, chosen"]
    as_it_is, chosen = figures["results"]["here"].values()
    assert (as_it_is["error_accuracy"], as_it_is["correct_accuracy"], as_it_is["unscored"]) == (
        0, pytest.approx(200 / 3), 2,
    )  # fmt: skip
    assert (chosen["error_accuracy"], chosen["correct_accuracy"]) == (pytest.approx(200 / 3), pytest.approx(100 / 3))
    assert "here 0.8, chosen 44.4" in words(done.stdout)


# Comparison


def test_compare(cli: Cli, tmp_path: Path):
    """Of four wrong and four right solutions the first finds one and two, the second all."""
    labels = [0, 0, 0, 0, -1, -1, -1, -1]
    hits = [1, 0, 0, 0, 1, 1, 0, 0]
    truth = [0.1 if label == 0 else 0.9 for label in labels]
    first = [score if hit else 1 - score for score, hit in zip(truth, hits, strict=True)]
    for name, scores in (("first", first), ("second", truth), ("third", first)):
        rows = [result(f"r{n}", label, score) for n, (label, score) in enumerate(zip(labels, scores, strict=True))]
        (tmp_path / f"{name}.jsonl").write_text("".join(reversed(rows)) + failed(f"only in {name}", -1))
    done = cli("eval", "compare", "first.jsonl", "second.jsonl", "third.jsonl", "--json", "c.json")
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads((tmp_path / "c.json").read_text())
    assert figures["rows"] == 8
    assert (figures["results"]["first"]["error_accuracy"], figures["results"]["first"]["correct_accuracy"]) == (25, 50)
    assert figures["results"]["first"]["f1"] == pytest.approx(100 / 3)
    better = figures["differences"]["second"]
    assert (better["gained"], better["lost"], better["p_value"]) == (5, 0, 2 / 2**5)
    assert better["f1"] == pytest.approx(200 / 3)
    assert better["f1_interval"][0] > 0
    same = figures["differences"]["third"]
    assert (same["f1"], same["gained"], same["lost"], same["p_value"]) == (0, 0, 0, 1)
    assert "first 33.3 25.0 50.0" in words(done.stdout)
    assert "5 0 0.062" in words(done.stdout)
    assert "8 rows that all have" in done.stdout


def test_results_of_one_name_are_told_apart(cli: Cli, tmp_path: Path):
    for name in ("a.jsonl", "a.json", "sub/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(result("r", -1, 0.9))
    done = cli("eval", "compare", "a.jsonl", "a.json", "sub/a.jsonl", "--json", "c.out")
    assert done.returncode == 0, done.stderr
    assert list(json.loads((tmp_path / "c.out").read_text())["results"]) == ["a.jsonl", "a.json", "sub/a.jsonl"]


# What is wrong is said in one line, before anything is written

WRONG = [
    (["processbench", "rows.jsonl", "-o", "."], "rows.jsonl is read from by the same command"),
    (["processbench", "one.jsonl", "--json", "one.jsonl"], "one.jsonl is read from by the same command"),
    (["bon", "nocorrect.jsonl"], "nocorrect.jsonl, line 2, field candidates[0].correct: missing"),
    (["bon", "shortscores.jsonl"], "shortscores.jsonl, line 1, field candidates[0].prm_step_scores: prm"),
    (["bon", "empty.jsonl"], "empty.jsonl: no rows in it"),
    (["bon", "pools.jsonl", "--scores-only", "--limit", "0"], "--limit is 0: expected at least 1"),
    (["bon", "pools.jsonl", "--scores-only", "--json", "missing/b.json"], "missing/b.json: no such folder"),
    (["bon", "pools.jsonl", "--scores-only", "--json", "pools.jsonl"], "pools.jsonl is read from by the same command"),
    (["bon", "pools.jsonl", "-o", "missing/rows"], "missing/rows: No such file or directory"),
    (["calibration", "pools.jsonl"], "pools.jsonl, line 1: no row that verify wrote"),
    (["calibration", "binary.jsonl"], "binary.jsonl, line 1: no row that verify wrote"),
    (["calibration", "unlabelled.jsonl"], "unlabelled.jsonl, line 2: row b has no label"),
    (["calibration", "empty.jsonl"], "empty.jsonl: no rows in it"),
    (["calibration", "one.jsonl", "--fit", "right.jsonl"], "a temperature cannot be fitted"),
    (["calibration", "one.jsonl", "--fit", "missing.jsonl"], "missing.jsonl: No such file"),
    (["calibration", "one.jsonl", "--plot", "missing/c.png"], "missing/c.png: no such folder"),
    (["calibration", "one.jsonl", "--plot", "c.nonsense"], "c.nonsense: no kind of picture"),
    (["calibration", "one.jsonl", "--json", "c", "--plot", "c"], "c is written by the same command"),
    (["calibration", "one.jsonl", "--fit", "right.jsonl", "--json", "right.jsonl"], "right.jsonl is read from by"),
    (["calibration", "."], ".: Is a directory"),
    (["threshold", "one.jsonl", "--fit", "right.jsonl", "--json", "right.jsonl"], "right.jsonl is read from by"),
    (["threshold", "one.jsonl", "--fit", "right.jsonl"], "a threshold cannot be chosen"),
    (["threshold", "one.jsonl", "--fit", "majority.jsonl"], "b: a majority of its 7 votes decided"),
    (["threshold", "one.jsonl", "--fit", "unlabelled.jsonl"], "unlabelled.jsonl, line 2: row b has no label"),
    (["compare", "one.jsonl"], "compare takes two files or more"),
    (["compare", "one.jsonl", "./one.jsonl"], "expected different files: one is named twice"),
    (["compare", "one.jsonl", "right.jsonl"], "one.jsonl, right.jsonl: no row is in all of them"),
    (["compare", "one.jsonl", "unlabelled.jsonl"], "unlabelled.jsonl, line 2: row b has no label"),
    (["compare", "one.jsonl", "twice.jsonl"], "twice.jsonl: two rows have the id a"),
    (["compare", "one.jsonl", "right.jsonl", "--json", "./one.jsonl"], "one.jsonl is read from by the same command"),
    (["compare", "one.jsonl", "other.jsonl"], "other.jsonl: row b is not that of one.jsonl: its problem, solution or"),
    (["bon", "pools.jsonl", "--scores-only", "-o", "rows"], "--scores-only verifies nothing"),
    (["bon", "pools.jsonl", "--scores-only", "--model", "m/n"], "--scores-only verifies nothing"),
    (["compare", "one.jsonl", "empty.jsonl"], "empty.jsonl: no rows in it"),
]


@pytest.mark.parametrize(
    ("arguments", "said"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_wrong_input(pools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str):
    candidate = {"steps": ["s", "t"], "correct": True, "prm_step_scores": {"prm": [0.5]}}
    rows = {
        "nocorrect.jsonl": pools.read_text().splitlines()[0]
        + '\n{"id": "x", "problem": "p", "candidates": [{"steps": ["s"]}]}\n',
        "shortscores.jsonl": json.dumps({"id": "x", "problem": "p", "candidates": [candidate]}),
        "empty.jsonl": "",
        "rows.jsonl": json.dumps({"id": "x", "problem": "p", "steps": ["s"], "label": -1}),
        "one.jsonl": result("a", 0, 0.3) + result("b", -1, 0.8),
        "right.jsonl": result("c", -1, 0.9),
        "other.jsonl": result("a", 0, 0.3) + result("b", 0, 0.8),
        "majority.jsonl": by_majority() + result("c", -1, 0.9),
        "twice.jsonl": result("a", 0, 0.3) + result("a", 0, 0.4),
        "unlabelled.jsonl": result("a", 0, 0.3) + result("b", None, 0.8),
    }
    for name, text in rows.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)))
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["eval", *arguments])
    assert done.exit_code == 2, (done.stdout, done.stderr)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
