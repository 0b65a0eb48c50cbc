"""The pages of ``genprm view`` without a browser: rows of every kind, odd ones too, and files that change."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from genprm.highlighting import python
from genprm.viewer import index as index_module
from genprm.viewer.index import RowIndex
from genprm.viewer.pages import create_viewer
from tests.viewer.rows import verification, write

ODD: list[Any] = [
    {"solution": {}, "attempts": [1]},
    {"solution": {}, "attempts": [{"reason": [1]}]},
    {"first_error": 0, "steps": [{"votes": [1]}]},
    {"first_error": 0, "steps": [{"votes": [{"score": "x"}]}]},
    {"first_error": 0, "steps": [{"score": float("nan")}]},
    {"first_error": 0, "steps": [{"score": 10**400}]},
    {"first_error": "x", "steps": []},
    {"first_error": 0, "steps": [], "unscored": "x"},
    {"first_error": 0, "steps": [{"segments": ["x"]}]},
    {"first_error": 0, "steps": [], "usage": [1]},
    {"first_error": 0, "steps": [], "usage": {"seconds": 10**400}},
    {"first_error": 0, "steps": [{"segments": [{"kind": "output", "text": "", "run": {"duration": 10**400}}]}]},
    {"first_error": 0, "steps": [], "solution": {}},
    {"error": 1, "problem": None},
    {"step_labels": 3, "steps": [None], "values": "x"},
    {"messages": [3], "steps": []},
    '{"id": "half", "problem": "\\ud800", "error": "\\udfff"}',
    "[1]",
    "nonsense",
]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "FOLLOWING", 0.05)


def viewer(*paths: Path) -> TestClient:
    return TestClient(create_viewer([RowIndex(path) for path in paths]), base_url="http://127.0.0.1")


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("row", ODD, ids=range(len(ODD)))
def test_an_odd_row_is_shown_and_those_behind_it_too(tmp_path: Path, row: Any):
    client = viewer(write(tmp_path / "rows.jsonl", row, verification("fine")))
    until(lambda: "2 rows" in client.get("/").text)
    for path in ("/", "/rows/0", "/rows/1", "/rows/0.json", "/?show=error", "/?show=unscored", "/?q=a"):
        assert client.get(path).status_code == 200, path
    assert ">fine<" in client.get("/").text


def test_a_file_that_is_written_anew(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", *(verification(f"old{n}") for n in range(5)))
    client = viewer(path)
    until(lambda: "old4" in client.get("/").text)
    os.replace(write(tmp_path / "new.jsonl", verification("new")), path)
    until(lambda: "1 rows" in client.get("/").text and ">new<" in client.get("/").text)
    write(path, *(verification(f"newer{n}") for n in range(9)))  # the same inode, and longer
    until(lambda: "newer8" in client.get("/").text)
    assert client.get("/rows/8").status_code == 200


def test_a_file_that_is_written_anew_in_place_with_the_same_beginning(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    problem = "p" * 600

    def rows(count: int, first_error: int) -> str:
        row = {"schema_version": 1, "problem": problem, "first_error": first_error, "steps": [], "note": "x" * 99}
        return "".join(json.dumps({**row, "id": f"r{number}"}) + "\n" for number in range(count))

    path.write_text(rows(5, 0))
    client = viewer(path)
    until(lambda: client.get("/progress").json() == {"share": 1, "rows": 5})
    with open(path, "r+") as file:  # one that grows; then one of the same size
        file.write(rows(6, 10))
    until(lambda: client.get("/progress").json() == {"share": 1, "rows": 6})
    assert json.loads(client.get("/rows/1.json").text)["first_error"] == 10
    with open(path, "r+") as file:
        file.write(rows(6, 20))
    until(lambda: json.loads(client.get("/rows/1.json").text)["first_error"] == 20)
    until(lambda: "step 20" in client.get("/").text)


def test_a_page_while_its_rows_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    client = viewer(write(tmp_path / "rows.jsonl", verification("a")))
    monkeypatch.setattr(RowIndex, "__len__", lambda _: 9)
    done = client.get("/rows/5")
    assert (done.status_code, "look again" in done.text) == (410, True)


def test_a_file_that_is_deleted(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", verification("one"))
    client = viewer(path)
    until(lambda: ">one<" in client.get("/").text)
    path.unlink()
    answer = client.get("/rows/0")
    assert (answer.status_code, "the file cannot be read any more" in answer.text) == (410, True)
    assert answer.headers["content-security-policy"]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("sought", ["größe", "GRÖSSE", "Größe", "GRÖẞE"])
def test_search_whatever_the_case(tmp_path: Path, sought: str, plain: bool):
    row = verification("it", -1, -1, "Die GRÖSSE, die Größe, die GRÖẞE.")
    client = viewer(write(tmp_path / "rows.jsonl", verification("other"), json.dumps(row, ensure_ascii=plain)))
    until(lambda: "2 rows" in client.get("/").text)
    page = client.get("/", params={"q": sought}).text
    assert (">it<" in page, ">other<" in page) == (True, False)


def test_from_row_to_row_of_a_filtered_list(tmp_path: Path):
    rows = [verification(f"r{n}", 0 if n % 3 == 0 else -1) for n in range(120)]
    client = viewer(write(tmp_path / "rows.jsonl", *rows))
    until(lambda: "120 rows" in client.get("/").text)
    assert 'href="/rows/3?show=error"' in client.get("/?show=error").text
    page = client.get("/rows/3?show=error&page=2").text
    for link in ("/rows/0?show=error&amp;page=2", "/rows/6?show=error&amp;page=2", "/?show=error&amp;page=2"):
        assert f'href="{link}"' in page
    page = client.get("/rows/117?show=error").text
    assert ('rel="prev"' in page, 'rel="next"' in page) == (True, False)


def test_what_the_other_votes_argued(tmp_path: Path):
    row = verification("v")
    said = [{"kind": "analysis", "text": "A second opinion."}]
    row["steps"][0]["votes"] = [
        {"score": 0.9, "segments": row["steps"][0]["segments"], "stop_reason": "judged"},
        {"score": 0.2, "segments": said, "stop_reason": "judged"},
    ]
    page = viewer(write(tmp_path / "rows.jsonl", row)).get("/rows/0").text
    assert page.count("another vote") == 1
    assert "A second opinion." in page


def test_rows_that_only_the_other_file_has(tmp_path: Path):
    one = write(tmp_path / "one.jsonl", verification("a"), "nonsense")
    other = write(tmp_path / "other.jsonl", verification("b"), verification("1", 0))
    client = viewer(one, other)
    until(lambda: "2 rows are in other.jsonl only" in client.get("/").text)
    assert "It has no row with this id" in client.get("/rows/1").text, "a broken line has no id to be compared by"


def test_addresses_that_are_none(tmp_path: Path):
    client = viewer(write(tmp_path / "rows.jsonl", verification("a")))
    for path, status in (("/rows/7", 404), ("/rows/x", 422), ("/nowhere", 404), ("/?show=x", 422)):
        answer = client.get(path)
        assert (answer.status_code, "<h1>" in answer.text) == (status, True)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert client.get("/static/app.js").headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("code", [" \n" * 10_000, "x = 1\n" * 10_000, "\n" * 499 + "x", "'" * 20_000, "(" * 20_000])
def test_code_is_coloured_in_no_time(code: str):
    begun = time.monotonic()
    assert python(code)
    assert time.monotonic() - begun < 3
