"""The pages of ``genprm view`` without a browser: rows of every kind, odd ones too, and files that change."""

from __future__ import annotations

import json
import os
import re
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
    until(lambda: client.get("/progress").json() == {"share": 1, "rows": 5, "complete": True})
    with open(path, "r+") as file:  # one that grows; then one of the same size
        file.write(rows(6, 10))
    until(lambda: client.get("/progress").json() == {"share": 1, "rows": 6, "complete": True})
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


def test_what_is_said_of_the_whole_solution(tmp_path: Path):
    said = [{"kind": "analysis", "text": "A critique of all of it."}]
    row = verification("j", whole={"score": 0.9, "votes": [{"score": 0.9, "segments": said, "parse": "ok"}]})
    client = viewer(write(tmp_path / "rows.jsonl", row))
    assert "A critique of all of it." in client.get("/rows/0").text


def test_a_step_that_a_majority_calls_wrong_is_red(tmp_path: Path):
    row = verification("m", 1)
    row["steps"][1]["score"] = 0.6
    client = viewer(write(tmp_path / "rows.jsonl", row))
    assert re.search(r'class="score-(\d+) first"', client.get("/").text)[1] == "4"


def test_from_row_to_row_of_two_files(tmp_path: Path):
    """In the order of the list, those first of which they say different things."""
    one = write(tmp_path / "one.jsonl", *(verification(id) for id in "abcd"))
    other = write(tmp_path / "other.jsonl", *(verification(id, 1 if id in "bd" else -1) for id in "abcd"))
    client = viewer(one, other)
    until(lambda: client.get("/progress").json()["complete"])
    assert re.findall(r'class="row" href="/rows/(\d)"', client.get("/").text) == ["1", "3", "0", "2"]
    page = client.get("/rows/3").text
    assert re.findall(r'rel="(?:prev|next)" href="/rows/(\d)"', page) == ["1", "0"]


def test_two_runs_that_label_differ_in_labels(tmp_path: Path):
    def labelled(label: int) -> dict[str, Any]:
        steps = {"solution": ["one", "two"], "steps": ["one", "two"], "step_labels": [1, 0], "values": [1.0, 0.0]}
        return {"schema_version": 1, "id": f"i{label}"[:1], "problem": "p", "label": label} | steps

    one, other = (write(tmp_path / f"{label}.jsonl", verification("a"), labelled(label)) for label in (1, -1))
    client = viewer(one, other)
    until(lambda: client.get("/progress").json()["complete"])
    page = client.get("/").text
    assert re.findall(r'class="row" href="/rows/(\d)"', page) == ["1", "0"]
    assert page.count('class="differs"') == 1
    assert client.get("/rows/1").text.count("label: ") == 2


def test_rows_of_one_id_are_compared_in_their_order(tmp_path: Path):
    one, other = (write(tmp_path / name, verification("a"), verification("a", 1)) for name in ("1.jsonl", "2.jsonl"))
    client = viewer(one, other)
    until(lambda: client.get("/progress").json()["complete"])
    assert 'class="differs"' not in client.get("/").text


def test_rows_of_the_other_file_that_are_not_read_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    many = write(tmp_path / "many.jsonl", *(verification(str(n)) for n in range(1000)))
    few = write(tmp_path / "few.jsonl", verification("999"))
    monkeypatch.setattr(index_module, "PAUSE", 0.2)
    client = viewer(few, many)
    page = client.get("/").text
    assert "not read yet" in page
    assert "data-open" in page
    assert "no row with this id has come yet" in client.get("/rows/0").text
    monkeypatch.setattr(index_module, "PAUSE", 0.0)
    until(lambda: client.get("/progress").json()["complete"])
    assert "not there" not in client.get("/").text


def test_progress_of_a_file_that_is_written_anew_and_is_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "rows.jsonl", verification("a"))
    client = viewer(path)
    until(lambda: client.get("/progress").json()["complete"])
    monkeypatch.setattr(index_module, "PAUSE", 0.2)
    write(tmp_path / "new.jsonl", *(verification(str(n)) for n in range(1000))).replace(path)
    until(lambda: 64 <= client.get("/progress").json()["rows"] < 1000)
    assert 0 < client.get("/progress").json()["share"] < 1


def test_a_file_that_is_written_anew_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "rows.jsonl"

    def rows(count: int, first_error: int) -> str:
        row = {"schema_version": 1, "problem": "p" * 600, "steps": [], "first_error": first_error}
        return "".join(json.dumps({"id": f"{number:03}", **row}) + "\n" for number in range(count))

    path.write_text(rows(100, 1))
    index = RowIndex(path)
    until(lambda: index.complete)
    monkeypatch.setattr(index_module, "PAUSE", 0.5)
    with open(path, "a") as file:
        file.write(rows(200, 1)[path.stat().st_size :])
    until(lambda: len(index) == 128)
    with open(path, "r+") as file:
        file.write(rows(201, 2))
    monkeypatch.setattr(index_module, "PAUSE", 0.0)
    until(lambda: [facts.first_error for facts in index.facts] == [2] * 201)


def test_a_line_that_is_not_whole_yet_has_no_id(tmp_path: Path):
    one, line = tmp_path / "one.jsonl", json.dumps(verification("a"))
    one.write_text(line[:50])
    client = viewer(write(tmp_path / "other.jsonl", verification("a")), one)
    until(lambda: client.get("/progress").json()["complete"])
    assert "are in one.jsonl only" not in client.get("/").text
    one.write_text(line + "\n")
    until(lambda: "not there" not in client.get("/").text)
    assert "are in one.jsonl only" not in client.get("/").text


def test_a_row_whose_verdicts_are_open_is_not_found_by_its_label(tmp_path: Path):
    open_row = verification("u", 1, 1, unscored=1)
    open_row["steps"][0] |= {"score": None, "verdict": None}
    failed = {"schema_version": 1, "id": "f", "problem": "p", "solution": ["s"], "label": 1, "error": "no"}
    client = viewer(write(tmp_path / "rows.jsonl", open_row, failed))
    for wanted in ("error", "no-error", "wrong"):
        assert "No row is like that" in client.get(f"/?show={wanted}").text
