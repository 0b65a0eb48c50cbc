"""A run's folder: nothing that was written is lost, nothing is written twice, nobody else's run is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genprm.errors import ConfigError, InputError, OutputError
from genprm.records import Record
from rationale_synth.run_folder import SHARD_ROWS, InputMark, RunConfig, RunFolder, read_config

ROWS = SHARD_ROWS + 44


class Line(Record):
    """A record of the tests."""

    n: int


def config(rows: int = ROWS, job: str = "test", **options: Any) -> RunConfig:
    return RunConfig(job=job, options=options, input=InputMark(rows=rows, sha256="0"))


def numbers(run: RunFolder) -> list[int]:
    return [json.loads(line)["n"] for _, line in run.records()]


def test_records_come_in_the_order_of_the_input(tmp_path: Path):
    with RunFolder(tmp_path / "run", config()) as run:
        assert run.done == 0
        for index in reversed(list(run.pending())):
            run.add(index, Line(n=index))
        assert list(run.pending()) == []
        assert numbers(run) == list(range(ROWS))
    assert sorted(path.name for path in (tmp_path / "run" / "shards").iterdir()) == ["00000.jsonl", "00001.jsonl"]


def test_an_interrupted_run_is_taken_up(tmp_path: Path):
    with RunFolder(tmp_path, config()) as run:
        run.add(3, Line(n=3))
        run.note(5, "call", {"x": 1})
        run.note(5, "other", [2])
        run.note(3, "call", "no longer of use")
    with RunFolder(tmp_path, config()) as run:
        assert run.done == 1
        assert 3 not in set(run.pending())
        assert run.take_notes(5) == {"call": {"x": 1}, "other": [2]}
        assert run.take_notes(3) == {}
        for index in run.pending():
            run.add(index, Line(n=index))
        assert numbers(run) == list(range(ROWS))


@pytest.mark.parametrize("cut", [1, 7, 20])
def test_an_entry_that_was_cut_off_is_dropped(tmp_path: Path, cut: int):
    with RunFolder(tmp_path, config()) as run:
        run.add(0, Line(n=0))
        run.add(1, Line(n=1))
    journal = tmp_path / "shards" / "00000.journal"
    journal.write_bytes(journal.read_bytes()[:-cut])
    with RunFolder(tmp_path, config()) as run:
        assert 1 in set(run.pending())
        assert 0 not in set(run.pending())
        run.add(1, Line(n=1))
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())


def test_zeros_at_the_end_as_a_power_cut_leaves_them(tmp_path: Path):
    with RunFolder(tmp_path, config()) as run:
        run.add(0, Line(n=0))
    with open(tmp_path / "shards" / "00000.journal", "ab") as file:
        file.write(b"\0" * 4096)
    with RunFolder(tmp_path, config()) as run:
        assert run.done == 1


def test_failures_are_records_and_are_tried_again(tmp_path: Path):
    with RunFolder(tmp_path, config(rows=2)) as run:
        run.add(0, Line(n=100), failed=True)
        run.add(1, Line(n=1))
        assert numbers(run) == [100, 1]
        assert list(run.pending()) == []
    with RunFolder(tmp_path, config(rows=2)) as run:
        assert list(run.pending()) == [0]
        run.add(0, Line(n=0))
        assert numbers(run) == [0, 1]
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["00000.jsonl"]


def test_shards_with_failures_keep_no_file_open(tmp_path: Path):
    """Of a run of a million rows there may be more of them than a process may have files."""
    with RunFolder(tmp_path, config(rows=5 * SHARD_ROWS)) as run:
        before = len(os.listdir("/proc/self/fd"))
        for index in run.pending():
            run.add(index, Line(n=index), failed=index % SHARD_ROWS == 7)
        assert len(os.listdir("/proc/self/fd")) == before
        assert numbers(run) == list(range(5 * SHARD_ROWS))
    with RunFolder(tmp_path, config(rows=5 * SHARD_ROWS)) as run:
        assert len(list(run.pending())) == 5


def test_death_between_shard_and_journal(tmp_path: Path):
    """The shard is complete and its journal still there: kill -9 came between the two."""
    with RunFolder(tmp_path, config(rows=1)) as run:
        run.note(0, "call", 1)
        journal = (tmp_path / "shards" / "00000.journal").read_bytes()
        run.add(0, Line(n=0))
    (tmp_path / "shards" / "00000.journal").write_bytes(journal)
    with RunFolder(tmp_path, config(rows=1)) as run:
        assert run.done == 1
        assert numbers(run) == [0]


def test_death_before_the_shard_was_put_in_place(tmp_path: Path):
    with RunFolder(tmp_path, config(rows=2)) as run:
        run.add(0, Line(n=0))
        run._append(0, {"row": 1, "failed": False, "record": {"n": 1}})
    with RunFolder(tmp_path, config(rows=2)) as run:
        assert run.done == 2
        assert numbers(run) == [0, 1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (config(rows=3), "another input"),
        (config(rows=2, job="else"), "a test run, not a else run"),
        (config(rows=2, seed=1), "the run there has seed = None, not 1"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, other: RunConfig, message: str):
    with RunFolder(tmp_path, config(rows=2)) as run:
        run.add(0, Line(n=0))
    with pytest.raises(ConfigError, match=message):
        RunFolder(tmp_path, other)
    with RunFolder(tmp_path, config(rows=2)) as run:
        assert run.done == 1


def test_a_run_in_which_nothing_was_done_leaves_nothing(tmp_path: Path):
    folder = tmp_path / "run"
    with RunFolder(folder, config()):
        pass
    assert not folder.exists()
    with RunFolder(folder, config(other="options")) as run:
        run.add(0, Line(n=0))
    with pytest.raises(ConfigError, match="choose another folder"):
        RunFolder(folder, config())
    assert (folder / "config.json").exists()


def test_another_version_is_refused(tmp_path: Path):
    with RunFolder(tmp_path, config(rows=2)) as run:
        run.note(0, "call", "begun")
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ConfigError, match="not a run of this version"):
        RunFolder(tmp_path, config(rows=2))


def test_no_run_at_all(tmp_path: Path):
    with pytest.raises(InputError, match="no run in it"):
        read_config(tmp_path)


def test_two_processes_on_one_folder(tmp_path: Path):
    with RunFolder(tmp_path, config()):
        code = (
            "from rationale_synth.run_folder import *; from pathlib import Path\n"
            f"RunFolder(Path({str(tmp_path)!r}), RunConfig(job='test', options={{}}, "
            f"input=InputMark(rows={ROWS}, sha256='0')))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "another process is working in this folder" in done.stderr
    RunFolder(tmp_path, config()).close()


FULL = """
import resource, sys
from pathlib import Path
from rationale_synth.run_folder import *
from genprm.errors import OutputError
from genprm.records import Record
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
class Line(Record):
    n: int
    text: str
run = RunFolder(Path(sys.argv[1]), RunConfig(job="test", options={}, input=InputMark(rows=100, sha256="0")))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
added = 0
try:
    for index in run.pending():
        run.add(index, Line(n=index, text="x" * 900))
        added += 1
except OutputError as error:
    print(added, error)
run.close()
"""


def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    added, _, error = done.stdout.partition(" ")
    assert int(added) > 5
    assert "File too large" in error
    whole = config(rows=100)
    with RunFolder(tmp_path, whole) as run:
        assert run.done == int(added)
        for index in run.pending():
            run.add(index, Line(n=index))
        assert numbers(run) == list(range(100))


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Not a directory"):
        RunFolder(tmp_path / "file" / "run", config())
