"""What counts as a problem of an evaluation file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genprm.errors import InputError
from genprm.records import Problem
from rationale_synth.overlap import Decontaminated, EvaluationProblems, evaluation_problems

PROBLEM = (
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast every morning and sells the rest at the market."
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PROBLEM, True),
        (PROBLEM.upper().replace(".", " ...\n"), True),
        ("Anna's ducks lay 20 eggs per day. She eats three for breakfast every morning and bakes four.", True),
        ("She eats three for breakfast every morning and sells ducks.", False),  # nine in a row
        ("Janet's ducks lay 16 eggs", False),
        ("What is 2 + 2?", True),
        ("What is 2 + 2? Think.", False),
        ("", False),
    ],
)
def test_overlap(text: str, found: bool):
    assert (text in EvaluationProblems([PROBLEM, "What is 2+2"])) is found


@pytest.mark.parametrize(
    "text",
    [
        r"Find the roots of $(x - 3)^3 + (x -7)^3 = (2x - 10)^3$ in $\dfrac{a}{b}$ [asy] label((0,0)); [/asy] form.",
        r"Find the roots of $\left(x - 3\right)^3 + (x -7)^3 = \!(2x - 10)^3$ in $\frac{a}{b}$ form.",
    ],
)
def test_the_layout_of_formulas_does_not_count(text: str):
    problem = r"Find the roots of $(x - 3)^3 + (x -7)^3 = (2x - 10)^3$ in $\frac{a}{b}$ form."
    assert [*EvaluationProblems([])._runs(text)] == [*EvaluationProblems([])._runs(problem)]


def test_files_of_several_forms(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "1", "problem": PROBLEM, "steps": []}) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"question": "How many?", "answer": "#### 2"}) + "\n")
    found = evaluation_problems([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    assert PROBLEM in found
    assert "how many" in found
    (tmp_path / "b.jsonl").write_text('{"text": "How many?"}\n')
    with pytest.raises(InputError, match=r"b\.jsonl, line 1: no field problem or question"):
        evaluation_problems([str(tmp_path / "b.jsonl")])


def test_what_is_left(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"problem": PROBLEM}) + "\n")
    problems = [Problem(id=str(n), problem=text, answer="1") for n, text in enumerate(["How many?", PROBLEM])]
    kept = Decontaminated(problems, [str(tmp_path / "a.jsonl")])
    assert [problem.id for problem in kept] == ["0"]
    assert kept.dropped == 1
    assert len(list(Decontaminated(problems, []))) == 2
    with pytest.raises(InputError, match="all 1 problems are also in an evaluation file"):
        list(Decontaminated(problems[1:], [str(tmp_path / "a.jsonl")]))
