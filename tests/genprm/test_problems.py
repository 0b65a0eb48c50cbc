"""Reading problems: the columns that people have, and one clear line for what cannot be read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from genprm.errors import InputError
from genprm.problems import read_problems


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"problem": "P", "answer": "24"}, "24"),
        ({"problem": "P", "answer": 24}, "24"),
        ({"question": "P", "answer": "48/2 = <<48/2=24>>24\n#### 1,024"}, "1,024"),
        ({"problem": "P", "final_answer": "\\frac{1}{4}"}, "\\frac{1}{4}"),
        ({"problem": "P", "solution": "so it is $\\boxed{7}$.", "level": 3}, "7"),
    ],
)
def test_columns(tmp_path: Path, row: dict[str, Any], answer: str):
    [problem] = read_problems(write(tmp_path / "p.jsonl", row))
    assert (problem.id, problem.problem, problem.answer) == ("row-0", "P", answer)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"problem": "P"}], "line 1: no gold answer: expected a field answer, final_answer, or a solution with a box"),
        ([{"problem": "P", "answer": None}], "line 1: no gold answer"),
        ([{"problem": "P", "answer": ""}], "line 1, field answer: string should have at least 1 character"),
        ([{"problem": "P", "answer": [1]}], "line 1, field answer: expected a text"),
        ([{"problem": "", "answer": "1"}], "line 1, field problem: string should have at least 1 character"),
        ([{"text": "P", "answer": "1"}], "line 1: no field problem (or question), but 'text', 'answer'"),
        ([{"problem": "P", "answer": "1", "id": "a"}] * 2, "line 2, field id: 'a' is there already"),
        (["P"], "line 1: expected an object"),
        ([], "no rows in it"),
    ],
)
def test_wrong_rows(tmp_path: Path, rows: list[Any], message: str):
    with pytest.raises(InputError) as caught:
        list(read_problems(write(tmp_path / "p.jsonl", *rows)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet(tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "p.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["P"] * 3000, "answer": ["#### 5"] * 3000}), path)
    assert [problem.answer for problem in read_problems(str(path))] == ["5"] * 3000
    pyarrow.parquet.write_table(pyarrow.table({"text": ["P"]}), path)
    with pytest.raises(InputError, match="no field problem"):
        list(read_problems(str(path)))
    path.write_bytes(b"PAR1 is not enough")
    with pytest.raises(InputError, match=r"p\.parquet: "):
        list(read_problems(str(path)))


def test_standard_input(monkeypatch: pytest.MonkeyPatch):
    class Stdin:
        buffer = io.BytesIO(b'[{"problem": "P", "answer": "1"}]')

    monkeypatch.setattr("sys.stdin", Stdin)
    assert [problem.id for problem in read_problems("-")] == ["row-0"]


def test_limit(tmp_path: Path):
    path = write(tmp_path / "p.jsonl", *[{"problem": "P", "answer": "1"}] * 5)
    assert len(list(read_problems(path, 2))) == 2
    with pytest.raises(InputError, match="--limit is 0"):
        list(read_problems(path, 0))


def test_a_dataset_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError) as caught:
        list(read_problems("nobody/no-such-dataset:main@train"))
    assert str(caught.value).startswith("nobody/no-such-dataset:main@train: no such file, and as a dataset of the hub")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there():
    with pytest.raises(InputError, match=r"nowhere\.jsonl: No such file"):
        list(read_problems("nowhere.jsonl"))


def test_what_is_called_like_a_file_is_one():
    with pytest.raises(InputError, match=r"nowhere/rows\.jsonl: No such file"):
        list(read_problems("nowhere/rows.jsonl"))
