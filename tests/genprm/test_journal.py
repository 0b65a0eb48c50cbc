"""Nothing that is finished is ever lost."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from genprm.aggregate import ChainVotes, combine_chains
from genprm.batch import Checked, is_verified
from genprm.errors import OutputError
from genprm.journal import Journal
from genprm.records import FailedRow, Solution, StepVote, StopReason, Usage, Verification, parse_row


def row(id: str) -> Verification:
    solution = Solution(id=id, problem="p", steps=("s",))
    chain = ChainVotes((StepVote(score=0.9, stop_reason=StopReason.JUDGED),), Usage())
    return combine_chains(solution, [chain], "m", "genprm")


def failed(id: str) -> FailedRow:
    return FailedRow(id=id, problem="p", solution=("s",), error="why")


def test_rows_come_out_in_the_order_of_the_input(tmp_path: Path):
    out = tmp_path / "out.jsonl"
    with Journal(out, "mark", is_verified) as journal:
        for index in (2, 0, 1):
            journal.add(index, row(str(index)))
        assert not out.exists()
        journal.finish()
    assert [parse_row(line).id for line in out.read_text().splitlines()] == ["0", "1", "2"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("torn", [b"", b'{"index": 9, "row": {"schema', b"\xff\xfe", b'{"index": 9}\n'])
def test_an_interrupted_run_is_continued(tmp_path: Path, torn: bytes):
    with Journal(tmp_path / "out", "mark", is_verified) as journal:
        journal.add(1, row("1"))
        journal.add(0, failed("0"))
    with open(tmp_path / "out.partial", "ab") as file:
        file.write(torn)
    with Journal(tmp_path / "out", "mark", is_verified) as journal:
        assert journal.done == {1}, "a failed row gets another try"
        journal.add(0, row("0"))
        journal.finish()
    assert len((tmp_path / "out").read_text().splitlines()) == 2


NOT_OURS = ["my notes\n", '[{"id": 1, "problem": "half a', '{"fingerprint": tru\n{"index": 0}\n', "[1]\n"]


@pytest.mark.parametrize("there", NOT_OURS)
def test_what_is_no_journal_of_ours_is_not_touched(tmp_path: Path, there: str):
    (tmp_path / "out.partial").write_text(there)
    with pytest.raises(OutputError, match="is no journal of ours"):
        Journal(tmp_path / "out", "mark", is_verified)
    assert (tmp_path / "out.partial").read_text() == there


def test_another_runs_journal_is_not_touched(tmp_path: Path):
    with Journal(tmp_path / "out", "mark", is_verified) as journal:
        journal.add(0, row("0"))
    before = (tmp_path / "out.partial").read_bytes()
    with pytest.raises(OutputError, match="other input or options"):
        Journal(tmp_path / "out", "another mark", is_verified)
    assert (tmp_path / "out.partial").read_bytes() == before


def test_a_run_that_finished_nothing_leaves_nothing(tmp_path: Path):
    with pytest.raises(RuntimeError), Journal(tmp_path / "out", "mark", is_verified):
        raise RuntimeError("no such model")
    assert list(tmp_path.iterdir()) == []
    with Journal(tmp_path / "out", "mark", is_verified) as journal:
        journal.add(0, row("0"))
    with pytest.raises(RuntimeError), Journal(tmp_path / "out", "mark", is_verified):
        raise RuntimeError("no such model")
    assert (tmp_path / "out.partial").read_bytes().count(b"\n") == 2


def test_two_runs_cannot_write_the_same_output(tmp_path: Path):
    with Journal(tmp_path / "out", "mark", is_verified), pytest.raises(OutputError, match="another run is writing"):
        Journal(tmp_path / "out", "mark", is_verified)


def test_a_missing_folder(tmp_path: Path):
    with pytest.raises(OutputError, match="No such file or directory"):
        Journal(tmp_path / "missing" / "out", "mark", is_verified)


def test_a_full_disk_keeps_what_was_written(tmp_path: Path):
    """On a real file system of 64 KiB."""
    import os
    import subprocess

    if os.getuid() != 0:
        pytest.skip("only root can mount a file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        with Journal(tmp_path / "out", "mark", is_verified) as journal:
            count = _fill(journal)
        with Journal(tmp_path / "out", "mark", is_verified) as journal:
            assert len(journal.done) == count > 10
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def _fill(journal: Journal) -> int:
    """Add rows until the disk is full; returns how many it took."""
    count = itertools.count()
    with pytest.raises(OutputError, match="No space left on device"):
        while True:
            journal.add(next(count), row("x" * 1000))
    return next(count) - 1


def test_fingerprint_sees_every_option_and_every_row():
    first = Solution(id="a", problem="p", steps=("s",))
    inputs = [
        ({"seed": 0}, [first]),
        ({"seed": 1}, [first]),
        ({"seed": 0}, [first, first]),
        ({"seed": 0}, [first.model_copy(update={"problem": "q"})]),
    ]
    marks = []
    for options, solutions in (*inputs, inputs[0]):
        with Checked(Solution, solutions) as checked:
            marks.append(checked.fingerprint(options))
            assert list(checked) == solutions
            assert checked.count == len(solutions)
    assert len(set(marks)) == 4
    assert marks[-1] == marks[0]


def test_journal_lines_are_json(tmp_path: Path):
    with Journal(tmp_path / "out", "mark", is_verified) as journal:
        journal.add(0, row("0"))
    header, entry = (json.loads(line) for line in (tmp_path / "out.partial").read_text().splitlines())
    assert header == {"fingerprint": "mark"}
    assert entry["index"] == 0
