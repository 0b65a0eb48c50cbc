"""Input files, right and wrong. A wrong one is named by file, line and field, on one line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from genprm.errors import InputError
from genprm.rows import read_solutions

GOOD = {"id": "a", "problem": "p", "steps": ["s", "t"]}


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_jsonl_array_parquet_and_stdin_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import pyarrow
    import pyarrow.parquet

    rows = [{**GOOD, "label": -1}, {**GOOD, "id": "b", "label": 1}]
    lines = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    expected = read_solutions(write(tmp_path / "a.jsonl", lines))
    assert [row.id for row in expected] == ["a", "b"]
    assert read_solutions(write(tmp_path / "a.json", json.dumps(rows, indent=1))) == expected
    assert read_solutions(write(tmp_path / "blank.json", "\n \n" + json.dumps(rows, indent=1))) == expected
    assert read_solutions(write(tmp_path / "bom.jsonl", "\ufeff" + lines)) == expected
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_solutions(str(tmp_path / "a.parquet")) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert read_solutions("-") == expected


def test_limit_and_missing_ids(tmp_path: Path):
    lines = "".join(json.dumps({"problem": "p", "steps": ["s"]}) + "\n" for _ in range(5))
    rows = read_solutions(write(tmp_path / "a.jsonl", lines), limit=2)
    assert [row.id for row in rows] == ["row-0", "row-1"]


def test_line_separators_inside_strings_do_not_break_lines(tmp_path: Path):
    row = json.dumps({**GOOD, "problem": "a\u2028b\x85c"}, ensure_ascii=False)
    assert read_solutions(write(tmp_path / "a.jsonl", row + "\n"))[0].problem == "a\u2028b\x85c"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no rows in it"),
        (b"\n \n", "no rows in it"),
        (b"[]", "no rows in it"),
        ((json.dumps(GOOD) + "\n").encode() * 6 + b'{"id": "x", "problem": \n', "line 7: not valid JSON"),
        (b'{"id": "x", "problem": "p"}', "line 1, field steps: missing"),
        (b'{"id": "x", "problem": "p", "steps": "s"}', "line 1, field steps: expected a list"),
        (b'{"id": "x", "problem": [\n', "not valid JSON: Expecting value at column 25 (it ends there; expected one"),
        (b'{\n"id": "x"}', "line 1: not valid JSON: Expecting property name enclosed in double quotes at column 2 (it"),
        (b'{"id": "x", "problem": "p", "solution": ["s"], "first_error": 0, "steps": []}', "a result of genprm verify"),
        (b'{"id": "x", "problem": "p", "steps": ["a", 3]}', "line 1, field steps[1]: expected a text"),
        (b'{"id": "x", "problem": "p", "steps": "abc"}', "line 1, field steps:"),
        (b'{"id": "x", "problem": "p", "steps": []}', "line 1, field steps:"),
        (b'{"id": "x", "problem": null, "steps": ["a"]}', "line 1, field problem:"),
        (b'{"id": "x", "problem": "p", "steps": ["a\\u0000"]}', "line 1, field steps[0]: contains a NUL"),
        (b'{"id": "x", "problem": "p", "steps": ["\\ud800"]}', "line 1, field steps[0]: contains a lone"),
        (b'{"id": "x", "problem": "p", "steps": ["a"], "label": 1}', "line 1, field label: 1 is not the index"),
        (b"\0\0\0", "line 1: not valid JSON"),
        (b"\n\xff\xfe", "line 2: not UTF-8"),
        (b'"a string"', "line 1: expected an object"),
        (b"[1]", "row 1: expected an object"),
        (b"[" * 100_000, "not valid JSON: nested too deeply"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_solutions(str(path))
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(InputError, match="No such file"):
        read_solutions(str(tmp_path / "missing.jsonl"))
    with pytest.raises(InputError, match="Is a directory"):
        read_solutions(str(tmp_path))
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"bad\.parquet"):
        read_solutions(str(tmp_path / "bad.parquet"))


def test_the_bundled_problems():
    from genprm.demo import demo_path

    rows = read_solutions(str(demo_path()))
    extra = [json.loads(line) for line in demo_path().read_text().splitlines()]
    wrong = [row for row in rows if row.label != -1]
    assert len(rows) >= 16
    assert len(wrong) == len(rows) // 2
    assert {row["topic"] for row in extra} == {"arithmetic", "algebra", "number theory", "counting", "geometry"}
    errors = [row["error"] for row in extra if row["error"]]
    assert len(set(errors)) == len(errors) == len(wrong)


def test_a_time_that_python_has_not(tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    far = pyarrow.array([10**17], pyarrow.timestamp("ms"))
    table = pyarrow.table({"problem": ["p"], "steps": [["s"]], "when": far})
    pyarrow.parquet.write_table(table, tmp_path / "far.parquet")
    with pytest.raises(InputError, match=r"far\.parquet: "):
        read_solutions(str(tmp_path / "far.parquet"))


def test_labels_with_gaps_as_pandas_writes_them(tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    rows = {"problem": ["p"] * 3, "steps": [["s", "t"]] * 3, "label": [1.0, float("nan"), None]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
    assert [row.label for row in read_solutions(str(tmp_path / "a.parquet"))] == [1, None, None]
    pyarrow.parquet.write_table(pyarrow.table({**rows, "label": [0.5] * 3}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="row 1, field label"):
        read_solutions(str(tmp_path / "b.parquet"))
